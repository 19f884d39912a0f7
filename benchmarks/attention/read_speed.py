"""How fast a device can be read: bytes per second of a kernel that adds numbers up and writes next to nothing."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def _sum_kernel(numbers: Any, out: Any, each: Any, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    first = tl.program_id(0).to(tl.int64) * each
    sums = tl.zeros([BLOCK], tl.int32)
    for start in range(0, each, BLOCK):
        sums += tl.load(numbers + first + start + tl.arange(0, BLOCK))
    tl.store(out + tl.program_id(0), tl.sum(sums, axis=0))


def sum_programs(numbers: torch.Tensor, programs: int, block: int = 4096) -> torch.Tensor:
    """int32 [programs], the sums (modulo 2**32) of as many equal parts of int32 numbers; a rest is not read."""
    out = torch.empty(programs, dtype=torch.int32, device=numbers.device)
    _sum_kernel[(programs,)](numbers, out, read_by(numbers, programs, block) // programs, block, num_warps=8)
    return out


def read_by(numbers: torch.Tensor, programs: int, block: int = 4096) -> int:
    """How many numbers `sum_programs` reads."""
    return len(numbers) // (programs * block) * (programs * block)
