"""TotalCounter: counts any str, also one that no tokenizer takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.protocols import Counter, PromptMessage, Rendering, Tool

SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TotalCounter:
    """Counts like `inner`; half of a surrogate pair, which is no Unicode text, as one U+FFFD."""

    inner: Counter

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def exact(self) -> bool:
        return self.inner.exact

    def count(self, text: str) -> int:
        return self.inner.count(_whole(text))

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_batch([_whole(text) for text in texts])

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        return self.inner.render(messages, tools=tools)


def _whole(text: str) -> str:
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)
