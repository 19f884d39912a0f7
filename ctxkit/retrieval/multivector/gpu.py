"""The multi-vector engine on a GPU: a collection moved there once, queries in batches, one wait for each batch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from ctxkit.errors import DeviceUnavailable, MissingExtra
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.engine import Found
from ctxkit.retrieval.multivector.exact import ExactScan
from ctxkit.retrieval.multivector.options import GpuOptions
from ctxkit_kernels import DeviceKernels, DevicePath, device_kernels

if TYPE_CHECKING:
    import torch

_LANES_STEP = 8  # a batch is padded to a multiple of it: rows of the centroid scores then begin at 16 bytes
_RANKING_BYTES = 32  # for each document that is scored: its score, its key, and what sorting takes


def gpu_available() -> bool:
    """Whether a GpuEngine can be made on this machine: torch is installed and sees a CUDA device."""
    if find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


class GpuEngine:
    """Late interaction (ColBERT, arXiv 2004.12832) over the arrays of a CPU engine, on one GPU.

    A coded collection is searched as `gpu_stages` says: every allowed document by its tokens' centroids (PLAID, arXiv
    2205.09707), the best of them by their codes. An exact scan scores every allowed document by its int8 vectors. The
    query is float16 on a GPU, where the CPU engine rounds it to int8; scores are of the same decoded vectors.
    """

    def __init__(
        self,
        part: CodedIndex | ExactScan,
        device: str = "cuda",
        *,
        path: DevicePath | None = None,
        options: GpuOptions = GpuOptions(),  # noqa: B008 - frozen
    ) -> None:
        """Copies the arrays to the device: about 70 bytes a token (128 dims, 4 bits).

        device: "cuda", "cuda:1", or "cpu", which is for tests: far slower than the CPU engine.
        path: "triton" or "torch"; None: Triton on a GPU where it is installed, else torch.
        Raises MissingExtra where torch, or the Triton that was asked for, is not installed, and DeviceUnavailable where
        the device is not there.
        """
        if find_spec("torch") is None:
            raise MissingExtra("torch", "local")
        import torch

        from ctxkit.retrieval.multivector import gpu_arrays

        place = _present(device)
        self._kernels = _kernels(place.type, path)
        narrow = place.type == "cuda" or self._kernels.name == "triton"
        self._collection = gpu_arrays.moved(part, place, torch.float16 if narrow else torch.float32)
        self._filled = part.counts > 0
        self._options = options

    def __len__(self) -> int:
        """Documents."""
        return len(self._filled)

    def __repr__(self) -> str:
        kind = "exact scan" if self.exact else "coded"
        where = f"{self._kernels.name} on {self._collection.device}"
        return f"GpuEngine({len(self)} documents, {self.dims} dims, {kind}, {where})"

    @property
    def dims(self) -> int:
        return self._collection.dims

    @property
    def exact(self) -> bool:
        """Whether a search scores every allowed document by its vectors."""
        return self._collection.coded is None

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays on the device."""
        return self._collection.nbytes

    def search(self, query: np.ndarray, k: int = 10, mask: np.ndarray | Sequence[bool] | None = None) -> Found:
        """The k best documents for one query: `search_batch` of one."""
        return self.search_batch([query], k, mask)[0]

    def search_batch(
        self, queries: Sequence[np.ndarray], k: int = 10, mask: np.ndarray | Sequence[bool] | None = None
    ) -> list[Found]:
        """The k best documents of each query, fewer only where fewer are allowed; none without tokens.

        queries: each float32 [query tokens, dims], of any number of tokens; all are padded to the longest.
        mask: bool [documents], True where a document is allowed, for the whole batch. Exact.
        The host waits once, for the results of all queries. Raises ValueError where something is malformed.
        """
        asked = [self._checked_query(query) for query in queries]
        if k < 1:
            raise ValueError(f"`k` must be at least 1, got {k!r}")
        allowed = None if mask is None else np.flatnonzero(self._checked_mask(mask)).astype(np.int32)
        wanted = min(k, int(np.count_nonzero(self._filled)) if allowed is None else len(allowed))
        if not asked or not wanted:
            return [_nothing(query) for query in asked]
        scales = [_longest(query) for query in asked]
        found = self._enqueued(asked, scales, wanted, allowed).cpu().numpy()  # the one wait
        return [_unpacked(*one) for one in zip(found, asked, scales, strict=True)]

    def _enqueued(
        self, queries: Sequence[np.ndarray], scales: Sequence[float], k: int, allowed: np.ndarray | None
    ) -> torch.Tensor:
        """Results as `gpu_stages.rank` packs them, still on the device; nothing here waits for it."""
        import torch

        from ctxkit.retrieval.multivector import gpu_stages

        with torch.inference_mode():
            documents = self._collection.filled if allowed is None else self._sent(torch.from_numpy(allowed))
            lanes, counts = (self._sent(values) for values in self._padded(queries, scales))
            step = self._step(lanes.shape[1], len(documents))
            steps = [slice(start, start + step) for start in range(0, len(queries), step)]
            given = self._collection, self._kernels
            parts = [gpu_stages.rank(*given, lanes[i], counts[i], documents, k, self._options) for i in steps]
            return torch.cat(parts)

    def _padded(self, queries: Sequence[np.ndarray], scales: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Each query with its longest lane as the unit, so that float16 holds all products whatever their length."""
        import torch

        longest = max(map(len, queries))
        padded = max(_LANES_STEP, -(-longest // _LANES_STEP) * _LANES_STEP)
        lanes = torch.zeros((len(queries), padded, self._collection.width))
        values = lanes.numpy()
        for number, (query, scale) in enumerate(zip(queries, scales, strict=True)):
            values[number, : len(query), : self.dims] = query / np.float32(scale)
        return lanes, torch.tensor([len(query) for query in queries], dtype=torch.int32)

    def _sent(self, values: torch.Tensor) -> torch.Tensor:
        """From pinned memory, which a GPU reads by itself while the host goes on."""
        on_gpu = self._collection.device.type == "cuda"
        return (values.pin_memory() if on_gpu else values).to(self._collection.device, non_blocking=on_gpu)

    def _step(self, lanes: int, documents: int) -> int:
        """How many queries are worked on at once."""
        coded = self._collection.coded
        table = len(coded.centroids) * lanes * coded.centroids.element_size() if coded else 0
        return max(1, self._options.work_bytes // (table + documents * _RANKING_BYTES))

    def _checked_query(self, query: np.ndarray) -> np.ndarray:
        query = np.ascontiguousarray(query, np.float32)
        if query.ndim != 2 or query.shape[1] != self.dims:
            raise ValueError(f"a query must be [query tokens, {self.dims}], got shape {query.shape!r}")
        if not np.isfinite(query).all():
            raise ValueError("a query holds NaN or infinity")
        return query

    def _checked_mask(self, mask: np.ndarray | Sequence[bool]) -> np.ndarray:
        allowed = np.asarray(mask)
        if allowed.dtype != bool or allowed.shape != (len(self),):
            raise ValueError(f"`mask` must be bool [{len(self)}], got {allowed.dtype} {allowed.shape!r}")
        return allowed & self._filled


def _present(device: str) -> torch.device:
    import torch

    place = torch.device(device)
    if place.type not in ("cuda", "cpu"):
        raise DeviceUnavailable(f"a GpuEngine runs on CUDA, and for tests on the CPU, got {device!r}")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceUnavailable(
            f"there is no {device!r} here: torch {torch.__version__} sees {count} CUDA devices. Use MultiVectorEngine"
        )
    return place


def _kernels(device: str, path: DevicePath | None) -> DeviceKernels:
    try:
        return device_kernels(device, path)
    except ImportError as error:
        raise MissingExtra("triton", "gpu") from error
    except RuntimeError as error:
        raise DeviceUnavailable(str(error)) from error


def _longest(query: np.ndarray) -> float:
    """Length of the longest lane; 1 where there is none."""
    return float(np.sqrt((query.astype(np.float64) ** 2).sum(axis=1).max(initial=0.0))) or 1.0


def _nothing(query: np.ndarray) -> Found:
    return Found(np.empty(0, np.int64), np.empty(0, np.float32), np.empty((0, len(query)), np.int64))


def _unpacked(found: np.ndarray, query: np.ndarray, scale: float) -> Found:
    """found: int32 [documents, 2 + lanes], as `gpu_stages.rank` packs it."""
    scores = np.ascontiguousarray(found[:, 1]).view(np.float32) * np.float32(scale)
    return Found(found[:, 0].astype(np.int64), scores, found[:, 2 : 2 + len(query)].astype(np.int64))
