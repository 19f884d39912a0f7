"""Which attention path runs on which device: on a GPU Triton, else torch. Chosen here, once, and logged."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

from ctxkit_kernels.attention.interface import AttentionKernels
from ctxkit_kernels.attention.reference import TorchAttention

_log = logging.getLogger(__name__)


@cache
def attention_kernels(device: str) -> AttentionKernels:
    """The fastest path for tensors on a device of this type ("cpu", "cuda")."""
    if device == "cuda" and find_spec("triton") is not None:
        from ctxkit_kernels.attention.triton_attention import TritonAttention

        _log.info("attention kernels on %s: Triton", device)
        return TritonAttention()
    if device == "cuda":
        _log.warning("attention kernels on %s: torch, slow, because Triton is not installed", device)
    else:
        _log.info("attention kernels on %s: torch", device)
    return TorchAttention()
