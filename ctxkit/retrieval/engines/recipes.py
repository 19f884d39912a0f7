"""How rows become a faiss index: one recipe for each kind, which is also what can be chosen about it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

Code = Literal["flat", "sq8", "pq64", "pq64x4fs"]

ROWS_PER_LIST = 39
"""The least that faiss trains a centroid on without a warning (its `min_points_per_centroid`)."""

_FACTORY_CODES: dict[str, str] = {"flat": "Flat", "sq8": "SQ8", "pq64": "PQ64", "pq64x4fs": "PQ64x4fs"}
_LEAST_ROWS = {"pq64": 256 * ROWS_PER_LIST, "pq64x4fs": 16 * ROWS_PER_LIST}  # each part has 256 or 16 centroids
_PQ_PARTS = 64
_DIRECT_SHARE = 0.01  # filters that leave less than this are compared with directly
_WIDER_TIMES = 4


class Recipe(Protocol):
    """What `FaissRows` asks of a kind of index.

    A search has a width: probes of an IVF index, ef of a graph; None compares every allowed row.
    """

    name: ClassVar[str]

    def least_rows(self, dims: int) -> int | None:
        """Rows from which the index is worth making; None: never. Raises ValueError where `dims` does not suit it."""
        ...

    def due_rows(self, trained_rows: int) -> int | None:
        """Rows at which it is made anew; None: never."""
        ...

    def build(self, faiss: Any, values: np.ndarray) -> Any:
        """The index of float32 `values` [rows, dims], trained and filled."""
        ...

    def widths(self, index: Any, share: float) -> Iterator[int | None]:
        """The widths to try one after the other, None last. share: of the rows that is allowed."""
        ...

    def search(
        self, faiss: Any, index: Any, query: np.ndarray, take: int, width: int | None, selector: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the best `take` rows of each query row, -1 for what is missing."""
        ...


