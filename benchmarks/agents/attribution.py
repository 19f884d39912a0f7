"""Leave-one-out attribution: what shared prefixes save, and whether the right passage has the most influence.

    python benchmarks/agents/attribution.py [DATA_FOLDER] [--questions 15] [--timed 3] [--passages 8] [--words 60]
        [--answer gold|own] [--dtype float32] [--seed 0] [--json]

xquad-en: each prompt has the passage that answers the question, at a place drawn by chance, among short passages of
other articles, each cut to its first sentences of so many words in all. `gold`: the answer of the data set is scored;
`own`: the model's. The first `--timed` questions are scored a second time with every prompt read whole: tokens, CPU
seconds, and the largest difference of an influence. Chance finds the right passage in one of `--passages` cases.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxkit import Sampling, passage, question, system
from ctxkit.models import LocalModel
from ctxkit.pipeline.citations import split_sentences
from ctxkit_agents.attribution import Attribution, LeaveOneOut

SYSTEM = "Answer the question from the passages, in a few words."
GOLD = "gold"


@dataclass(frozen=True)
class Case:
    question: str
    answer: str
    passages: tuple[tuple[str, str], ...]


def main() -> None:
    arguments = parse()
    model = LocalModel.load(dtype=arguments.dtype)
    cases = list(cases_of(arguments.data / "xquad-en", arguments))
    results = [explained(model, case, arguments.answer) for case in cases]
    naive = [explained(model, case, arguments.answer, share=False) for case in cases[: arguments.timed]]
    report = summary(results, naive)
    print(json.dumps(report, indent=2) if arguments.json else table(report))


def parse() -> argparse.Namespace:
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--questions", type=int, default=15)
    parser.add_argument("--timed", type=int, default=3)
    parser.add_argument("--passages", type=int, default=8)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--answer", choices=["gold", "own"], default="gold")
    parser.add_argument("--dtype", default=None, help="of the weights; as they are stored by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def cases_of(folder: Path, arguments: argparse.Namespace) -> Iterator[Case]:
    """One question to each of so many passages that still hold the answer when they are cut."""
    corpus = {row["_id"]: row for row in rows(folder / "corpus.jsonl")}
    queries = {row["_id"]: row for row in rows(folder / "queries.jsonl")}
    pairs = [line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    draw = random.Random(arguments.seed)
    draw.shuffle(pairs)
    texts = {key: beginning(row["text"], arguments.words) for key, row in corpus.items()}
    seen: set[str] = set()
    for query_id, passage_id in pairs:
        answer, title = queries[query_id]["answers"][0], corpus[passage_id]["title"]
        if passage_id in seen or answer not in texts[passage_id] or len(seen) == arguments.questions:
            continue
        seen.add(passage_id)
        others = draw.sample(
            sorted(key for key, row in corpus.items() if row["title"] != title), arguments.passages - 1
        )
        chosen = [(key, texts[key]) for key in others]
        chosen.insert(draw.randrange(arguments.passages), (GOLD, texts[passage_id]))
        yield Case(queries[query_id]["text"], answer, tuple(chosen))


def rows(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def beginning(text: str, words: int) -> str:
    """The first sentences of at most so many words in all, and one at least."""
    kept = ""
    for sentence in split_sentences(text):
        if kept and len((kept + sentence).split()) > words:
            break
        kept += sentence
    return kept


def explained(model: LocalModel, case: Case, answer: str, *, share: bool = True) -> tuple[Attribution, float]:
    """The attribution, and the CPU seconds that it took."""
    passages = [passage(text, id=key) for key, text in case.passages]
    parts = [system(SYSTEM), *passages, question(case.question)]
    method = LeaveOneOut(model, Sampling(max_tokens=24), share_prefixes=share)
    began = time.process_time()
    value = method.task(parts, answer=case.answer if answer == "gold" else None).run().value
    return value, time.process_time() - began


def summary(results: Sequence[tuple[Attribution, float]], naive: Sequence[tuple[Attribution, float]]) -> dict[str, Any]:
    ranks = [rank_of_gold(value) for value, _ in results]
    shared = results[: len(naive)]
    return {
        "questions": len(results),
        "gold first": sum(rank == 1 for rank in ranks),
        "gold in the first two": sum(rank <= 2 for rank in ranks),
        "mean share of gold": sum(value.shares[GOLD] for value, _ in results) / len(results),
        "timed": len(naive),
        "tokens read, shared": sum(value.tokens_read for value, _ in shared),
        "tokens read, whole prompts": sum(value.tokens_read for value, _ in naive),
        "CPU seconds, shared": sum(seconds for _, seconds in shared),
        "CPU seconds, whole prompts": sum(seconds for _, seconds in naive),
        "largest difference": max(
            (
                abs(one.drop - other.drop)
                for (mine, _), (theirs, _) in zip(shared, naive, strict=True)
                for one, other in zip(mine.influences, theirs.influences, strict=True)
            ),
            default=0.0,
        ),
    }


def rank_of_gold(value: Attribution) -> int:
    (gold,) = (one for one in value.influences if GOLD in one.part_ids)
    return 1 + sum(one.drop > gold.drop for one in value.influences)


def table(report: dict[str, Any]) -> str:
    lines = [
        f"| {name} | {value:,.3f} |" if isinstance(value, float) else f"| {name} | {value:,} |"
        for name, value in report.items()
    ]
    return "\n".join(["| | |", "|---|---|", *lines])


if __name__ == "__main__":
    main()
