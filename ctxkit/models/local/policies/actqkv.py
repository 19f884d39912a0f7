"""ActQKV: InfLLM's blocks, asked for by the queries that stand out, shared out among layers by their entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctxkit.models.local.policies.infllm import InfLLM

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look

_TINY = 1e-12  # all queries alike: none stands out


@dataclass(frozen=True)
class ActQKV(InfLLM):
    """InfLLM with another probe and another budget (Xiao et al. 2025, arXiv 2502.13542).

    A prompt's queries are weighed by their squared distance from the mean of the pass, in standard deviations of each
    dimension. At decode, layers have blocks in proportion to the entropy of their block scores' softmax one token ago,
    `blocks` times the number of layers in all.
    """

    def probe(self, look: Look) -> Tensor:
        q = look.standing(self.recent)  # [rows, heads in a group, queries, dims]
        bias = (q - q.mean(2, keepdim=True)).square()
        weight = (bias / (bias.mean(2, keepdim=True) + _TINY)).mean(3, keepdim=True) + _TINY
        return (q * weight / weight.sum(2, keepdim=True)).sum((1, 2))

    def budget(self, look: Look, scores: Tensor) -> int:
        shared = look.shared()
        at, before, now = shared.get("entropies", (-1, {}, {}))
        if at != look.first_query:
            before, now = now, {}
        heads = look.frame_q.shape[0] * look.frame_q.shape[1]
        chances = (scores * look.scale / heads).softmax(0)  # of the mean logit
        entropy = -float((chances * (chances + _TINY).log()).sum())
        shared["entropies"] = (look.first_query, before, {**now, look.layer: max(entropy, _TINY)})
        if look.queries > 1 or look.layer not in before:
            return self.blocks
        return shares(before, self.blocks * len(before))[look.layer]


def shares(weights: dict[int, float], total: int) -> dict[int, int]:
    """`total` shared out in proportion to weights above 0, at least one each; the largest remainders are rounded up."""
    spare = total - len(weights)
    whole = sum(weights.values())
    exact = {key: spare * weight / whole for key, weight in weights.items()}
    found = {key: 1 + int(part) for key, part in exact.items()}
    by_remainder = sorted(exact, key=lambda key: int(exact[key]) - exact[key])
    for key in by_remainder[: total - sum(found.values())]:
        found[key] += 1
    return found
