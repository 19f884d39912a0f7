"""How well the index finds, on collections in BEIR form.

    python benchmarks/retrieval_quality.py ../shared/data/xquad-en ../shared/data/cranfield

Prints, per collection and method: the share of queries with a relevant passage among the first 1, 3, 5 and 10, nDCG@10
(binary), and for collections with answer strings the share of queries whose answer is inside the context when whole
passages are packed by rank into 300, 500 and 1000 word pieces. Then how far `relevance` can be believed.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import Hit, Index, ReciprocalRankFusion, ScoreFusion, SentenceTransformerEncoder
from ctxkit.retrieval.index import MODES

CUTS = (1, 3, 5, 10)
BUDGETS = (300, 500, 1000)
BINS = (0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.01)


@dataclass(frozen=True)
class Query:
    text: str
    relevant: frozenset[str]
    answers: tuple[str, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="+", type=Path)
    folders = parser.parse_args().collections
    encoder = SentenceTransformerEncoder()
    for folder in folders:
        with Index.in_memory(encoder=encoder) as index:
            index.add(chunks_of(folder))
            report(folder, index, list(queries_of(folder)))


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


def report(folder: Path, index: Index, queries: list[Query]) -> None:
    print(f"\n{folder.name}: {len(index)} passages, {len(queries)} queries")
    for name, found in results(index, queries):
        figures = [f"hit@{k} {share(found, queries, k):.3f}" for k in CUTS]
        figures.append(f"nDCG@10 {sum(map(ndcg, found, queries)) / len(queries):.3f}")
        if any(query.answers for query in queries):
            figures += [f"packed {size} {packed(index, found, queries, size):.3f}" for size in BUDGETS]
        print(f"{name:16}", "  ".join(figures))
        print(" " * 16, calibration(found, queries))


def results(index: Index, queries: list[Query]) -> Iterator[tuple[str, list[list[Hit]]]]:
    for mode in MODES:
        for fusion in (ScoreFusion(), ReciprocalRankFusion()) if mode == "hybrid" else (ScoreFusion(),):
            shown = Index(index._store, index.encoder, fusion)
            yield (
                f"{mode} {fusion.kind if mode == 'hybrid' else ''}",
                [shown.search(q.text, 20, mode=mode) for q in queries],
            )


def share(found: list[list[Hit]], queries: list[Query], k: int) -> float:
    good = sum(any(h.chunk.id in q.relevant for h in hits[:k]) for hits, q in zip(found, queries, strict=True))
    return good / len(queries)


def ndcg(hits: list[Hit], query: Query) -> float:
    gain = sum(1 / math.log2(hit.rank + 1) for hit in hits[:10] if hit.chunk.id in query.relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(query.relevant)) + 1))


def packed(index: Index, found: list[list[Hit]], queries: list[Query], budget: int) -> float:
    return sum(
        any(a in context(index, hits, budget) for a in q.answers) for hits, q in zip(found, queries, strict=True)
    ) / len(queries)


def context(index: Index, hits: list[Hit], budget: int) -> str:
    texts, left = [], budget
    for hit in hits:
        size = tokens(index, hit.chunk.text)
        if size <= left:
            texts.append(hit.chunk.text)
            left -= size
    return "\n".join(texts)


def tokens(index: Index, text: str, cache: dict[str, int] = {}) -> int:  # noqa: B006
    if text not in cache:
        cache[text] = len(index.encoder._model.tokenizer(text, verbose=False).input_ids)  # type: ignore[attr-defined]
    return cache[text]


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
