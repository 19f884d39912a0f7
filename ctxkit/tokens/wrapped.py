"""WrappedCounter: counts as another counter does, but for what a subclass counts otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.protocols import Counter, PromptMessage, Rendering, Tool


@dataclass(frozen=True)
class WrappedCounter:
    """A `Counter` that passes everything on to `inner`."""

    inner: Counter

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def exact(self) -> bool:
        return self.inner.exact

    def count(self, text: str) -> int:
        return self.inner.count(text)

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_batch(texts)

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        return self.inner.render(messages, tools=tools)
