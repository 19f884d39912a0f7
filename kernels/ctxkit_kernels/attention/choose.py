"""Which attention path runs. On a CPU C++ for the best instruction set, else numba, else torch; on a GPU Triton.

Chosen here, once, and logged.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

from ctxkit_kernels.attention.interface import AttentionKernels
from ctxkit_kernels.attention.native import NativeAttention
from ctxkit_kernels.attention.reference import TorchAttention
from ctxkit_kernels.build import shared_library
from ctxkit_kernels.native import available

_log = logging.getLogger(__name__)


@cache
def attention_kernels(device: str) -> AttentionKernels:
    """The fastest path for tensors on a device of this type ("cpu", "cuda"); the first call may compile."""
    if device == "cpu":
        return _on_cpu()
    if device == "cuda" and find_spec("triton") is not None:
        from ctxkit_kernels.attention.triton_attention import TritonAttention

        _log.info("attention kernels on %s: Triton", device)
        return TritonAttention()
    reason = ", slow, because Triton is not installed" if device == "cuda" else ""
    _log.log(logging.WARNING if reason else logging.INFO, "attention kernels on %s: torch%s", device, reason)
    return TorchAttention()


@cache
def all_attention_kernels() -> tuple[AttentionKernels, ...]:
    """Every path that this machine's CPU can run, best first. For tests and benchmarks."""
    native: list[AttentionKernels] = []
    try:
        found = shared_library()
        native.extend(NativeAttention(found, path) for path in available(found))
    except (RuntimeError, OSError) as error:
        _log.warning("attention kernels: no C++ path: %s", error)
    fallback = _without_compiler()
    return (*native, fallback) if isinstance(fallback, TorchAttention) else (*native, fallback, TorchAttention())


def _on_cpu() -> AttentionKernels:
    try:
        found = shared_library()
        paths = available(found)
        _log.info("attention kernels on cpu: C++ %s (of %s), %s", paths[0], ", ".join(paths), found)
        return NativeAttention(found, paths[0])
    except (RuntimeError, OSError) as error:
        kernels = _without_compiler()
        _log.warning("attention kernels on cpu: %s, because the C++ ones cannot be had: %s", kernels.name, error)
        return kernels


def _without_compiler() -> AttentionKernels:
    if find_spec("numba") is None:
        return TorchAttention()
    from ctxkit_kernels.attention.jit import NumbaAttention

    return NumbaAttention()
