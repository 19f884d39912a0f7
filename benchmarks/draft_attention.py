"""Does the answer survive? Semantic deletion and draft attention against the head of the text and rare words.

    python benchmarks/draft_attention.py [DATA_FOLDER] [--passages 40] [--rates 0.33 0.5] [--seed 0]

xquad-en: one question to each of so many passages, drawn by chance. A passage is cut to a share of its tokens, given
the question; the answer survives where one of its answer strings stands in what is left. `reads it` says whether a
method looks at the question; pins, which all methods have, do. CPU seconds of `compress` are per 1,000 tokens of
passages, after one call that loads the model; agreement is Spearman's rank correlation of the estimated with the
measured deletion, the mean over sentences of five words and more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctxkit.compression.baselines import Head, RareWords
from ctxkit.compression.deletion import SemanticDeletion
from ctxkit.compression.draft_attention import DraftAttention
from ctxkit.compression.prepared import compress
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor
from ctxkit.models import LocalModel
from ctxkit.retrieval import SentenceTransformerEncoder
from ctxkit.retrieval.encoders import TokenStateEncoder


@dataclass(frozen=True)
class Task:
    text: str
    question: str
    answers: list[str]


def main() -> None:
    arguments = parse()
    model = LocalModel.load()
    tasks = tasks_of(arguments.data / "xquad-en", arguments.passages, arguments.seed)
    measured, estimated = SemanticDeletion(SentenceTransformerEncoder()), SemanticDeletion(TokenStateEncoder())
    methods: list[tuple[str, str, WordCompressor]] = [
        ("head", "no", Head()),
        ("rare words", "no", RareWords()),
        ("deletion, measured", "no", measured),
        ("deletion, estimated", "no", estimated),
        *((f"draft attention, kernel {size}", "yes", DraftAttention(model, kernel=size)) for size in (32, 16, 8)),
    ]
    print("| method | reads it |", " | ".join(f"{rate:.0%}" for rate in arguments.rates), "| CPU s per 1k tokens |")
    print("|" + "---|" * (3 + len(arguments.rates)))
    for name, reads, method in methods:
        survived, seconds = survival(method, tasks, arguments.rates, model)
        print(
            f"| {name} | {reads} |", " | ".join(f"{share:.3f}" for share in survived), f"| {seconds:.2f} |", flush=True
        )
    print(f"\nagreement of the two deletions: {agreement(measured, estimated, tasks):.3f}")


def parse() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--passages", type=int, default=40)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.33, 0.5])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def tasks_of(folder: Path, passages: int, seed: int) -> list[Task]:
    corpus = {row["_id"]: row["text"] for row in rows(folder / "corpus.jsonl")}
    queries = {row["_id"]: row for row in rows(folder / "queries.jsonl")}
    pairs = [line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    random.Random(seed).shuffle(pairs)
    asked: dict[str, dict] = {}
    for query, passage in pairs:
        asked.setdefault(passage, queries[query])
    return [Task(corpus[passage], row["text"], row["answers"]) for passage, row in list(asked.items())[:passages]]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def survival(
    method: WordCompressor, tasks: Sequence[Task], rates: Sequence[float], counter: LocalModel
) -> tuple[list[float], float]:
    """Share of answers that survive at each rate, and CPU seconds per 1,000 tokens."""
    compress("Warm up. It loads the model.", method, rate=0.5, question="What?", counter=counter)
    started = time.process_time()
    survived = []
    for rate in rates:
        left = [compress(task.text, method, rate=rate, question=task.question, counter=counter).text for task in tasks]
        found = [any(answer in text for answer in task.answers) for task, text in zip(tasks, left, strict=True)]
        survived.append(float(np.mean(found)))
    tokens = sum(counter.count_batch([task.text for task in tasks])) * len(rates)
    return survived, (time.process_time() - started) / tokens * 1000


def agreement(measured: SemanticDeletion, estimated: SemanticDeletion, tasks: Sequence[Task]) -> float:
    texts = [Words.of(task.text, None) for task in tasks]
    found = []
    for words, one, other in zip(texts, measured.scores(texts, ""), estimated.scores(texts, ""), strict=True):
        for sentence in set(words.sentences):
            own = [i for i, number in enumerate(words.sentences) if number == sentence]
            if len(own) >= 5:
                found.append(np.corrcoef(ranks([one[i] for i in own]), ranks([other[i] for i in own]))[0, 1])
    return float(np.nanmean(found))


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks, those of equal values the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


if __name__ == "__main__":
    main()
