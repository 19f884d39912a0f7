"""From token ids to text as they come: whole characters only, and never a piece of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"
_CONTEXT_TOKENS = 4
_WINDOW_TOKENS = 16


class Detokenizer:
    """Incremental decoding. `"".join` of what `feed` returns is what decoding all ids at once gives.

    A character whose bytes are spread over tokens comes when it is complete; what is still incomplete at the end is
    left out. Bytes that can never become a character are U+FFFD, as the tokenizer decodes them, once text follows.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # the last few ids, enough for the decoder to see what is before the new one
        self._given = 0  # characters of their text that were handed out

    def feed(self, token_id: int) -> str:
        """The text that this token completes, possibly empty."""
        self._ids.append(token_id)
        text = self._decode()
        whole = text.rstrip(_INCOMPLETE)
        piece = whole[self._given :]
        self._given = max(self._given, len(whole))
        if len(self._ids) > _WINDOW_TOKENS and len(whole) == len(text):
            self._forget()
        return piece

    def _forget(self) -> None:
        kept = self._ids[-_CONTEXT_TOKENS:]
        before = self._decode()
        self._ids, dropped = kept, self._ids
        if before.endswith(self._decode()):
            self._given = len(self._decode())
        else:  # the cut went through a character or a special token: try again later
            self._ids = dropped

    def _decode(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)


class StopGuard:
    """Ends a text at the first stop string and holds back what may become one.

    Among several, the one that is complete first ends the text; it does not matter how the text is cut into pieces.

    >>> guard = StopGuard(["END"])
    >>> guard.feed("the E"), guard.feed("ND of"), guard.hit
    ('the ', '', True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def feed(self, piece: str) -> str:
        """The text that may be shown now. After a hit always empty."""
        if self.hit:
            return ""
        text = self._held + piece
        found = [(text.index(stop) + len(stop), text.index(stop)) for stop in self._stops if stop in text]
        if found:
            self.hit, self._held = True, ""
            return text[: min(found)[1]]
        keep = partial_end(text, self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def partial_end(text: str, wholes: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `wholes`, and is not all of it.

    >>> partial_end("the E", ["END"]), partial_end("END", ["END"])
    (1, 0)
    """
    longest = max((len(whole) - 1 for whole in wholes), default=0)
    ends = range(min(longest, len(text)), 0, -1)
    return next((n for n in ends if any(whole.startswith(text[-n:]) for whole in wholes)), 0)
