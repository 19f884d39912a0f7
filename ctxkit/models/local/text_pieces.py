"""Texts within their prompts, as a causal model reads them to make vectors, and which tokens are the text's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TEXT = "{text}"
"""Where a prompt takes the text."""

_OVERLAP = 0.25


@dataclass(frozen=True, slots=True)
class Piece:
    """A text, or a window of one that is longer than is read at once, within its prompt.

    text: number of the text. ids: all that is read. first, end: the text's own tokens are ids[first:end].
    spans: int32 [end - first, 2], where these stand in the text, in characters.
    new: of them, how many from the end stood in no window before.
    placeholder: which of ids stands for the whole text; None where the cutter sets none.
    """

    text: int
    ids: tuple[int, ...]
    first: int
    end: int
    spans: np.ndarray
    new: int
    placeholder: int | None


@dataclass(frozen=True)
class Cutter:
    """Cuts texts with a tokenizer, which is never changed. What spells a control token is ordinary text.

    window_tokens: most tokens of a text in one piece; a longer text is cut into windows, each a quarter over the last.
    start: put before everything, so that the token all others attend to is none of the text's.
    placeholder: put before the text. None for none.
    """

    tokenizer: Tokenizer
    window_tokens: int
    start: int
    placeholder: int | None = None

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without prompt and windows."""
        return [len(encoding.ids) for encoding in self._encode(texts)]

    def pieces(self, texts: Sequence[str], prompt: str) -> Iterator[Piece]:
        """The pieces of all texts, in order; a text has at least one, also an empty one."""
        for number, (text, encoding) in enumerate(zip(texts, self._encode(texts), strict=True)):
            windows = list(self._windows(len(text), encoding))
            read = self._encode([prompt.replace(TEXT, text[start:end]) for start, end in windows])
            seen = 0
            for (start, end), window in zip(windows, read, strict=True):
                yield self._piece(number, window, prompt.index(TEXT), start, end, seen)
                seen = end

    def _piece(self, number: int, window: Encoding, before: int, start: int, end: int, seen: int) -> Piece:
        """before: characters of the prompt before the text. start, end: the window. seen: where the last one ended."""
        places = np.array(window.offsets, np.int64).reshape(-1, 2) - before  # in the window
        first = int((places[:, 1] <= 0).sum())
        last = max(first, int((places[:, 0] < end - start).sum()))
        spans = (places[first:last].clip(0, end - start) + start).astype(np.int32)
        marked = () if self.placeholder is None else (self.placeholder,)
        ids = (self.start, *window.ids[:first], *marked, *window.ids[first:])
        moved = 1 + len(marked)
        return Piece(
            number,
            ids,
            first + moved,
            last + moved,
            spans,
            int((spans[:, 0] >= seen).sum()),
            first + 1 if marked else None,
        )

    def _windows(self, characters: int, encoding: Encoding) -> Iterator[tuple[int, int]]:
        """Character spans of the windows."""
        tokens, size = len(encoding.ids), self.window_tokens
        if tokens <= size:
            yield 0, characters
            return
        overlap = int(size * _OVERLAP)
        for start in range(0, tokens - overlap, size - overlap):
            end = start + size
            first = encoding.offsets[start][0] if start else 0
            yield first, encoding.offsets[end - 1][1] if end < tokens else characters

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        return self.plain.encode_batch(list(texts), add_special_tokens=False)

    @cached_property
    def plain(self) -> Tokenizer:
        """A copy of the tokenizer to which nothing in a text is special."""
        from tokenizers import Tokenizer

        plain = Tokenizer.from_str(self.tokenizer.to_str())
        plain.no_truncation()
        plain.no_padding()
        plain.encode_special_tokens = True
        return plain
