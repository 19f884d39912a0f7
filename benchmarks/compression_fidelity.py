"""What is left of the facts: every method at 20, 33, 50 and 70 % of the tokens, in one run.

    python benchmarks/compression_fidelity.py [DATA_FOLDER] [--meetings 6] [--plot FILE] [--slow]

`xquad-en`: the passages of the 12 articles that the head of `FactWords` was not trained on, each cut to a share of its
own tokens; answer survival is the share of their questions of which an answer string stands in what is left.
`auto` (sentences) and draft attention read the question. `qmsum`: meetings, a line for each turn; gold recall is the
share of the characters of the turns that annotators marked as what a question needs. Tokens are SmolLM2's.

--slow adds the methods that ask a language model (SmolLM2-135M): surprisal (Selective Context, LLMLingua) and draft
attention (SpecPC).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from keep_head.articles import HELD_OUT, in_order

from ctxkit.compression import FactWords, Head, NoStopWords, RandomWords, RareWords, TextCompressor
from ctxkit.compression.distortion import AnswerSurvival, Curve, GoldRecall, IdentifierSurvival, Sample, curve
from ctxkit.models import resolve
from ctxkit.pipeline import compressor_named
from ctxkit.tokens import TemplateCounter


def main() -> None:
    arguments = parsed()
    counter = TemplateCounter.from_folder(resolve("smollm2-135m-instruct")).as_text()
    methods = [RandomWords(), Head(), RareWords(), NoStopWords(), FactWords(), compressor_named("auto")]
    slow = list(slow_methods()) if arguments.slow else []
    passages = list(xquad(arguments.data / "xquad-en"))
    metrics = [AnswerSurvival(), IdentifierSurvival()]
    show(f"xquad-en, held out: {len(passages)} questions", curve([*methods, *slow], passages, metrics, counter=counter))
    meetings = list(qmsum(arguments.data / "qmsum", arguments.meetings))
    found = curve(methods, meetings, GoldRecall(), counter=counter)
    show(f"qmsum: {len(meetings)} questions about {arguments.meetings} meetings", found)
    if arguments.plot:
        curve(methods, passages, metrics, counter=counter).plot(arguments.plot)


def parsed() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--meetings", type=int, default=6)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--slow", action="store_true")
    return parser.parse_args()


def slow_methods() -> Iterator[TextCompressor]:
    from ctxkit.compression import DraftAttention, Surprisal
    from ctxkit.models import LocalModel

    model = LocalModel.load()
    yield Surprisal(model)
    yield DraftAttention(model)


def show(title: str, found: Curve) -> None:
    print(f"\n{title}\n\n{found}", flush=True)


def xquad(folder: Path) -> Iterator[Sample]:
    """A question and its passage each, of the articles that come first in the order of the hash of their names."""
    passages = {row["_id"]: row["text"] for row in rows(folder / "corpus.jsonl")}
    questions = {row["_id"]: row for row in rows(folder / "queries.jsonl")}
    names = {passage.rpartition("#")[0] for passage in passages}
    apart = set(in_order(names)[:HELD_OUT])
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        question, passage, _ = line.split("\t")
        if passage.rpartition("#")[0] in apart:
            yield Sample((passages[passage],), questions[question]["text"], tuple(questions[question]["answers"]))


def qmsum(folder: Path, meetings: int) -> Iterator[Sample]:
    """A question about a meeting each, and the turns that it needs, a line each."""
    for meeting in list(rows(folder / "val.jsonl"))[:meetings]:
        turns = [f"{turn['speaker']}: {turn['content']}\n" for turn in meeting["meeting_transcripts"]]
        starts = [0, *accumulate(map(len, turns))]
        for query in meeting["specific_query_list"]:
            needed = {i for first, last in query["relevant_text_span"] for i in range(int(first), int(last) + 1)}
            gold = tuple((0, starts[i], starts[i + 1]) for i in sorted(needed) if i < len(turns))
            yield Sample(("".join(turns),), query["query"], gold=gold)


def rows(path: Path) -> Sequence[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
