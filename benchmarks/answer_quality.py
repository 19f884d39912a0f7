"""Does the answer hold the answer? `Pipeline.ask` with the local model, over budgets and over the order of passages.

    python benchmarks/answer_quality.py [DATA_FOLDER] [--questions 40] [--budgets 600 1200]

Data: xquad-en in BEIR form, the first questions of a fixed shuffle. A question counts where one of its answer strings
is in the model's answer, case ignored. `ctxkit` is what `ctxkit ask` sends: passages of some relevance only, the best
one last. `best first` is the usual order, `filled` fills the budget with passages. `cited` is the share of answers that
hold the answer string and cite a passage that holds it too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from ctxkit import Budget, LocalModel
from ctxkit.documents import Chunker, load
from ctxkit.pipeline import Pipeline, prompts
from ctxkit.retrieval import Index, SentenceTransformerEncoder

ANSWER_TOKENS = 48
VARIANTS = (
    ("ctxkit", prompts.best_last, 0.01),
    ("best first", list, 0.01),
    ("filled", prompts.best_last, 0.0),
)


def main() -> None:
    arguments = parse()
    questions = [json.loads(line) for line in (arguments.data / "queries.jsonl").read_text("utf-8").splitlines()]
    random.Random(3).shuffle(questions)
    encoder = SentenceTransformerEncoder()
    with Index.in_memory(encoder=encoder) as index:
        index.add(Chunker(encoder.count_batch).chunk_all(load(arguments.data / "corpus.jsonl")))
        pipeline = Pipeline(index, LocalModel.load(arguments.model))
        print(f"{'':>12} {'window':>7} {'right':>6} {'cited':>6} {'prompt':>7}")
        for name, order, share in VARIANTS:
            pipeline.order, pipeline.least_share = order, share
            for window in arguments.budgets:
                scores = list(ask(pipeline, questions[: arguments.questions], window))
                right, cited, tokens = (sum(column) / len(scores) for column in zip(*scores, strict=True))
                print(f"{name:>12} {window:>7} {right:>6.3f} {cited:>6.3f} {tokens:>7.0f}", flush=True)


def parse() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "xquad-en"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--budgets", type=int, nargs="+", default=[600, 1200])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    return parser.parse_args()


def ask(pipeline: Pipeline, questions: list[dict], window: int) -> Iterator[tuple[bool, bool, int]]:
    """(answer string in the answer, and in a cited passage, prompt tokens) per question."""
    budget = Budget(window, ANSWER_TOKENS)
    for question in questions:
        answer = pipeline.ask(question["text"], budget=budget).answer
        right = any(text.lower() in answer.text.lower() for text in question["answers"])
        evidence = " ".join(part.content for part in answer.sources.values())
        cited = right and any(text in evidence for text in question["answers"])
        yield right, cited, answer.reply.prompt_tokens


if __name__ == "__main__":
    main()
