"""Every kernel against the torch reference, on the device at hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from attended import chunk_inputs, kernels
from measuring import Bench, apart

from ctxkit_kernels.attention import Pages, Table, TorchAttention, shift_turns


def check(bench: Bench) -> None:
    """Relative differences of each kernel from torch's in float32. Raises RuntimeError where one is too large."""
    kinds = [(torch.float32, 16, 1e-4), (torch.bfloat16, 16, 1e-2), (torch.bfloat16, 256, 1e-2), (torch.int8, 16, 1e-2)]
    found, wrong = bench.results.setdefault("check", {}), []
    for kind, page, most in kinds:
        for kernel, gap in differences(bench, kind, page):
            found[f"{kernel}, {kind}, {page}"] = gap
            wrong += [] if gap <= (most if kernel == "attention" else 1e-4) else [f"{kernel} of {kind}: {gap:.1e}"]
    for kind, most in ((torch.float32, 1e-4), (torch.bfloat16, 2e-2)):
        found[f"chunk, {kind}"] = gap = chunk_difference(bench, kind)
        wrong += [] if gap <= most else [f"chunk of {kind}: {gap:.1e}"]
    print({name: f"{gap:.1e}" for name, gap in found.items()}, flush=True)
    if wrong:
        raise RuntimeError(f"WRONG, so that no time would mean anything: {'; '.join(wrong)}")


def differences(bench: Bench, kind: Any, page: int) -> Iterator[tuple[str, float]]:
    sizes, device, rows = bench.sizes, bench.device, bench.sizes.heads
    runs = sizes.checked_tokens // page + 1
    draw = torch.Generator(device).manual_seed(1)

    def random(most: int) -> Any:
        return torch.randint(0, most, (rows, runs), generator=draw, device=device).int()

    shape = (runs * 2, page, sizes.dims)
    scales = [torch.rand(shape[:2], generator=draw, device=device) / 50 if kind == torch.int8 else None] * 2
    wide = [torch.randn(shape, generator=draw, device=device) for _ in range(2)]
    stored = Pages(*((part.clamp(-3, 3) * 40 if kind == torch.int8 else part).to(kind) for part in wide), *scales)
    first = random(page)
    bias = torch.randn(rows, sizes.group, runs, generator=draw, device=device)
    table = Table(random(runs * 2), first, random(page + 1).minimum(page - first), random(9), bias)
    turns = shift_turns(torch.arange(9, device=device) * 1000, torch.rand(sizes.dims // 2, device=device))
    inputs = torch.randn(rows, sizes.group, sizes.dims, generator=draw, device=device), stored, table, turns
    fast, plain = kernels(), TorchAttention()
    (out, lse), (right, right_lse) = (path.paged_attention(*inputs, scale=0.1, softcap=20.0) for path in (fast, plain))
    yield "attention", apart(out, right)
    yield "lse", apart(lse, right_lse)
    logits, right = (path.token_logits(*inputs, scale=0.1) for path in (fast, plain))
    if not torch.equal(logits.isinf(), right.isinf()):
        raise RuntimeError("logits are missing or too many")
    yield "logits", apart(logits.nan_to_num(neginf=0), right.nan_to_num(neginf=0))
    length = runs * page
    for name, one, two in zip(
        ("gathered keys", "gathered values"),
        fast.gather(stored, table, turns, length),
        plain.gather(stored, table, turns, length),
        strict=True,
    ):
        yield name, apart(one, two)


def chunk_difference(bench: Bench, kind: Any) -> float:
    inputs = chunk_inputs(bench, 40, bench.sizes.checked_tokens, kind)
    (out, _), (right, _) = (path.chunk_attention(*inputs, scale=0.1) for path in (kernels(), TorchAttention()))
    return apart(out, right)
