"""TotalCounter: counts any str, also one that no tokenizer takes."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxkit.tokens.wrapped import WrappedCounter

SURROGATE = re.compile("[\ud800-\udfff]")


class TotalCounter(WrappedCounter):
    """Counts like `inner`; half of a surrogate pair, which is no Unicode text, as one U+FFFD."""

    def count(self, text: str) -> int:
        return self.inner.count(_whole(text))

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_batch([_whole(text) for text in texts])


def _whole(text: str) -> str:
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)
