"""ctxkit's multi-vector engine. Run by the project's interpreter.

native: the C++ kernels that are best here; numba: the same stages by numba. -refine: int8 vectors are kept, too.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
from harness import Given, Index, K, Method, Query, Setting, folder_bytes, main

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine, SearchOptions
from ctxkit_kernels import Kernels, all_kernels, best_kernels

FIELDS = ("nprobe", "t_prime", "coarse", "rerank", "refine")
CODES = (
    (6, 1000, 400, 60, 0),
    (6, 2000, 500, 70, 0),
    (8, 1000, 600, 80, 0),
    (8, 2000, 600, 100, 0),
    (12, 2000, 800, 120, 0),
    (16, 2000, 1000, 160, 0),
    (16, 2000, 1200, 200, 0),
    (24, 2000, 2000, 300, 0),
    (32, 4000, 3000, 500, 0),
)
REFINED = (
    (8, 1000, 600, 80, 15),
    (8, 1000, 800, 100, 20),
    (12, 2000, 800, 120, 20),
    (16, 2000, 1200, 200, 30),
    (24, 2000, 2000, 300, 30),
    (24, 3000, 2500, 400, 40),
    (32, 4000, 3000, 500, 50),
    (32, 4000, 3000, 700, 50),
)


def build(kernels: Kernels, refine: bool, given: Given, scratch: Path) -> Index:
    vectors = Vectors(given.values, given.offsets)
    engine = MultiVectorEngine.build(
        vectors, given.token_ids, BuildOptions(exact_below_tokens=0, refine=refine), kernels
    )
    engine.save(scratch / "index" / "engine")

    options = cache(SearchOptions)

    def search(query: Query, nprobe: int, t_prime: int, coarse: int, rerank: int, refine: int) -> np.ndarray:
        chosen = options(nprobe, t_prime, coarse, rerank, refine)
        return engine.search(query.vectors, K, options=chosen, evidence=False).ids  # no peer says which token answered

    return Index(search, folder_bytes(scratch / "index"))


def method(kernels: Kernels, *, refine: bool) -> Method:
    chosen = REFINED if refine else CODES
    settings: list[Setting] = [dict(zip(FIELDS, values, strict=True)) for values in chosen]
    return Method(partial(build, kernels, refine), settings, quick=3)


def compiled(kernels: Kernels) -> Kernels:
    """After a search of something small, so that no build is charged for numba's compiler."""
    rng = np.random.default_rng(0)
    vectors = Vectors(rng.standard_normal((2000, 128), np.float32), np.arange(0, 2001, 20))
    engine = MultiVectorEngine.build(vectors, None, BuildOptions(exact_below_tokens=0, refine=True), kernels)
    engine.search(vectors[0])
    return kernels


if __name__ == "__main__":
    native = best_kernels()
    numba = next(path for path in all_kernels() if "numba" in path.name)
    both = {"native": compiled(native), "numba": compiled(numba)}
    main(
        {
            f"{name}{'-refine' * refine}": method(kernels, refine=refine)
            for name, kernels in both.items()
            for refine in (False, True)
        }
    )
