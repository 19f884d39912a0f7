"""Schedules: when a selector chooses anew. Between, what it chose last is shown again and nothing is scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctxkit.models.local.paging.runs import Array

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    positions: int64 [rows or 1, n], where the chosen tokens stand, -1 for none; None: all.
    at: where the first query stood. end: behind the last candidate. q: what `Schedule.note` kept of the queries.
    """

    positions: Array | None
    at: int
    end: int
    q: Tensor | None

    @classmethod
    def of(cls, look: Look, chosen: Tensor | None, q: Tensor | None) -> Choice:
        standing = look.positions
        numbers = None if chosen is None else chosen.cpu().numpy()
        positions = None if numbers is None else np.where(numbers >= 0, standing[numbers], -1)
        return cls(positions, look.first_query, int(standing[-1]) + 1, q)

    def shown(self, look: Look, *, new: bool) -> Tensor | None:
        """int64 [rows or 1, n], the numbers that the chosen candidates have now. new: and all that joined since."""
        if self.positions is None:
            return None
        standing = look.positions
        numbers = np.searchsorted(standing, self.positions).clip(max=len(standing) - 1)
        numbers = np.where(standing[numbers] == self.positions, numbers, -1)
        joined = np.flatnonzero(standing >= self.end) if new else np.zeros(0, np.int64)
        return torch.from_numpy(np.concatenate([numbers, np.tile(joined, (len(numbers), 1))], axis=1))


@dataclass(frozen=True)
class Schedule:
    """Every layer chooses in every pass.

    full: a pass that chooses sees everything itself; what it chose is for those that follow.
    new: candidates that joined since the choice are shown too, until the next one.
    """

    full: bool = False
    new: bool = False

    def select(self, look: Look, choose: Callable[[Look], Tensor | None]) -> Tensor | None:
        """int64 [rows or 1, n], as `Policy.select`."""
        memory = self.memory(look)
        known: Choice | None = memory.get("choice")
        if known is not None and not self.due(look, known):
            return known.shown(look, new=self.new)
        chosen = choose(look)
        memory["choice"] = Choice.of(look, chosen, self.note(look))
        return None if self.full else chosen

    def due(self, look: Look, known: Choice) -> bool:
        return True

    def memory(self, look: Look) -> dict[str, Any]:
        return look.state

    def note(self, look: Look) -> Tensor | None:
        return None


@dataclass(frozen=True)
class Every(Schedule):
    """Chooses at every `steps`-th token (RefreshKV's stride, arXiv 2411.05787)."""

    steps: int = 16
    new: bool = True

    def due(self, look: Look, known: Choice) -> bool:
        return look.first_query - known.at >= self.steps


@dataclass(frozen=True)
class Similar(Schedule):
    """Chooses when the mean query of a layer turns away from the one that chose last (TokenSelect, arXiv 2411.02886).

    cosine: it chooses below this cosine of the two, taken over all heads as one vector, before rotation.
    """

    cosine: float = 0.9

    def due(self, look: Look, known: Choice) -> bool:
        return known.q is None or float(torch.cosine_similarity(self.note(look), known.q, dim=0)) < self.cosine

    def note(self, look: Look) -> Tensor:
        return look.standing(0).mean(2).flatten()


@dataclass(frozen=True)
class Layers(Schedule):
    """Chooses in some layers; the layers behind each show the same (TidalDecode, arXiv 2410.05076).

    Layers before the first of `at` see everything. Heads are told apart by their number, the same in every layer.
    """

    at: tuple[int, ...] = (2,)

    def select(self, look: Look, choose: Callable[[Look], Tensor | None]) -> Tensor | None:
        return None if look.layer < min(self.at) else super().select(look, choose)

    def due(self, look: Look, known: Choice) -> bool:
        return look.layer in self.at or known.at != look.first_query

    def memory(self, look: Look) -> dict[str, Any]:
        return look.shared()
