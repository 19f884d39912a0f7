"""What all parts of one collection share: the centroids, and the codec of what is left beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ctxkit.retrieval.multivector import codec as coding
from ctxkit.retrieval.multivector.clustering import SHARED, assigned, blocks, cluster, default_centroids
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit_kernels import Codec

_CODEC = ("steepness", "sizes", "cuts", "levels")


@dataclass(frozen=True)
class Codebook:
    """Centroids and codec, trained once; tokens that come later are coded by them too.

    centroids: int8 [centroids, padded dims]. groups: int32 [centroids], the vocabulary id that each is for, or -1.
    tokens: how many it was trained on. spread: their mean squared distance from their centroids.
    """

    dims: int
    centroids: np.ndarray
    groups: np.ndarray
    codec: Codec
    tokens: int
    spread: float

    @classmethod
    def train(
        cls, values: np.ndarray, token_ids: np.ndarray | None, options: BuildOptions
    ) -> tuple[Codebook, np.ndarray]:
        """The codebook of float32 [tokens, dims], and the centroid of each token."""
        clusters = cluster(values, token_ids, options.centroids or default_centroids(len(values)), options.seed)
        rounded, unit = coding.to_int8(clusters.rows)
        centroids = coding.padded(rounded)
        codes = clusters.codes.astype(np.uint16 if len(centroids) <= 1 << 16 else np.uint32)
        codec = coding.train(values, codes, centroids, unit, options.bits, options.seed)
        spread = _spread(values, clusters.rows, clusters.codes)
        groups = clusters.groups.astype(np.int32)
        return cls(values.shape[1], centroids, groups, codec, len(values), spread), codes

    def assign(self, values: np.ndarray, token_ids: np.ndarray | None) -> np.ndarray:
        """The centroid of each of float32 [tokens, dims], uint16 or uint32."""
        codes = assigned(values, token_ids, self._rows, self.groups)
        return codes.astype(np.uint16 if len(self.centroids) <= 1 << 16 else np.uint32)

    def drift(self, values: np.ndarray, codes: np.ndarray) -> float:
        """How far these tokens lie from their centroids, against those it was trained on; 1.0 is as far."""
        return _spread(values, self._rows, codes) / max(self.spread, 1e-12)

    def token_ids(self, codes: np.ndarray) -> np.ndarray | None:
        """The vocabulary ids of tokens by their centroids, -1 where shared; None where no ids were ever known."""
        return None if (self.groups == SHARED).all() else self.groups[codes]

    @cached_property
    def longest(self) -> float:
        """Length of the longest centroid, in units of int8."""
        squares = (self.centroids.astype(np.int32) ** 2).sum(axis=1)
        return float(np.sqrt(squares.max(initial=0)))

    @cached_property
    def _rows(self) -> np.ndarray:
        return self.centroids[:, : self.dims] * np.float32(self.codec.unit)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `from_arrays` needs: JSON values, and arrays by name."""
        arrays = {"centroids": self.centroids, "groups": self.groups}
        arrays |= {f"codec_{name}": getattr(self.codec, name) for name in _CODEC}
        return {"dims": self.dims, "unit": self.codec.unit, "tokens": self.tokens, "spread": self.spread}, arrays

    @classmethod
    def from_arrays(cls, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> Codebook:
        codec = Codec(facts["unit"], *(arrays[f"codec_{name}"] for name in _CODEC))
        return cls(facts["dims"], arrays["centroids"], arrays["groups"], codec, facts["tokens"], facts["spread"])


def _spread(values: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> float:
    """Mean squared distance from the centroids."""
    total = 0.0
    for part in blocks(len(values), 1 << 16):
        total += float(((values[part] - rows[codes[part]]) ** 2).sum(dtype=np.float64))
    return total / max(len(values), 1)
