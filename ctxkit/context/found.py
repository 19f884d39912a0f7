"""Found: the outcome of a search."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.context.problem import Levels
from ctxkit.protocols import Rendering


@dataclass(frozen=True)
class Found:
    """Levels that were rendered and fit. `bound` and `shadow_price` are the chooser's, by planning costs."""

    levels: Levels
    rendering: Rendering
    value: float = 0.0
    bound: float = 0.0
    shadow_price: float = 0.0
