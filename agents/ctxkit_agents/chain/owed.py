"""Owed: what the rest of a chain may still cost, so that a second try is not paid with what others need."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.context import Amounts, Run
from ctxkit.context.limits import METERS


@dataclass
class Owed:
    """rest: the most that the steps cost that have not begun."""

    rest: Amounts

    def begin(self, cost: Amounts) -> None:
        """A step of this cost begins: from here on the account itself knows of it."""
        self.rest = Amounts(**{meter: getattr(self.rest, meter) - getattr(cost, meter) for meter in METERS})

    def can_spare(self, cost: Amounts, run: Run) -> bool:
        """Whether the run can pay for one more call like this, and for the rest of the chain after it."""
        left = run.left
        return all(
            (there := getattr(left, meter)) is None or getattr(self.rest, meter) + getattr(cost, meter) <= there
            for meter in METERS
        )
