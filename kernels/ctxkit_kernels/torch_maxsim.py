"""The kernels of an accelerator in plain torch: what Triton's are tested against, and what runs where Triton is absent.

Documents are gathered a few at a time and padded to the longest one, so a call takes more memory and far more steps
than the fused kernels do. Sums are made in float32, in float64 where the lanes are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ctxkit_kernels.device import DeviceRows, DeviceTokens, QueryBatch

_VALUES = 1 << 24
"""Decoded values held at once."""

Similar = Callable[[int, Tensor], Tensor]
"""(query, int64 [documents, tokens] token numbers) -> [documents, tokens, lanes] similarities."""


class TorchKernels:
    """Every kernel in a few lines of torch, on any device."""

    @property
    def name(self) -> str:
        return "torch"

    def coarse(self, table: Tensor, counts: Tensor, documents: Tensor, tokens: DeviceTokens) -> Tensor:
        dtype = _wide(table)

        def similar(query: int, rows: Tensor) -> Tensor:
            return table[query][tokens.codes[rows].long()].to(dtype)

        step = _step(tokens.longest, table.shape[2])
        return _maxsim(similar, dtype, counts, table.shape[2], documents, tokens.offsets, tokens.longest, step)[0]

    def rerank(
        self,
        table: Tensor,
        queries: QueryBatch,
        units: tuple[float, float],
        documents: Tensor,
        tokens: DeviceTokens,
        *,
        evidence: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        dtype, (_, lanes, dims) = _wide(queries.lanes), queries.lanes.shape

        def similar(query: int, rows: Tensor) -> Tensor:
            residuals = unpack(tokens.residuals[rows], tokens.levels)[..., :dims].to(dtype)
            near = table[query][tokens.codes[rows].long()].to(dtype)
            far = residuals @ queries.lanes[query].to(dtype).T
            return (near * units[0] + far * units[1]) * tokens.norms[rows].to(dtype)[..., None]

        step = _step(tokens.longest, max(8 // tokens.bits * tokens.residuals.shape[1], lanes))
        found = _maxsim(similar, dtype, queries.counts, lanes, documents, tokens.offsets, tokens.longest, step)
        return found if evidence else (found[0], None)

    def scan(
        self, queries: QueryBatch, documents: Tensor, rows: DeviceRows, *, evidence: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        dtype, (_, lanes, _) = _wide(queries.lanes), queries.lanes.shape
        dims = min(queries.lanes.shape[2], rows.rows.shape[1])

        def similar(query: int, own: Tensor) -> Tensor:
            products = rows.rows[own][..., :dims].to(dtype) @ queries.lanes[query, :, :dims].to(dtype).T
            return products * rows.scales[own].to(dtype)[..., None]

        step = _step(rows.longest, max(rows.rows.shape[1], lanes))
        found = _maxsim(similar, dtype, queries.counts, lanes, documents, rows.offsets, rows.longest, step)
        return found if evidence else (found[0], None)


def unpack(residuals: Tensor, levels: Tensor) -> Tensor:
    """[..., padded dims] in the type of `levels`: what residual codes, uint8 [..., width], stand for."""
    bits = len(levels).bit_length() - 1
    parts = [(residuals >> part * bits) & (len(levels) - 1) for part in range(8 // bits)]
    return levels[torch.cat(parts, dim=-1).long()]


def _wide(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _step(longest: int, values: int) -> int:
    """How many documents are held at once, of `values` values to a token."""
    return max(1, _VALUES // max(1, longest * values))


def _maxsim(
    similar: Similar,
    dtype: torch.dtype,
    counts: Tensor,
    lanes: int,
    documents: Tensor,
    offsets: Tensor,
    longest: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Sums over a query's own lanes of the best token's similarity, and which token that is."""
    queries, total = documents.shape
    scores = torch.zeros((queries, total), dtype=dtype, device=documents.device)
    winners = torch.full((queries, total, lanes), -1, dtype=torch.int32, device=documents.device)
    if not longest or not lanes:
        return scores, winners
    place = torch.arange(longest, device=documents.device)
    own = torch.arange(lanes, device=documents.device) < counts[:, None]  # [queries, lanes]
    for query in range(queries):
        for start in range(0, total, step):
            here = slice(start, start + step)
            wanted = documents[query, here].long()
            inside = place < (offsets[wanted + 1] - offsets[wanted])[:, None]  # [documents, tokens]
            rows = torch.where(inside, offsets[wanted][:, None] + place, 0)
            table = similar(query, rows).masked_fill(~inside[..., None], -torch.inf)
            peaks = table.amax(dim=1)  # [documents, lanes]
            real = own[query] & inside[:, :1]
            scores[query, here] = torch.where(real, peaks, 0).sum(dim=1)
            first = (table == peaks[:, None]).int().argmax(dim=1)  # max says nothing about which of equal ones
            winners[query, here] = torch.where(real, first.int(), -1)
    return scores, winners
