"""What the kernels of an accelerator take and give: torch tensors, all of them on one device.

`torch_maxsim.py` says what is computed. A batch of queries is padded to one number of lanes; documents are not padded,
each is a range of tokens between two offsets. No kernel waits for the device or asks it for a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # this module is read where torch is not installed
    from torch import Tensor


@dataclass(frozen=True)
class QueryBatch:
    """Queries of one batch.

    lanes: float16 or float32 [queries, lanes, dims], zeros beyond a query's own lanes.
    counts: int32 [queries], how many lanes are its own.
    """

    lanes: Tensor
    counts: Tensor


@dataclass(frozen=True)
class DeviceTokens:
    """`CodedTokens` on a device: v = (centroid + residual) * norm.

    offsets: int64 [documents + 1]. codes: int32 [tokens]. norms: float16 [tokens].
    residuals: uint8 [tokens, width]; byte j holds dimensions j, j + width, ... from its low bits up.
    levels: float16 [2 ** bits], int8 values, which float16 holds exactly.
    longest: tokens of the longest document.
    """

    offsets: Tensor
    codes: Tensor
    residuals: Tensor
    norms: Tensor
    levels: Tensor
    longest: int

    @property
    def bits(self) -> int:
        return len(self.levels).bit_length() - 1


@dataclass(frozen=True)
class DeviceRows:
    """`ByteRows` on a device: v = row * scale.

    offsets: int64 [documents + 1]. rows: int8 [tokens, padded dims]. scales: float32 [tokens].
    longest: tokens of the longest document.
    """

    offsets: Tensor
    rows: Tensor
    scales: Tensor
    longest: int


class DeviceKernels(Protocol):
    """One path. Sums are made in float32 or wider; what differs between paths is the order of summation.

    documents: int32 [queries, documents], for each query those to score; rows may be one and the same (stride 0).
    table: [queries, centroids, lanes], products of the centroids with the lanes, as wide as the batch's lanes are.
    Scores are float32 (of float64 lanes float64) [queries, documents]; a document without tokens scores 0.
    """

    @property
    def name(self) -> str: ...

    def coarse(self, table: Tensor, counts: Tensor, documents: Tensor, tokens: DeviceTokens) -> Tensor:
        """MaxSim by the centroids of the tokens alone (PLAID's approximation, arXiv 2205.09707)."""
        ...

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
        """MaxSim (ColBERT, arXiv 2004.12832) by the codes, and the token that won each lane.

        queries: for the residuals. units: what one unit of the table and of a residual product is worth.
        The winners are int32 [queries, documents, lanes], counted from the document's first token; of equal ones the
        first, and -1 for lanes that are not the query's own and for documents without tokens.
        """
        ...

    def scan(
        self, queries: QueryBatch, documents: Tensor, rows: DeviceRows, *, evidence: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """MaxSim by int8 rows; the rest as `rerank`."""
        ...
