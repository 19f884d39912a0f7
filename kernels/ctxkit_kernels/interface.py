"""What every path of the multi-vector kernels takes and gives. `reference.py` says what is computed.

A query is int8 [tokens, dims]; its tokens are "lanes". Scores of rows against lanes are int16: the exact integer
product, halved `shift` times with rounding. Centroids, document rows and residual levels are int8 in [-127, 127].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LANES = 16
BLOCK_ROWS = 16


def addresses(*arrays: Array) -> tuple[int, ...]:
    """Where the arrays begin. A microsecond for each, so what outlives a call keeps its own."""
    return tuple([array.__array_interface__["data"][0] for array in arrays])


def stride_of(lanes: int) -> int:
    """Columns that a score row has for a query of `lanes` tokens: 18 tokens take 32."""
    return max(LANES, -(-lanes // LANES) * LANES)


def padded_dims(dims: int, bits: int = 8) -> int:
    """Columns of a row of `dims` values of `bits` bits each: whole bytes, and a multiple of 4 bytes once unpacked.

    >>> padded_dims(5), padded_dims(5, bits=4), padded_dims(5, bits=2)
    (8, 8, 16)
    """
    step = 32 // bits
    return -(-dims // step) * step


@dataclass(frozen=True)
class RowScores:
    """Scores of rows against the lanes of one query.

    values: int16 [rows, stride]; columns from `lanes` on are zero.
    peaks: int16 [rows / 16 rounded up, stride], the maxima of 16 rows each.
    """

    values: Array
    peaks: Array
    lanes: int

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        return addresses(self.values, self.peaks)


@dataclass(frozen=True)
class Picks:
    """The best rows of every lane, by score and then by number.

    ids: int32 [lanes, probes]; lane i has `counts[i]` of them. counts: int32 [lanes].
    floors: int32 [lanes], WARP's estimate of what a document that none of the rows names would score
        (WARP_SELECT, arXiv 2501.17788): the score at which the rows so far hold t' tokens, or the last one's.
    """

    ids: Array
    counts: Array
    floors: Array

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        return addresses(self.ids, self.counts, self.floors)


@dataclass(frozen=True)
class Postings:
    """Which documents have a token at each centroid, each document once.

    offsets: int64 [centroids + 1]. documents: int32 [offsets[-1]].
    """

    offsets: Array
    documents: Array

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        return addresses(self.offsets, self.documents)


@dataclass(frozen=True)
class CodedTokens:
    """Tokens as centroid and residual: v = (centroid + residual) * norm.

    offsets: int64 [documents + 1]. codes: uint16 or uint32 [tokens]. norms: float16 [tokens].
    residuals: uint8 [tokens, width]; byte j holds dimensions j, j + width, ... from its low bits up.
    levels: int8 [2 ** bits], what a residual code stands for.
    """

    offsets: Array
    codes: Array
    residuals: Array
    norms: Array
    levels: Array

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        return addresses(self.offsets, self.codes, self.residuals, self.norms, self.levels)

    @property
    def bits(self) -> int:
        return len(self.levels).bit_length() - 1


@dataclass(frozen=True)
class Codec:
    """How residuals are written: code = how many of the cuts lie under (value - centroid * unit) * steepness.

    unit: of the int8 centroids. steepness, sizes: float32 [dims]; a level times its size is a residual.
    cuts: float32 [2 ** bits - 1], ascending. levels: int8 [2 ** bits], ascending.
    """

    unit: float
    steepness: Array
    sizes: Array
    cuts: Array
    levels: Array

    @property
    def bits(self) -> int:
        return len(self.levels).bit_length() - 1


@dataclass(frozen=True)
class ByteRows:
    """Document rows as int8: v = row * scale.

    offsets: int64 [documents + 1]. rows: int8 [tokens, padded dims]. scales: float32 [tokens].
    """

    offsets: Array
    rows: Array
    scales: Array

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        return addresses(self.offsets, self.rows, self.scales)


@dataclass
class Scratch:
    """What one thread accumulates in. Stamped per query and lane, so that nothing is cleared between queries."""

    documents: int
    base: int = 0
    cells: Array = field(init=False)
    touched: Array = field(init=False)
    sums: Array = field(init=False)

    def __post_init__(self) -> None:
        self.cells = np.zeros(self.documents, [("sum", np.int32), ("stamp", np.uint32)])
        self.touched = np.empty(self.documents + 1, np.int32)
        self.sums = np.empty(self.documents + 1, np.int32)

    @cached_property
    def addresses(self) -> tuple[int, ...]:
        return addresses(self.cells, self.touched, self.sums)

    def stamp(self, lanes: int) -> int:
        """The stamp under all that the next query of `lanes` tokens uses."""
        if self.base + lanes >= 2**32 - 1:
            self.cells["stamp"] = 0
            self.base = 0
        base = self.base
        self.base += lanes
        return base


class Kernels(Protocol):
    """One path. Integers are the same on every path, floats within 1e-5; a path keeps no state between calls."""

    @property
    def name(self) -> str: ...

    def score_rows(self, rows: Array, query: Array, shift: int) -> RowScores:
        """Products of int8 [rows, padded dims] with the query. Rows must hold zeros beyond the query's dims."""
        ...

    def select(self, scores: RowScores, sizes: Array, probes: int, bound: int, t_prime: int) -> Picks:
        """The `probes` best rows of every lane, and its floor, which the `bound` best rows decide (bound >= probes).

        sizes: int32 [rows], tokens that each row stands for. t_prime: tokens; 0 makes all floors 0.
        """
        ...

    def accumulate(
        self, scores: RowScores, picks: Picks, postings: Postings, mask: Array | None, scratch: Scratch
    ) -> tuple[Array, Array]:
        """Documents at the picks of any lane, and their sums of (best score - floor) over lanes.

        Picks under their lane's floor are left out. mask: uint8 or bool [documents], zero: not wanted. Returns int32
        document ids in no particular order and int32 sums; both are views of `scratch`, good until its next use.
        """
        ...

    def shortlist(self, documents: Array, values: Array, keep: int) -> Array:
        """The `keep` documents with the largest int32 values, best first; of equal ones the lower id first."""
        ...

    def coarse(self, scores: RowScores, documents: Array, tokens: CodedTokens) -> Array:
        """int32 MaxSim of documents by their tokens' centroids alone (PLAID's approximation, arXiv 2205.09707)."""
        ...

    def rerank(
        self,
        scores: RowScores,
        query: Array,
        units: tuple[float, float],
        documents: Array,
        tokens: CodedTokens,
        *,
        evidence: bool = False,
    ) -> tuple[Array, Array | None]:
        """float32 MaxSim of documents by their codes, and per lane the token (int64, within its document) that won.

        query: int8, scaled for the residuals. units: what one unit of a row score and of a residual product is worth.
        A document without tokens scores 0, its evidence is -1.
        """
        ...

    def scan(
        self, rows: ByteRows, query: Array, unit: float, documents: Array | None = None, *, evidence: bool = False
    ) -> tuple[Array, Array | None]:
        """float32 MaxSim of documents (None: all) by int8 rows; the rest as `rerank`."""
        ...

    def encode(self, values: Array, codes: Array, centroids: Array, codec: Codec) -> tuple[Array, Array]:
        """Residual codes (uint8 [rows, width], see CodedTokens) and norms (float32 [rows]) of float32 rows.

        codes: uint16 or uint32 [rows], the centroid of each row. The norm is what makes the decoded row as long as the
        row was, 0 where it decodes to nothing.
        """
        ...
