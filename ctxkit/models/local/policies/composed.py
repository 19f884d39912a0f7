"""Composed: several policies at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ctxkit.errors import PolicyError
from ctxkit.models.local.paging.runs import Array
from ctxkit.models.local.policies.base import (
    Kept,
    Observed,
    Policy,
    Reach,
    View,
    labels_by_scope,
    overrides,
    state_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.models.local.adapter import ModelShape
    from ctxkit.models.local.paging.look import Look

_KINDS = 1 << 20  # more labels than any policy has


@dataclass(frozen=True)
class Composed(Policy):
    """`one | other`: reaches meet, what any part drops is dropped, biases add, scales multiply; one part selects.

    Raises PolicyError where two parts select, or two observe: their evidence could not be told apart.
    """

    parts: tuple[Policy, ...]

    def __post_init__(self) -> None:
        for hook in ("select", "observe", "place", "regroup"):
            able = [type(part).__name__ for part in self.parts if overrides(part, hook)]
            if len(able) > 1:
                raise PolicyError(f"{' and '.join(able)} both define `{hook}`; compose only one of them")
        labelled = [type(part).__name__ for part in self.parts if overrides(part, "plan")]
        if len(labelled) > 1:
            raise PolicyError(f"{' and '.join(labelled)} both plan heads; compose only one of them")

    @property
    def scope(self) -> Literal["model", "kv_head"]:  # type: ignore[override]
        return "kv_head" if any(part.scope == "kv_head" for part in self.parts) else "model"

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        return frozenset().union(*(part.needs for part in self.parts))

    @property
    def window(self) -> int:  # type: ignore[override]
        return max(part.window for part in self.parts)

    @property
    def keeps_all(self) -> bool:  # type: ignore[override]
        return any(part.keeps_all for part in self.parts)

    @property
    def most_kept(self) -> int | None:
        return min((most for part in self.parts if (most := part.most_kept) is not None), default=None)

    @property
    def places(self) -> bool:  # type: ignore[override]
        return any(part.places for part in self.parts)

    @property
    def apart(self) -> int:  # type: ignore[override]
        return max(part.apart for part in self.parts)

    @property
    def compensates(self) -> bool:  # type: ignore[override]
        return any(part.compensates for part in self.parts)

    def plan(self, shape: ModelShape) -> Array | None:
        """The planning part's labels, told apart further where another part has each head keep its own tokens."""
        plans = [found for part in self.parts if (found := part.plan(shape)) is not None]
        if not plans or self.scope == "model":
            return plans[0] if plans else None
        return plans[0] + _KINDS * labels_by_scope(self, len(shape.layers), shape.kv_heads)

    def reach(self, label: int) -> Reach | None:
        found = [reach for part in self.parts if (reach := part.reach(self._own(part, label))) is not None]
        if not found:
            return None
        return Reach(min(reach.sinks for reach in found), min(reach.recent for reach in found))

    def retain(self, kept: Kept) -> Array | None:
        masks = []
        for part in self.parts:
            own = replace(kept, label=self._own(part, kept.label), state=state_of(kept.state, part))
            if (mask := part.retain(own)) is not None:
                masks.append(mask)
        return np.logical_and.reduce(masks) if masks else None

    def observe(self, seen: Observed) -> Tensor | None:
        for part in self.parts:
            if overrides(part, "observe"):
                own = self._own(part, seen.label)
                return part.observe(replace(seen, label=own, state=state_of(seen.state, part)))
        return None

    def represent(self, keys: Tensor, scores: Tensor) -> Tensor:
        part = next((part for part in self.parts if overrides(part, "represent")), Policy())
        return part.represent(keys, scores)

    def select(self, look: Look) -> Tensor | None:
        for part in self.parts:
            if overrides(part, "select"):
                return part.select(replace(look, label=self._own(part, look.label), state=state_of(look.state, part)))
        return None

    def place(self, view: View, first_query: int, label: int) -> View:
        for part in self.parts:
            view = part.place(view, first_query, self._own(part, label))
        return view

    def bias(self, view: View, layer: int) -> Array | None:
        found = [bias for part in self.parts if (bias := part.bias(view, layer)) is not None]
        return sum(found[1:], found[0]) if found else None

    def query_scale(self, positions: Array, layer: int) -> Array | None:
        found = [scale for part in self.parts if (scale := part.query_scale(positions, layer)) is not None]
        return np.prod(found, axis=0) if found else None

    def regroup(self, layer: int, heads: Array, positions: Array, scores: Array) -> tuple[Array, float] | None:
        for part in self.parts:
            if overrides(part, "regroup"):
                return part.regroup(layer, heads, positions, scores)
        return None

    def _own(self, part: Policy, label: int) -> int:
        """What `part` calls these heads: by its own plan, by its scope, or 0."""
        if overrides(part, "plan"):
            return label % _KINDS
        if part.scope == "model":
            return 0
        return label // _KINDS if any(overrides(other, "plan") for other in self.parts) else label
