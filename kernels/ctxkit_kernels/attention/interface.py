"""What the attention kernels take and give. `reference.py` says what is computed.

A row is one KV head of one sequence. A page holds the keys and values of a few tokens of one row; a table lists, for
each row, the runs of tokens within pages that it sees, in any order. Keys are stored rotated (RoPE) by their position
from some origin, and are never rotated again: where a run is to be seen from farther or nearer than its query's own
rotation says, the QUERY is turned, once per distinct turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # this module is read where torch is not installed
    from torch import Tensor

Merged = tuple["Tensor", "Tensor"]
"""(out, lse): a weighted mean of values, and the natural logarithm of the sum of the weights' exponentials."""


@dataclass(frozen=True)
class Pages:
    """Keys and values in pages.

    keys: [pages, page, dims]. values: [pages, page, value dims]. Both float32, float16, bfloat16 or int8.
    key_scales, value_scales: float32 [pages, page], what a token's int8 numbers are multiplied by; None for floats.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return iter([part for part in (self.keys, self.values, self.key_scales, self.value_scales) if part is not None])


@dataclass(frozen=True)
class Turns:
    """Rotations of a query: float32 [turns, pairs] each, of angles shift * frequency. Row 0 turns nothing.

    Dimension j and j + pairs are one pair, for j < pairs ("half split", as Llama's); dimensions from 2 * pairs on stay.
    A query turned by a shift of s sees a key as if it were s positions farther away.
    """

    cos: Tensor
    sin: Tensor


@dataclass(frozen=True)
class Table:
    """The runs that each row sees.

    pages: int32 [rows, runs]. first, count: int32 [rows or 1, runs]; tokens first .. first + count - 1 of the page.
        A run of count 0 is padding, whatever its page. turn: int32 [rows or 1, runs], a row of `Turns`.
    bias: float32 [rows or 1, heads in a group or 1, runs], added to the logits of all tokens of a run; None: nothing.
    """

    pages: Tensor
    first: Tensor
    count: Tensor
    turn: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class Gathered:
    """Runs of a table side by side, for many queries at once. Keys here are turned already, a copy in float32.

    keys: float32 [rows, tokens, dims]. values: float32 [rows, tokens, value dims].
    positions: int64 [rows or 1, tokens], where each token stands; -1 for padding.
    reach: int64 [rows or 1, tokens]: a query sees the token while its distance is below this.
    hold: int64 [rows or 1, tokens]: queries behind this position see the token as if they stood at it.
    bias: float32 [rows or 1, heads in a group or 1, tokens] or None.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor
    reach: Tensor
    hold: Tensor
    bias: Tensor | None = None


class AttentionKernels(Protocol):
    """One path."""

    @property
    def name(self) -> str: ...

    def paged_attention(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        """One query per head over what its row sees.

        q: [rows, heads in a group, dims], any float type. Logits are scale * q.k, then softcap * tanh(logit / softcap)
        where softcap > 0, then + bias. Returns out float32 [rows, heads in a group, value dims] and lse float32
        [rows, heads in a group]; a row that sees nothing gives zeros and -inf. Sums are of float32.
        """
        ...

    def token_logits(
        self, q: Tensor, pages: Pages, table: Table, turns: Turns, *, scale: float, softcap: float = 0.0
    ) -> Tensor:
        """The logits alone, float32 [rows, heads in a group, runs * page]: token t of run r at r * page + t, from the
        run's own first token on; -inf where there is none."""
        ...

    def gather(self, pages: Pages, table: Table, turns: Turns, length: int) -> tuple[Tensor, Tensor]:
        """(keys, values), float32 [rows, length, dims]: the runs of each row side by side, zeros behind them.

        Keys are turned BACK by their run's turn, so that the query need not be. `length` is at least the longest row's.
        """
        ...

    def chunk_attention(
        self, q: Tensor, first_position: int, seen: Gathered, frequencies: Tensor, *, scale: float, softcap: float = 0.0
    ) -> Merged:
        """Many queries per head; never more than a block of logits at once.

        q: [rows, heads in a group, queries, dims]; query t stands at first_position + t and sees a token at or before
        it that is within the token's reach. frequencies: float32 [pairs], the angle per position (empty: no rotation).
        Returns out float32 [rows, heads in a group, queries, value dims] and lse float32, without the last dimension.
        """
        ...


def merge_state(one: Merged, other: Merged) -> Merged:
    """Attention over the tokens of both, which must not share a token. Shapes as `paged_attention` gives them."""
    import torch

    (out, lse), (out_other, lse_other) = one, other
    whole = torch.logaddexp(lse, lse_other)
    known = whole.clamp_min(torch.finfo(whole.dtype).min)  # two empty ones: exp(-inf - finite) is 0, not nan
    return (lse - known).exp()[..., None] * out + (lse_other - known).exp()[..., None] * out_other, whole


def with_sink(merged: Merged, sink: Tensor) -> Merged:
    """After a learned sink of logit `sink` (broadcast to lse's shape) took its share: gpt-oss's `s_aux`."""
    import torch

    out, lse = merged
    return out * torch.sigmoid(lse - sink)[..., None], torch.logaddexp(lse, sink.expand_as(lse))
