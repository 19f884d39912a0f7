"""Where an index is searched: on a GPU where this build of faiss has one, else where it lies.

What a GPU copy can do differs by build, so it does what all can: searches without a filter for up to 2,048 rows.
 - Filters: classic faiss-gpu takes an IDSelector and ignores it, and so returns what is not allowed
   (facebookresearch/faiss issues 3114 and 3924); cuVS builds heed it for some kinds (issue 4016). Whoever searches
   keeps the index on the CPU and asks it wherever there is a filter.
 - More than 2,048 rows or probes: refused by classic faiss-gpu (issue 2103).
 - HNSW: no clone exists. A cuVS build has CAGRA, a graph made on the GPU. It takes no rows once it is made: `add` after
   `train` returns, and drops them. Until it is made anew the CPU graph answers.
 - Several threads: one StandardGpuResources serves one thread at a time. A lock sees to it.

Written against the documentation and sources of faiss; tested with a double; never run on a GPU, so not measured.
"""

from __future__ import annotations

import logging
from functools import cache
from threading import Lock
from typing import Any, Protocol

import numpy as np

from ctxkit.errors import DeviceUnavailable

MOST_ROWS = 2_048
"""What a GPU index returns or probes at most."""

_TEMPORARY_BYTES = 128 << 20  # single queries need little; faiss would reserve 1.5 GB for each index
_CAGRA_STEP = 32  # its candidate lists have multiples of this

_log = logging.getLogger(__name__)


class GpuCopy(Protocol):
    """The copy of an index on a GPU."""

    def add(self, rows: np.ndarray) -> bool:
        """Takes float32 rows [rows, dims]. False: it cannot, and is out of date from now on."""
        ...

    def search(self, query: np.ndarray, take: int, width: int | None) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Recipe.search` without a filter; None where a GPU cannot do this one."""
        ...


def placed(index: Any, device: str | None, faiss: Any) -> GpuCopy | None:
    """A copy of the CPU index on the device, or None: it stays where it is.

    device: None or "auto": the first GPU where there is one. "cpu". "cuda" or "cuda:1": that GPU.
    faiss: the module.
    Raises DeviceUnavailable where a GPU was asked for by name and cannot be had, ValueError for another device.
    """
    number = gpu_number(device, faiss)
    if number is None:
        return None
    try:
        made = _copied(index, number, faiss)
    except RuntimeError as error:
        if device not in (None, "auto"):
            raise DeviceUnavailable(
                f"faiss cannot put a {_name(index)} on GPU {number}: {error}. "
                'Choose device="cpu", or another kind or code of index'
            ) from error
        _say(f"engines: {_name(index)} stays on the CPU, GPU {number} does not take it: {error}")
        return None
    _say(f"engines: {_name(index)} is searched on {f'GPU {number}' if made else 'the CPU, as this build has no CAGRA'}")
    return made


def gpu_number(device: str | None, faiss: Any) -> int | None:
    """Of the GPU to use, None for the CPU. Raises as `placed`."""
    if device == "cpu":
        return None
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if device in (None, "auto"):
        return 0 if gpus else None
    name, _, number = str(device).partition(":")
    if name != "cuda" or not (number or "0").isdigit():
        raise ValueError(f'`device` must be "auto", "cpu", "cuda" or "cuda:<number>", got {device!r}')
    if int(number or 0) >= gpus:
        raise DeviceUnavailable(_missing(device, gpus, hasattr(faiss, "StandardGpuResources")))
    return int(number or 0)


def _missing(device: str | None, gpus: int, built: bool) -> str:
    if not built:
        return (
            f"device={device!r}: the faiss that is installed has no GPU code. In place of `faiss-cpu` install "
            '`faiss-gpu-cuvs` or `faiss-gpu`, or choose device="cpu"'
        )
    return f'device={device!r}: faiss sees {gpus} GPUs. See what `nvidia-smi` lists, or choose device="cpu"'


def _copied(index: Any, number: int, faiss: Any) -> GpuCopy | None:
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(_TEMPORARY_BYTES)
    if isinstance(index, faiss.IndexHNSW):
        return Cagra(index, resources, number, faiss) if hasattr(faiss, "GpuIndexCagra") else None
    return Clone(index, resources, number, faiss)


class Clone:
    """What `index_cpu_to_gpu` makes of a flat or IVF index."""

    def __init__(self, index: Any, resources: Any, number: int, faiss: Any) -> None:
        self._faiss, self._lock = faiss, Lock()
        self._resources = resources  # must outlive the copy
        self._lists = index.nlist if isinstance(index, faiss.IndexIVF) else None
        self._copy = faiss.index_cpu_to_gpu(resources, number, index)

    def add(self, rows: np.ndarray) -> bool:
        with self._lock:
            self._copy.add(rows)
        return True

    def search(self, query: np.ndarray, take: int, width: int | None) -> tuple[np.ndarray, np.ndarray] | None:
        probes = 0 if self._lists is None else width or self._lists
        if max(take, probes) > MOST_ROWS:
            return None
        params = self._faiss.SearchParametersIVF(nprobe=probes) if probes else None
        with self._lock:
            return self._copy.search(query, take, params=params)


class Cagra:
    """A CAGRA graph (arXiv 2308.15136) over the rows of an HNSW index."""

    def __init__(self, index: Any, resources: Any, number: int, faiss: Any) -> None:
        self._faiss, self._lock = faiss, Lock()
        self._resources = resources  # must outlive the copy
        config = faiss.GpuIndexCagraConfig()
        config.device = number
        self._copy = faiss.GpuIndexCagra(resources, index.d, faiss.METRIC_INNER_PRODUCT, config)
        self._copy.train(index.reconstruct_n(0, index.ntotal))

    def add(self, rows: np.ndarray) -> bool:
        return not len(rows)

    def search(self, query: np.ndarray, take: int, width: int | None) -> tuple[np.ndarray, np.ndarray] | None:
        if width is None or max(take, width) > MOST_ROWS:
            return None
        params = self._faiss.SearchParametersCagra()
        params.itopk_size = -(-max(take, width) // _CAGRA_STEP) * _CAGRA_STEP  # may not be less than `take`
        with self._lock:
            return self._copy.search(query, take, params=params)


@cache
def _say(text: str) -> None:
    """Logs a line, once."""
    _log.info(text)


def _name(index: Any) -> str:
    return type(index).__name__
