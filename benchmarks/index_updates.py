"""What writes cost searches: an index of synthetic token vectors, searched quietly and between writes.

    export OMP_NUM_THREADS=1
    PYTHONPATH=benchmarks python benchmarks/index_updates.py --tokens 1000000 --writes 1000

Passages have made-up words and vectors (`synthetic.py`); encoding costs nothing, so that what is measured is the index:
its search, its transaction, the taking in of what was written. Every other write adds a passage, the others delete one;
a search follows each. Times are wall time of `Index.search` for ten hits, matches and evidence included. At the end
three fifths of the sources are deleted and the index is compacted.

Checks while it measures: what was added is found by its id, what was deleted is not, and no id has changed its text.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from synthetic import synthetic

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval import BuildOptions, Index
from ctxkit.retrieval.encoders import TokenVectors

BATCH = 2048
WORDS = 20_000
SOURCES = 100
MODES = ("dense", "hybrid")


class Prepared:
    """An encoder that looks vectors up: the text `d7 ...` has those of document 7, `q3 ...` those of query 3."""

    name, fingerprint, dims, multi_vector = "prepared", "prepared/1", 128, True

    def __init__(self, documents: Vectors, token_ids: np.ndarray, queries: Vectors) -> None:
        self._documents, self._token_ids, self._queries = documents, token_ids, queries

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        rows = [slice(*self._documents.offsets[i : i + 2]) for i in map(self._number, texts)]
        values = np.concatenate([self._documents.values[own] for own in rows])
        ids = np.concatenate([self._token_ids[own] for own in rows])
        offsets = np.cumsum([0, *(own.stop - own.start for own in rows)], dtype=np.int64)
        at = np.concatenate([np.arange(own.stop - own.start, dtype=np.int32) for own in rows])
        return TokenVectors(values, offsets, ids.astype(np.int32), np.stack([at, at + 1], axis=1))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        rows = self._queries[self._number(texts[0])]
        return TokenVectors(
            rows, np.array([0, len(rows)]), np.zeros(len(rows), np.int32), np.tile([[0, 1]], (len(rows), 1))
        )

    def _number(self, text: str) -> int:
        return int(text.split()[0][1:]) % max(len(self._documents), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--writes", type=int, default=1_000)
    parser.add_argument("--no-refine", action="store_true", help="keep the codes only")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: the figures are for one thread")
    documents, ids, queries, _ = synthetic(arguments.tokens, 100)
    build = BuildOptions(refine=not arguments.no_refine)
    with (
        tempfile.TemporaryDirectory() as folder,
        Index.open(folder, encoder=Prepared(documents, ids, queries), create=True, build=build) as index,
    ):
        Run(index, len(documents), arguments.writes).report()


class Run:
    """One index, filled, searched, changed and compacted."""

    def __init__(self, index: Index, documents: int, writes: int) -> None:
        self._index, self._documents, self._writes = index, documents, writes
        self._rng = np.random.default_rng(0)
        self._texts: dict[str, str] = {}

    def report(self) -> None:
        self._fill()
        quiet = {mode: self._searches(mode, 500) for mode in MODES}
        for mode in MODES:
            line(f"{mode}, quiet", quiet[mode])
            searched, written = self._interleaved(mode)
            line(f"{mode}, between writes", searched, quiet[mode])
            line(f"writes, {mode}", written)
        self._shrink()

    def _fill(self) -> None:
        started = time.process_time()
        for first in range(0, self._documents, BATCH):
            some = range(first, min(first + BATCH, self._documents))
            self._index.add([self._chunk(f"c{i}", f"{i % SOURCES}.md", i) for i in some])
        took, stats = time.process_time() - started, self._index.stats()
        each = stats.disk_bytes / stats.vector_rows
        print(f"{stats.chunks:,} passages, {stats.vector_rows:,} tokens, {stats.coded_rows:,} of them coded")
        print(f"filled in {took:.1f} CPU-s; {each:.0f} bytes per token on disk, texts and all, in {stats.files} files")

    def _searches(self, mode: str, count: int) -> list[float]:
        self._search(mode, 0)  # what the first search reads is not counted
        return [self._search(mode, number) for number in range(count)]

    def _search(self, mode: str, number: int) -> float:
        started = time.perf_counter()
        hits = self._index.search(f"q{number % 100} w{number} w{number * 7 % WORDS} w{number * 31 % WORDS}", mode=mode)
        took = time.perf_counter() - started
        for hit in hits:
            if self._texts.get(hit.chunk.id) != hit.chunk.text:
                raise SystemExit(f"{hit.chunk.id} is deleted, or has another text than it was added with")
        return took * 1e3

    def _interleaved(self, mode: str) -> tuple[list[float], list[float]]:
        searched, written = [], []
        for number in range(self._writes):
            started = time.perf_counter()
            if number % 2:
                self._delete()
            else:
                self._index.add([self._chunk(f"{mode}{number}", "new.md", self._documents + number)])
            written.append((time.perf_counter() - started) * 1e3)
            searched.append(self._search(mode, number))
        return searched, written

    def _delete(self) -> None:
        id_ = list(self._texts)[int(self._rng.integers(len(self._texts)))]
        self._index.delete(ids=[id_])
        del self._texts[id_]

    def _shrink(self) -> None:
        before = self._index.stats()
        self._index.delete(sources=[f"{number}.md" for number in range(SOURCES * 3 // 5)])
        self._index.compact()
        after = self._index.stats()
        print(f"{before.chunks:,} passages -> {after.chunks:,}: {before.disk_bytes:,} bytes -> {after.disk_bytes:,}")

    def _chunk(self, id_: str, source: str, number: int) -> Chunk:
        words = " ".join(f"w{int(WORDS * r**3)}" for r in self._rng.random(40))
        self._texts[id_] = f"d{number} {words}"
        return Chunk(id_, source, self._texts[id_])


def line(label: str, took: Sequence[float], quiet: Sequence[float] | None = None) -> None:
    median, p99 = np.percentile(took, [50, 99])
    against = "" if quiet is None else f"; p99 {p99 / np.percentile(quiet, 99):.2f} times the quiet one"
    print(f"    {label:24} median {median:7.2f} ms   p99 {p99:7.2f} ms{against}", flush=True)


if __name__ == "__main__":
    main()
