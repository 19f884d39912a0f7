"""SpecKV: a draft of the answer shows what of the prompt will be needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ctxkit.models.local.policies.snapkv import SnapKV

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SpecKV(SnapKV):
    """SnapKV whose window goes on into a draft answer (Galim et al. 2025, arXiv 2506.08373).

    keep_tokens, window, pool: as in `SnapKV`. A token's score is the largest probability that any query of the window
    or of the draft, in any head of the group, gave it, and then the largest among its neighbours.

    Read the prompt with `prefill_with_lookahead`, which feeds the draft behind the prompt and takes it back again;
    after a plain prefill the window alone decides. The paper's sparse prefill of the target is not done here: the
    prompt is read with full attention.
    """

    keep_tokens: int = 256
    window: int = 32
    pool: int = 7
    pooling: Literal["average", "max"] = "max"

    def joined(self, before: Tensor | None, probabilities: Tensor) -> Tensor:
        found = probabilities.amax((1, 2))
        return found if before is None else found.maximum(before)
