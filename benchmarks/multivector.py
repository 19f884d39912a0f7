"""How fast the multi-vector engine finds what exact MaxSim finds, on one thread.

    export OMP_NUM_THREADS=1
    python benchmarks/multivector.py ../shared/data/cranfield ../shared/data/xquad-en --cache /tmp/vectors
    python benchmarks/multivector.py --synthetic-tokens 1000000

The vectors are those of token_vectors.py, cached in the folder of --cache: of --passages of each collection (default
1,500), or synthetic.

Prints build CPU seconds, bytes per token, CPU ms per query (process time, warm, the best of three rounds) and recall@10
against exact float32 MaxSim. Recall of 200 queries is good to about 0.01. Beside other engines: retrieval_peers.py.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from token_vectors import Data, K, encoded, synthetic

from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine
from ctxkit_kernels import Kernels, all_kernels

ROUNDS = 3
SETTINGS = (  # probes, t', coarse, rerank, refine
    (8, 1000, 600, 80, 0),
    (8, 2000, 600, 100, 0),
    (12, 2000, 800, 120, 0),
    (16, 2000, 1200, 200, 0),
    (32, 4000, 3000, 500, 0),
    (12, 2000, 800, 120, 20),
    (16, 2000, 1200, 200, 30),
    (24, 2000, 2000, 300, 30),
    (32, 4000, 3000, 500, 50),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed at recall of the multi-vector engine")
    parser.add_argument("collections", nargs="*", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for token vectors")
    parser.add_argument("--passages", type=int, default=1500, help="of each collection; 0: all")
    parser.add_argument("--passage-tokens", type=int, default=80)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--synthetic-tokens", type=int)
    parser.add_argument("--centroids", type=int)
    parser.add_argument("--kernels", default="", help="part of a path's name: avx512, avx2, scalar, numba, numpy")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: the figures are for one thread")
    if arguments.synthetic_tokens:
        data = synthetic(arguments.synthetic_tokens, arguments.queries)
    elif arguments.collections and arguments.cache:
        data = encoded(
            arguments.collections,
            arguments.cache,
            arguments.queries,
            passages=arguments.passages or None,
            passage_tokens=arguments.passage_tokens,
        )
    else:
        parser.error("give collections and --cache, or --synthetic-tokens")
    tokens, lanes = len(data.documents.values), np.diff(data.queries.offsets).mean()
    print(f"{len(data.documents):,} passages, {tokens:,} tokens, {len(data.queries)} queries of {lanes:.1f} tokens")
    kernels = next(path for path in all_kernels() if arguments.kernels in path.name)
    report_engine(data, kernels, arguments.centroids)


def report_engine(data: Data, kernels: Kernels, centroids: int | None) -> None:
    tokens = len(data.documents.values)
    for refine in (False, True):
        options = BuildOptions(exact_below_tokens=0, refine=refine, centroids=centroids)
        took, engine = cpu(lambda: MultiVectorEngine.build(data.documents, data.token_ids, options, kernels))  # noqa: B023
        print(f"{engine!r}: build {took:.1f} CPU-s, {engine.nbytes / tokens:.1f} bytes per token")
        for setting in SETTINGS:
            if refine == (setting[4] > 0):
                names = dict(zip(("nprobe", "t_prime", "coarse", "rerank", "refine"), setting, strict=True))
                line(data, str(setting), lambda query: engine.search(query, K, **names).ids)  # noqa: B023
    if tokens <= 200_000:
        scan = MultiVectorEngine.build(data.documents, None, BuildOptions(exact_below_tokens=tokens), kernels)
        print(f"{scan!r}: {scan.nbytes / tokens:.1f} bytes per token")
        line(data, "exact int8 scan", lambda query: scan.search(query, K).ids)


def line(data: Data, label: str, search: Callable[[np.ndarray], np.ndarray]) -> None:
    queries = [data.queries[i] for i in range(len(data.queries))]
    found = [search(query) for query in queries]  # warm
    took = min(cpu(lambda: [search(query) for query in queries])[0] for _ in range(ROUNDS)) / len(queries)
    recall = np.mean([len(set(ids) & set(best)) / K for ids, best in zip(found, data.truth, strict=True)])
    print(f"    {label:32} {took * 1e3:8.3f} ms   recall@{K} {recall:.3f}", flush=True)


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


if __name__ == "__main__":
    main()
