"""A function is captured only where a replay of it would do the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ctxkit.models.local.graphs import CaptureFailed, Graphs


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.arange(3) * torch.ones(3).sum().item(),
        lambda: torch.ones(3).nonzero(),
        lambda: torch.arange(3)[torch.ones(3, dtype=torch.bool)],
        lambda: torch.ones(3) if torch.ones(()) > 0 else torch.zeros(3),
        lambda: torch.ones(3).to("meta"),
    ],
)
def test_what_waits_for_the_device_is_not_captured(work: Callable[[], Tensor], inference: bool) -> None:
    with torch.inference_mode(inference), pytest.raises(CaptureFailed, match="waits for the device|copies from"):
        Graphs(torch.device("cpu")).captured(work)


def test_a_capture_that_fails_gives_the_stream_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(work: Callable[[], Tensor]) -> Any:
        raise RuntimeError("out of memory")

    graphs, given_back = Graphs(torch.device("cpu")), []
    monkeypatch.setattr(graphs, "_on_cuda", True)
    monkeypatch.setattr(graphs, "_captured", failing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "before")
    monkeypatch.setattr(torch.cuda, "set_stream", given_back.append)
    with pytest.raises(CaptureFailed, match="out of memory"):
        graphs.captured(lambda: torch.ones(1))
    assert given_back == ["before"]


def test_indices_and_assignments_do_not_wait() -> None:
    target = torch.zeros(3)

    def work() -> Tensor:
        target[torch.tensor([1])] = 2.0
        return target[torch.tensor([1, 2])]

    assert Graphs(torch.device("cpu")).captured(work)().tolist() == [2.0, 0.0]
