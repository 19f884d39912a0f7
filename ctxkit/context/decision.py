"""Decision: what became of one part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ctxkit.context.labels import DEFAULT, Label
from ctxkit.context.level import Handle
from ctxkit.context.part import Part


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one part.

    part: as it was given. level: "full", a reduced level's name, or "dropped". method: what made that level.
    tokens: exact tokens it takes in the prompt, separators and citation number included.
    full_tokens: what it was planned to cost whole.
    reason: one sentence. enters_at: for a dropped part, a `window_tokens` at which it is in (an estimate).
    number: citation number of a passage in the prompt. handle: the way to what is not in the prompt.
    sent: the part as it stands in the prompt, None where it is dropped.
    """

    part: Part
    level: str
    method: str
    tokens: int
    full_tokens: int
    reason: str
    enters_at: int | None = None
    number: int | None = None
    handle: Handle | None = None
    sent: Part | None = None

    @property
    def kept(self) -> bool:
        return self.level != "dropped"

    @property
    def label(self) -> Label:
        """Of the part as it stands in the prompt; of the part as it was given where it is dropped."""
        return (self.sent or self.part).label or DEFAULT

    def to_dict(self) -> dict[str, Any]:
        told = {} if self.label.is_default else {"label": str(self.label)}
        return {
            "id": self.part.id,
            "kind": self.part.kind,
            "title": self.part.title,
            "source": self.part.source,
            "level": self.level,
            "tokens": self.tokens,
            "full_tokens": self.full_tokens,
            "pinned": self.part.pinned,
            "priority": self.part.priority,
            "relevance": self.part.relevance,
            "number": self.number,
            "reason": self.reason,
            "enters_at": self.enters_at,
            **told,
        }
