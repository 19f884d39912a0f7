"""Mixing: the next token from the logits of two models, or three, of one tokenizer."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctxkit.protocols import Model
from ctxkit_agents.collaboration.combine import HELPER, Combine, Piece, Turn


class Mixed(Combine):
    """One token from the logits of all sides, each float32 [vocabulary]."""

    same_tokens = True

    @abstractmethod
    def mix(self, *logits: np.ndarray) -> np.ndarray:
        """Scores of the writer's, the helper's and the others' logits; the highest is written."""

    def write(self, turn: Turn) -> list[Piece]:
        writer, *rest = turn.sides
        for side in rest:
            side.follow(writer.output_ids)
        rows = self._rows(turn)
        size = min(len(row) for row in rows)  # some models pad their vocabulary
        token = int(self.mix(*(row[:size] for row in rows)).argmax())
        helper = turn.sides.helper
        differs = None if turn.look is None else token != turn.look.token
        if token in writer.eos_ids or token in helper.eos_ids:
            helper.meter.write()
            return [Piece(HELPER, "", 0, self.name(), True, differs)]
        helper.take(token)
        text = writer.take(token, written=False)
        return [Piece(HELPER, text, 1, self.name(), False, differs)]

    def _rows(self, turn: Turn) -> list[np.ndarray]:
        return [side.logits() for side in turn.sides]

    def name(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Oracle(Mixed):
    """The helper's likeliest token. With `Always` this is what the helper writes alone."""

    def mix(self, *logits: np.ndarray) -> np.ndarray:
        return logits[0]

    def _rows(self, turn: Turn) -> list[np.ndarray]:
        return [turn.sides.helper.logits()]  # the writer need not read for it


@dataclass(frozen=True)
class Contrast(Mixed):
    """Contrastive decoding (arXiv 2210.15097) in FS-GEN's form: small + beta * (large - small).

    alpha: only of tokens that the helper gives at least this share of its highest probability. beta: 0 is the writer
    alone among these, 1 the helper alone, above 1 goes away from the writer.
    """

    alpha: float = 0.1
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1 or self.beta < 0:
            raise ValueError(f"`alpha` must be in (0, 1] and `beta` 0 or more, got {self.alpha!r} and {self.beta!r}")

    def mix(self, *logits: np.ndarray) -> np.ndarray:
        small, large = logits
        score = small + self.beta * (large - small)
        return np.where(large < large.max() + math.log(self.alpha), -np.inf, score)


@dataclass(frozen=True)
class ProxyTuning(Mixed):
    """Proxy tuning (arXiv 2401.08565): large + alpha * (small tuned - small untuned).

    The writer is the small tuned model, the helper the large untuned one. untuned: the small model before its tuning.
    """

    untuned: Model = field(repr=False)
    alpha: float = 1.0

    @property
    def others(self) -> tuple[Any, ...]:
        return (self.untuned,)

    def mix(self, *logits: np.ndarray) -> np.ndarray:
        tuned, large, untuned = logits
        return large + self.alpha * (tuned - untuned)

    def settings(self) -> str:
        return f"{self!r} untuned={self.untuned.name}"
