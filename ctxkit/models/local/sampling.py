"""How the next token is drawn from logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ctxkit.protocols import Sampling

Draw = Callable[[torch.Tensor], int]
"""float32 logits [vocabulary] -> token id"""


def make_draw(sampling: Sampling) -> Draw:
    """Greedy at temperature 0, else temperature, top-k and top-p in that order, with a generator of its own.

    Draws on the CPU, so that one seed gives one answer whatever device the logits come from.
    """
    if sampling.temperature == 0:
        return lambda logits: int(logits.argmax())
    warpers = _warpers(sampling)
    generator = torch.Generator()
    no_ids = torch.LongTensor(1, 0)  # none of these warpers looks at what came before
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)

    def draw(logits: torch.Tensor) -> int:
        scores = warpers(no_ids, logits.detach().cpu()[None])  # [1, vocabulary]
        return int(torch.multinomial(scores.softmax(-1)[0], 1, generator=generator))

    return draw


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])
    if sampling.top_k is not None:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers
