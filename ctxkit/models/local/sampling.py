"""How the next token is drawn from logits: the distribution, and chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ctxkit.protocols import Sampling

Distribution = Callable[[Tensor], Tensor]
"""float32 logits [vocabulary] -> probabilities, float32 [vocabulary] on the CPU"""


def make_distribution(sampling: Sampling) -> Distribution:
    """Temperature, top-k and top-p, in that order. The temperature must be above 0."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])
    if sampling.top_k is not None:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    no_ids = torch.LongTensor(1, 0)  # none of these warpers looks at what came before

    def distribution(logits: Tensor) -> Tensor:
        return warpers(no_ids, logits.detach().cpu()[None]).softmax(-1)[0]

    return distribution


class Dice(Protocol):
    """All the chance in one answer."""

    def pick(self, weights: Tensor) -> int:
        """An index, as often as its weight says; float32 [n], not all 0, of any sum."""
        ...

    def chance(self, probability: float) -> bool:
        """True with this probability; always from 1 on."""
        ...


class SeededDice:
    """Draws on the CPU with a generator of its own, so that one seed gives one answer whatever the device."""

    def __init__(self, seed: int | None) -> None:
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def pick(self, weights: Tensor) -> int:
        return int(torch.multinomial(weights, 1, generator=self._generator))

    def chance(self, probability: float) -> bool:
        return float(torch.rand((), generator=self._generator)) < probability