@dataclass(frozen=True)
class FlatOptions:
    """Every row is compared (IndexFlatIP). Exact; 4 * dims bytes per row."""

    name: ClassVar[str] = "flat"

    def least_rows(self, dims: int) -> int | None:
        return None

    def due_rows(self, trained_rows: int) -> int | None:
        return None

    def build(self, faiss: Any, values: np.ndarray) -> Any:
        index = faiss.IndexFlatIP(values.shape[1])
        index.add(values)
        return index

    def widths(self, index: Any, share: float) -> Iterator[int | None]:
        yield None

    def search(
        self, faiss: Any, index: Any, query: np.ndarray, take: int, width: int | None, selector: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        return index.search(query, take, params=faiss.SearchParameters(sel=selector) if selector is not None else None)


@dataclass(frozen=True)
class IvfOptions:
    """Rows in lists by their nearest centroid; a search reads the `probes` nearest lists (IVF; arXiv 1702.08734).

    lists: how many; None: 4 * sqrt(rows), with 39 rows or more to each.
    probes: lists that a search reads first. A filter that leaves a share s of the rows makes it probes / s, so that as
        many rows are compared as without it.
    code: what is kept of a row. "flat": float32, 4 * dims bytes. "sq8": a byte per dimension. "pq64": 64 bytes (product
        quantisation, TPAMI 2011), "pq64x4fs": 32 bytes, scanned in registers (arXiv 1812.09162); both for dims that 64
        divides. Each row takes 8 bytes more for its number.
    flat_below_rows: so many rows are compared one by one, exactly, before there are lists. More are waited for where
        `lists` or the code need them: 39 for each centroid.
    retrain_growth_times: the lists are made anew when there are so many times the rows that they were made from.

    Nothing but these codes is kept. Scores of other codes than "flat" are those of the decoded rows, and making the
    lists anew codes what was decoded. Measured, that loses nothing with "sq8", and 0.01 to 0.03 of recall@10 (of 0.68)
    each time with "pq64"; who holds the float32 rows can add them to a fresh engine instead.
    """

    name: ClassVar[str] = "ivf"

    lists: int | None = None
    probes: int = 64
    code: Code = "flat"
    flat_below_rows: int = 10_000
    retrain_growth_times: float = 4.0

    def __post_init__(self) -> None:
        if self.lists is not None and self.lists < 1:
            raise ValueError(f"`lists` must be at least 1 or None, got {self.lists!r}")
        if self.probes < 1:
            raise ValueError(f"`probes` must be at least 1, got {self.probes!r}")
        if self.code not in _FACTORY_CODES:
            raise ValueError(f"`code` must be one of {', '.join(_FACTORY_CODES)}, got {self.code!r}")
        _check_flat_below(self.flat_below_rows)
        if not self.retrain_growth_times > 1:
            raise ValueError(f"`retrain_growth_times` must be above 1, got {self.retrain_growth_times!r}")

    def least_rows(self, dims: int) -> int | None:
        if self.code.startswith("pq") and dims % _PQ_PARTS:
            raise ValueError(f'code {self.code!r} needs dims that {_PQ_PARTS} divides, got {dims}. Take "sq8"')
        return max(self.flat_below_rows, ROWS_PER_LIST * (self.lists or 1), _LEAST_ROWS.get(self.code, 1))

    def due_rows(self, trained_rows: int) -> int | None:
        return math.ceil(trained_rows * self.retrain_growth_times)

    def build(self, faiss: Any, values: np.ndarray) -> Any:
        lists = self.lists or max(1, min(len(values) // ROWS_PER_LIST, round(4 * math.sqrt(len(values)))))
        name = f"IVF{lists},{_FACTORY_CODES[self.code]}"
        index = faiss.index_factory(values.shape[1], name, faiss.METRIC_INNER_PRODUCT)
        if self.code == "pq64":
            index.do_polysemous_training = False  # the factory's default; 19/20 of the time, for a filter not used here
        index.train(values)
        index.add(values)
        return index

    def widths(self, index: Any, share: float) -> Iterator[int | None]:
        probes = math.ceil(self.probes / share) if share >= _DIRECT_SHARE else index.nlist
        while probes < index.nlist:
            yield probes
            probes *= _WIDER_TIMES
        yield None

    def search(
        self, faiss: Any, index: Any, query: np.ndarray, take: int, width: int | None, selector: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        probes = index.nlist if width is None else width
        return index.search(query, take, params=faiss.SearchParametersIVF(nprobe=probes, sel=selector))


@dataclass(frozen=True)
class HnswOptions:
    """A graph in which near rows are linked, walked from afar (HNSW, arXiv 1603.09320).

    links: of a row, twice as many on the lowest level. ef_construction: candidates that are looked at to link a row.
    ef_search: candidates that a search keeps. A filter that leaves a share s of the rows makes it ef_search / s.
    flat_below_rows: so many rows are compared one by one, exactly, before there is a graph.

    Keeps float32 rows, 4 * dims bytes each, and about 8 * links + 16 bytes of links. Nothing is trained, so nothing is
    made anew. Slow to add to: a row costs about what a search with `ef_construction` costs.
    """

    name: ClassVar[str] = "hnsw"

    links: int = 32
    ef_construction: int = 100
    ef_search: int = 64
    flat_below_rows: int = 10_000

    def __post_init__(self) -> None:
        if self.links < 2:
            raise ValueError(f"`links` must be at least 2, got {self.links!r}")
        for name in ("ef_construction", "ef_search"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")
        _check_flat_below(self.flat_below_rows)

    def least_rows(self, dims: int) -> int | None:
        return max(self.flat_below_rows, 1)

    def due_rows(self, trained_rows: int) -> int | None:
        return None

    def build(self, faiss: Any, values: np.ndarray) -> Any:
        index = faiss.IndexHNSWFlat(values.shape[1], self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.ef_construction
        index.add(values)
        return index

    def widths(self, index: Any, share: float) -> Iterator[int | None]:
        ef = math.ceil(self.ef_search / max(share, _DIRECT_SHARE))
        # A step compares about `links` new rows. Where that comes to all that the filter leaves, these are compared.
        while share >= _DIRECT_SHARE and ef * self.links < share * index.ntotal:
            yield ef
            ef *= _WIDER_TIMES
        yield None

    def search(
        self, faiss: Any, index: Any, query: np.ndarray, take: int, width: int | None, selector: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        if width is None:
            return FlatOptions().search(faiss, faiss.downcast_index(index.storage), query, take, None, selector)
        return index.search(query, take, params=faiss.SearchParametersHNSW(efSearch=max(width, take), sel=selector))


def _check_flat_below(rows: int) -> None:
    if rows < 0:
        raise ValueError(f"`flat_below_rows` must be 0 or more, got {rows!r}")


def to_facts(recipe: Any) -> dict[str, Any]:
    """JSON values that say which recipe this is."""
    return {"recipe": recipe.name, "options": asdict(recipe)}


def from_facts(facts: dict[str, Any]) -> Recipe:
    """The recipe that `to_facts` was asked about."""
    kinds: dict[str, Callable[..., Recipe]] = {kind.name: kind for kind in (FlatOptions, IvfOptions, HnswOptions)}
    return kinds[facts["recipe"]](**facts["options"])
