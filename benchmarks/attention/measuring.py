"""Sizes, time and where the figures go: what every section of `gpu.py` needs."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Sizes:
    """What is measured. The tiny ones go through Triton's interpreter on a CPU, to see that the script runs."""

    group: int = 4
    heads: int = 8  # of keys and values
    dims: int = 128
    tokens: tuple[int, ...] = (1 << 13, 1 << 15, 1 << 17, 1 << 19, 1 << 20)
    batches: tuple[int, ...] = (1, 8)
    tuned_tokens: int = 1 << 17
    checked_tokens: int = 3000
    layers: int = 32
    steps: tuple[int, ...] = (1 << 12, 1 << 15)
    chunk: tuple[int, int] = (512, 1 << 15)
    copied_bytes: int = 1 << 32
    rounds: int = 20
    model: tuple[int, ...] = (16, 2048, 32, 8, 128_256)  # layers, hidden size, heads, heads of keys, vocabulary
    decoded: tuple[int, ...] = (1, 8, 32)  # texts
    read_tokens: int = 1100  # of each text
    decoded_tokens: int = 48


_TINY_MODEL = (2, 64, 4, 2, 300)
TINY = Sizes(2, 1, 16, (512,), (1, 2), 512, 300, 2, (256,), (8, 64), 1 << 16, 1, _TINY_MODEL, (1, 3), 40, 20)


@dataclass
class Bench:
    """The device, what was found so far, and how much time is left."""

    device: str
    sizes: Sizes
    path: Path
    deadline: float
    results: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    flushed: Any = None

    @property
    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()

    def attempt(self, name: str, work: Callable[[], Any], **line: Any) -> None:
        """Keeps what `work` returns, as the section's result or added to a line of it, or how it failed."""
        try:
            found = work()
        except Exception:
            self.errors[f"{name} {line or ''}".strip()] = error = traceback.format_exc()
            print(error, flush=True)
            found = {"error": error.splitlines()[-1]} if line else None
        if line:
            self.results.setdefault(name, []).append(line | found)
            print(line | found, flush=True)
        elif found is not None:
            self.results[name] = found

    def section(self, name: str, work: Callable[[Bench], Any], needed: float = 0.0) -> None:
        """Runs one if `needed` seconds are left, and writes the file."""
        started = time.monotonic()
        if self.left < needed:
            self.results.setdefault("left out", {})[name] = f"{self.left:.0f} s were left"
        else:
            self.attempt(name, lambda: work(self))
        if self.device == "cuda":
            torch.cuda.empty_cache()
        took = self.results.setdefault("seconds", {})
        took[name] = round(time.monotonic() - started, 1)
        self.path.write_text(json.dumps(self.results | {"errors": self.errors}, indent=1) + "\n")
        failed = any(key.split(" ")[0] == name for key in self.errors)
        print(f"{name}: {took[name]} s{', FAILED' if failed else ''}", flush=True)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Median, of replays of a CUDA graph; on a CPU of calls."""
        work()
        if self.device != "cuda":
            return median(self.on_cpu(work) for _ in range(self.sizes.rounds))
        replay = _captured(work)
        spans = []
        for _ in range(self.sizes.rounds):
            self._flush()  # takes longer than the host takes to enqueue what follows
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            replay()
            end.record()
            spans.append((start, end))
        torch.cuda.synchronize()
        return median(start.elapsed_time(end) for start, end in spans) / 1e3

    @staticmethod
    def on_cpu(work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def _flush(self) -> None:
        if self.flushed is None:
            self.flushed = torch.ones(1 << 28, dtype=torch.int32, device=self.device)  # 1 GiB; caches have tens of MiB
        self.flushed.max()


def _captured(work: Callable[[], Any]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def apart(found: Any, expected: Any) -> float:
    """Norm of the difference, relative; nan and inf stay."""
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm())
