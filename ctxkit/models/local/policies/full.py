"""Full: everything is kept and seen where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.models.local.policies.base import Policy


@dataclass(frozen=True)
class Full(Policy):
    """The model's own attention: the default, and what every other policy is compared with."""
