"""How the next token is drawn from logits."""

from __future__ import annotations

from collections import Counter
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
    draw = _greedy if sampling.temperature == 0 else _sampled(sampling)
    return draw if sampling.frequency_penalty == 0 else _penalised(draw, sampling.frequency_penalty)


def _greedy(logits: torch.Tensor) -> int:
    return int(logits.argmax())


def _sampled(sampling: Sampling) -> Draw:
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


def _penalised(draw: Draw, penalty: float) -> Draw:
    """`draw` after taking `penalty` from each token's logit as often as it was drawn before."""
    drawn: Counter[int] = Counter()

    def penalised(logits: torch.Tensor) -> int:
        if drawn:
            ids = torch.tensor(list(drawn), device=logits.device)
            counts = torch.tensor(list(drawn.values()), device=logits.device, dtype=logits.dtype)
            logits = logits.index_add(0, ids, counts, alpha=-penalty)
        chosen = draw(logits)
        drawn[chosen] += 1
        return chosen

    return penalised


def _warpers(sampling: Sampling) -> LogitsProcessorList:
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])
    if sampling.top_k is not None:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return warpers
