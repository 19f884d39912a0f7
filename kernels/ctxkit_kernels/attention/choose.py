"""Which attention path runs on which device. Chosen here, once, and logged."""

from __future__ import annotations

import logging
from functools import cache

from ctxkit_kernels.attention.interface import AttentionKernels
from ctxkit_kernels.attention.reference import TorchAttention

_log = logging.getLogger(__name__)


@cache
def attention_kernels(device: str) -> AttentionKernels:
    """The fastest path for tensors on a device of this type ("cpu", "cuda")."""
    _log.info("attention kernels on %s: torch", device)
    return TorchAttention()
