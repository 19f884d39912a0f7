"""Each text is tokenised once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock


class TokenCountCache:
    """Counts of texts, least recently used first out; bounded by the characters it holds on to."""

    def __init__(self, count_all: Callable[[Sequence[str]], list[int]], max_chars: int = 64_000_000) -> None:
        self._count_all = count_all
        self._max_chars = max_chars
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._chars = 0
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            known = {text: self._counts[text] for text in texts if text in self._counts}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(zip(missing, self._count_all(missing), strict=True))
        self._remember(known)
        return [known[text] for text in texts]

    def _remember(self, counts: dict[str, int]) -> None:
        with self._lock:
            for text, count in counts.items():
                if text not in self._counts:
                    self._chars += len(text)
                self._counts[text] = count
                self._counts.move_to_end(text)
            while self._chars > self._max_chars and self._counts:
                text, _ = self._counts.popitem(last=False)
                self._chars -= len(text)
