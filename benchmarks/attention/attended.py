"""What is attended to: random keys and values in one piece, seen as pages, as tokens gathered, or by torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measuring import Bench

from ctxkit_kernels.attention import Gathered, Pages, Table, shift_turns

PAGE = {"ring": 256, "pages": 16}


def kernels(**tuning: int) -> Any:
    from ctxkit_kernels.attention.triton_attention import TritonAttention, Tuning

    return TritonAttention(Tuning(**tuning))


@dataclass(frozen=True)
class Pool:
    """Keys and values [batch, heads, tokens, dims] in one piece each, to be seen as pages of any size, and a query."""

    q: Any  # [batch, heads, group, dims]
    keys: Any
    values: Any

    @classmethod
    def random(cls, bench: Bench, batch: int, tokens: int, kind: Any = torch.bfloat16) -> Pool:
        sizes = bench.sizes
        shape = (batch, sizes.heads, tokens, sizes.dims)
        keys, values = (torch.empty(shape, dtype=kind, device=bench.device).normal_() for _ in range(2))
        q = torch.randn(*shape[:2], sizes.group, sizes.dims, device=bench.device).to(kind)
        return cls(q, keys, values)

    @property
    def read(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes

    def step(self, kernels: Any, layout: str, turned: str = "two") -> Callable[[], Any]:
        """One call of `paged_attention` over all tokens. turned: how many turns there are, "one", "two" or "each"."""
        rows, (tokens, dims) = self.q.shape[0] * self.q.shape[1], self.keys.shape[2:]
        page, device = PAGE[layout], self.q.device
        runs = tokens // page
        order = torch.rand(rows, runs, device=device).argsort(1) if layout == "pages" else torch.arange(runs)
        pages = (order.to(device) + torch.arange(rows, device=device)[:, None] * runs).int()
        spans = torch.tensor([0, page], dtype=torch.int32, device=device)[:, None].expand(2, runs).contiguous()
        turn = torch.arange(runs, dtype=torch.int32, device=device)[None] % (runs if turned == "each" else 1)
        shifts = torch.arange({"one": 1, "two": 2, "each": runs}[turned], device=device) * page
        turns = shift_turns(shifts, 5e5 ** (-torch.arange(dims // 2, device=device) / (dims // 2)))
        stored = Pages(self.keys.view(-1, page, dims), self.values.view(-1, page, dims))
        table = Table(pages, spans[:1], spans[1:], turn)
        q = self.q.flatten(0, 1)
        return lambda: kernels.paged_attention(q, stored, table, turns, scale=dims**-0.5)

    def packed(self) -> Any:
        """Torch's attention, the heads of a group as queries of one head."""
        return torch.nn.functional.scaled_dot_product_attention(self.q, self.keys, self.values)

    def grouped(self) -> Any:
        """Torch's attention by `enable_gqa`."""
        return torch.nn.functional.scaled_dot_product_attention(
            self.q.flatten(1, 2)[:, :, None], self.keys, self.values, enable_gqa=True
        )


def chunk_inputs(bench: Bench, queries: int, tokens: int, kind: Any) -> tuple[Any, int, Gathered, Any]:
    """Queries behind all tokens but their own; a sixteenth of these, the first, are held."""
    sizes, device = bench.sizes, bench.device
    keys, values = (torch.randn(sizes.heads, tokens, sizes.dims, device=device) for _ in range(2))
    q = torch.randn(sizes.heads, sizes.group, queries, sizes.dims, device=device).to(kind)
    places = torch.arange(tokens, device=device)[None]
    far = torch.full_like(places, 1 << 62)
    hold = torch.where(places < tokens // 16, tokens // 2, far)
    seen = Gathered(keys.to(kind).float(), values.to(kind).float(), places, far, hold)
    return q, tokens - queries, seen, torch.rand(sizes.dims // 2, device=device)
