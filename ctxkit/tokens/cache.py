"""Each text is tokenised once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

Made = TypeVar("Made")


class TextCache(Generic[Made]):
    """What `make_all` makes of texts, least recently used first out; bounded by the characters it holds on to.

    make_all: one result per text; it gets each text once.
    """

    def __init__(self, make_all: Callable[[Sequence[str]], Sequence[Made]], max_chars: int = 64_000_000) -> None:
        self._make_all = make_all
        self._max_chars = max_chars
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._chars = 0
        self._lock = Lock()

    def __call__(self, texts: Sequence[str]) -> list[Made]:
        """The result for each of `texts`, in order. The results are shared: do not change them."""
        with self._lock:
            known = {text: self._made[text] for text in texts if text in self._made}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(zip(missing, self._make_all(missing), strict=True))
        self._remember(known)
        return [known[text] for text in texts]

    def _remember(self, made: dict[str, Made]) -> None:
        with self._lock:
            for text, result in made.items():
                if text not in self._made:
                    self._chars += len(text)
                self._made[text] = result
                self._made.move_to_end(text)
            while self._chars > self._max_chars and self._made:
                text, _ = self._made.popitem(last=False)
                self._chars -= len(text)
