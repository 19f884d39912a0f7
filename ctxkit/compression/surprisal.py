"""Surprisal: words that a language model could have guessed go first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor
from ctxkit.protocols import Located

if TYPE_CHECKING:
    import numpy as np


class Surprised(Protocol):
    """A model of the capability "score" that can say where in a text its tokens begin."""

    @property
    def window_tokens(self) -> int: ...

    def locate(self, prompt: str) -> Located: ...

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray: ...


@dataclass(frozen=True)
class Surprisal(WordCompressor):
    """Selective Context (arXiv 2304.12102) and the token level of LLMLingua (arXiv 2310.05736), on words.

    A word's score is the mean -log p of its tokens under a causal model, given the text before it. Unlike LLMLingua,
    the text before is the original and not what was kept of it, so that one pass serves every rate; unlike Selective
    Context, it reaches over sentences.

    model: a LocalModel, or another that scores. most_tokens: of one pass; longer texts are read in pieces.
    """

    model: Surprised
    most_tokens: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.most_tokens < 16:
            raise ValueError(f"`most_tokens` must be at least 16, got {self.most_tokens!r}")

    @property
    def name(self) -> str:
        return "surprisal"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        return [self._scored(words) for words in texts]

    def _scored(self, words: Words) -> list[float]:
        import numpy as np

        surprise = np.zeros(len(words.text) + 1)  # by the character at which a token begins
        tokens = np.zeros(len(words.text) + 1)
        for start, end, located in self._pieces(words.text):
            places = np.array(located.starts)
            own = np.flatnonzero((places >= 0) & (places < end - start))
            own = own[own > 0]  # the very first token has nothing to be predicted from
            if not len(own):
                continue
            first, last = own[0], own[-1] + 1
            scored = self.model.score(located.ids[:first], located.ids[first:last])
            np.add.at(surprise, places[first:last] + start, -scored)
            np.add.at(tokens, places[first:last] + start, 1)
        bounds = np.array(words.bounds[:-1], int)
        if not len(bounds):
            return []
        held = np.maximum(np.add.reduceat(tokens[:-1], bounds), 1)
        return [float(value) for value in np.add.reduceat(surprise[:-1], bounds) / held]

    def _pieces(self, text: str, start: int = 0) -> Iterator[tuple[int, int, Located]]:
        """(start, end, tokens) of pieces that fit into one pass, cut at white space near the middle."""
        located = self.model.locate(text)
        middle = text.rfind(" ", 1, len(text) // 2)
        if len(located.ids) <= min(self.most_tokens, self.model.window_tokens) or len(text) < 2:
            yield start, start + len(text), located
            return
        middle = middle if middle > len(text) // 4 else len(text) // 2
        yield from self._pieces(text[:middle], start)
        yield from self._pieces(text[middle:], start + middle)
