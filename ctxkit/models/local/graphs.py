"""CUDA graphs of functions of no arguments, which read and write tensors that stay where they are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WARM_UPS = 2  # before a capture: kernels are compiled and chosen, workspaces taken
_INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
_one_capture = threading.Lock()  # of this process: torch allows no more at a time


class CaptureFailed(RuntimeError):
    """The function cannot be captured: it waits for the device, say, or there is no memory left."""


class NoWaits(TorchDispatchMode):
    """Within it, in this thread, what waits for the device raises CaptureFailed.

    That is what a graph cannot replay: numbers or shapes that depend on the device's data, and copies to or from the
    host. Found on any device, so that what is run on a CPU is known to be fit for capture; a capture that fails leaves
    torch's allocator in disorder.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _waits(func, args):
            raise CaptureFailed(f"{func} waits for the device")
        kwargs = kwargs or {}
        with self:  # under inference mode also what is made of other operations comes here whole
            found = func.decompose(*args, **kwargs)
        if found is not NotImplemented:
            return found
        found = func(*args, **kwargs)
        if func.overloadpacket in _COPIES:
            devices = {one.device for one in tree_leaves((args, found)) if isinstance(one, Tensor)}
            if len(devices) > 1:
                raise CaptureFailed(f"{func} copies from {args[0].device} to {found.device}")
        return found


def _waits(func: Any, args: Any) -> bool:
    if func.overloadpacket in _INDEXED:  # of unknown shape by a mask alone
        return any(one.dtype == torch.bool for one in args[1] if one is not None)
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


class Graphs:
    """Captures on one device. All graphs share memory, so that no two may run at the same time.

    What a replay gives is to be copied before another one runs. Without CUDA nothing is captured, but the same refused.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._on_cuda = device.type == "cuda"
        if self._on_cuda:
            self._memory = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(device)

    def captured(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Replays of `work`, on the current stream; all give the same tensor, with new numbers in it.

        `work` is called a few times. The device must be the current one. Raises CaptureFailed.
        """
        with NoWaits():
            work()
        if not self._on_cuda:
            return work
        before = torch.cuda.current_stream(self.device)
        try:
            with _one_capture:
                return self._captured(work)
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # a capture that fails leaves its own
            raise CaptureFailed(str(error)) from error

    def _captured(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile; only what this one does is captured.
        with torch.cuda.graph(graph, self._memory, self._stream, capture_error_mode="thread_local"):
            found = work()

        def replay() -> Tensor:
            graph.replay()
            return found

        return replay
