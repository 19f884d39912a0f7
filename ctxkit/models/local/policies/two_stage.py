"""TwoStage: a rough look at all tokens, an exact one at the likely ones, and then only those that matter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ctxkit.models.local.policies.selector import Selector, largest

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.paging.look import Look

_STEPS = 15  # of four bits
_SCALE_BYTES = 4  # two float16 behind the numbers of a channel: its lowest value, and a step's size
_LEAST_STEP = 1e-4


@dataclass(frozen=True)
class TwoStage(Selector):
    """TokenSelect's vote at a small part of its bytes; ctxkit's own, after SparQ's query channels (Ribar et al. 2023,
    arXiv 2312.04985) and Loki's two stages (Singhania et al. 2024, arXiv 2406.02542).

    Keys are kept a second time in four bits, a channel's `block_tokens` numbers side by side. A query reads only the
    `channels` in which it is largest: 24 of 64 are a nineteenth of keys and values in bfloat16, half of that in
    float32. All heads vote with these rough logits for `candidates` tokens, and with exact ones for `keep_tokens` of
    them, one set per layer. Tokens behind the last whole block are always candidates. Prompts are read with full
    attention. The sizes by default suit SmolLM2-135M at 4,096 tokens.
    """

    keep_tokens: int = 32
    sinks: int = 4
    recent: int = 32
    candidates: int = 128
    channels: int = 24
    block_tokens: int = 64
    decode_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_tokens % 2:
            raise ValueError(f"`block_tokens` must be even, two numbers share a byte; got {self.block_tokens!r}")

    def represent(self, keys: Tensor, scores: Tensor) -> Tensor:
        low, high = keys.aminmax(dim=2)  # [rows, blocks, dims]
        scale = torch.stack([low, ((high - low) / _STEPS).clamp_min(_LEAST_STEP)], dim=-1).half()
        low, step = scale.float()[:, :, None].unbind(-1)
        steps = ((keys - low) / step).round().clamp(0, _STEPS).to(torch.uint8).transpose(2, 3)
        one, other = steps.chunk(2, dim=-1)  # [rows, blocks, dims, block tokens / 2]
        return torch.cat([one | other << 4, scale.view(torch.uint8)], dim=-1)

    def choose(self, look: Look) -> Tensor | None:
        count, q = len(look.positions), look.q.mean(2)
        if count <= self.keep_tokens:
            return None
        whole = count // self.block_tokens * self.block_tokens
        if whole <= self.candidates:
            return largest(_votes(look.logits(q)), self.keep_tokens)
        rest = torch.arange(whole, count, device=q.device)
        likely = torch.cat([largest(_votes(self.rough_logits(look, q)), self.candidates)[0], rest])
        return likely[largest(_votes(look.logits(q, likely)), self.keep_tokens)]

    def rough_logits(self, look: Look, q: Tensor) -> Tensor:
        """float32 [rows, heads in a group, tokens in whole blocks]; q [rows, heads in a group, dims]."""
        channels = q.abs().sum(1).topk(min(self.channels, q.shape[2])).indices  # [rows, channels]
        stored = look.summaries(self, self.block_tokens, only=channels)  # [rows, blocks, channels, bytes]
        low, step = stored[..., -_SCALE_BYTES:].contiguous().view(torch.float16).float().unbind(-1)
        packed = stored[..., :-_SCALE_BYTES]
        keys = torch.cat([packed & _STEPS, packed >> 4], dim=-1) * step[..., None] + low[..., None]
        strong = q.gather(2, channels[:, None].expand(-1, q.shape[1], -1))
        return torch.einsum("rgc,rbct->rgbt", strong, keys).flatten(2) * look.scale


def _votes(logits: Tensor) -> Tensor:
    """float32 [1, n], from [rows, heads in a group, n]: every head's softmax, summed."""
    return logits.softmax(-1).sum((0, 1))[None]
