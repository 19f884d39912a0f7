"""Which path runs. On a CPU C++ for the best instruction set, else numba, else numpy; on a GPU Triton, else torch.

Chosen here, once, and logged.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Literal

from ctxkit_kernels.build import shared_library
from ctxkit_kernels.device import DeviceKernels
from ctxkit_kernels.interface import Kernels
from ctxkit_kernels.native import NativeKernels, available
from ctxkit_kernels.reference import ReferenceKernels

DevicePath = Literal["triton", "torch"]

_log = logging.getLogger(__name__)


@cache
def best_kernels() -> Kernels:
    """The fastest path of this machine; the first call may compile, some seconds."""
    try:
        found = shared_library()
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
        found = shared_library()
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


@cache
def device_kernels(device: str, path: DevicePath | None = None) -> DeviceKernels:
    """The path for tensors on a device of this type ("cuda", "cpu"); `path` asks for one by name.

    Raises ImportError where torch, or the Triton that was asked for, is not installed, and RuntimeError where Triton is
    asked to run on a device that it cannot compile for.
    """
    if path == "torch" or (path is None and (device != "cuda" or find_spec("triton") is None)):
        from ctxkit_kernels.torch_maxsim import TorchKernels

        reason = ", slow, because Triton is not installed" if path is None and device == "cuda" else ""
        _log.log(logging.WARNING if reason else logging.INFO, "kernels on %s: torch%s", device, reason)
        return TorchKernels()
    from ctxkit_kernels.triton_maxsim import TritonKernels, interpreted

    if device != "cuda" and not interpreted():
        raise RuntimeError(f"Triton compiles for CUDA only, got {device!r}. For its interpreter set TRITON_INTERPRET=1")
    _log.info("kernels on %s: Triton%s", device, ", interpreted, very slow" if interpreted() else "")
    return TritonKernels()
