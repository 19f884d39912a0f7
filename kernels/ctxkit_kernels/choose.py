"""Which path runs: C++ on the best instruction set, else numba, else numpy. Chosen here, once, and logged."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

from ctxkit_kernels.build import library
from ctxkit_kernels.interface import Kernels
from ctxkit_kernels.native import NativeKernels, available
from ctxkit_kernels.reference import ReferenceKernels

_log = logging.getLogger(__name__)


@cache
def best_kernels() -> Kernels:
    """The fastest path of this machine; the first call may compile, some seconds."""
    try:
        found = library()
        paths = available(found)
        _log.info("kernels: C++ %s (of %s), %s", paths[0], ", ".join(paths), found)
        return NativeKernels(found, paths[0])
    except (RuntimeError, OSError) as error:
        kernels = _without_compiler()
        _log.warning("kernels: %s, because the C++ kernels cannot be had: %s", kernels.name, error)
        return kernels


@cache
def all_kernels() -> tuple[Kernels, ...]:
    """Every path that this machine can run, best first. For tests and benchmarks."""
    native: list[Kernels] = []
    try:
        found = library()
        native.extend(NativeKernels(found, path) for path in available(found))
    except (RuntimeError, OSError) as error:
        _log.warning("kernels: no C++ path: %s", error)
    fallback = _without_compiler()
    return (*native, fallback, ReferenceKernels()) if fallback.name != "numpy" else (*native, fallback)


def _without_compiler() -> Kernels:
    if find_spec("numba") is None:
        return ReferenceKernels()
    from ctxkit_kernels.jit import NumbaKernels

    return NumbaKernels()
