"""Draft attention: a small model reads the texts and the question, and shows what it looks at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np

from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor
from ctxkit.errors import PromptError
from ctxkit.protocols import Located, WindowAttention

_BETWEEN = "\n\n"


@dataclass(frozen=True)
class DraftAttention(WordCompressor):
    """SpecPC (arXiv 2506.08373): the words that a draft model attends to when it is about to answer.

    The draft reads texts and question as one user message. A token's score is the most that any head of any layer from
    `first_layer` on gives to it out of the last `window` positions, where early positions of the window count less:
    weights rise from 0 to 1. The best score of `kernel` tokens around goes to each token, and then the best of
    `neighbours`: in a ranking this is the paper's choice of the tokens near a chosen one. A word has the score of its
    best token.

    draft: a model of the capability "attention_evidence"; its tokenizer need not be the target's.
    window: tokens. It ends with the template's opening of the answer and, where there is a question, is no longer than
        what stands behind the texts. Without one, its part of the text counts as the best, as the paper keeps it.
    first_layer: counted from 0; the paper starts at 8 of Llama 3.2 1B's 16 and of Qwen 2.5 0.5B's 24.
    kernel: tokens; 1 does nothing. The paper's 32 is for thousands of tokens: of single paragraphs, cut to a half and
        to a third, the answer survives more often at 8 and 16 (`benchmarks/draft_attention.py`).
    neighbours: tokens; None is as many as `kernel`, as in the paper. 1 does nothing.
    lookahead_tokens: so many tokens are generated, and what they attend to counts with weight 1.
    most_tokens: of one prompt; None takes the draft's window.

    Texts that are too long for one prompt are halved until they fit, near the middle, at a sentence or a word; each
    piece is followed by the question. Scores are probabilities, and pieces are of like length and have the template's
    tokens in common, which take what a piece does not deserve: so those of all pieces are compared as they are.

    Raises ValueError for a draft that has not the capability, PromptError where the question takes more than half of
    a prompt, and what the draft's `window_attention` raises.
    """

    draft: WindowAttention
    window: int = 64
    first_layer: int = 8
    kernel: int = 16
    neighbours: int | None = None
    lookahead_tokens: int = 0
    most_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.draft, WindowAttention):
            raise ValueError(f'`draft` must be a model of the capability "attention_evidence", got {self.draft!r}')
        for name in ("window", "kernel", "neighbours", "most_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value!r}")

    @property
    def name(self) -> str:
        return "draft attention"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        joined = _Joined(texts)
        if not joined.words:
            return [[] for _ in texts]
        tail = _BETWEEN + question if question.strip() else ""
        if (fixed := len(self.draft.locate(tail).ids)) * 2 > self._most:
            raise PromptError(
                f"the question and the draft's template take {fixed:,} tokens, more than half of the {self._most:,} "
                "of a prompt. Shorten the question or raise `most_tokens`"
            )
        pieces = [self._tokens(*piece, tail) for piece in self._pieces(joined, 0, len(joined.text), tail)]
        starts = np.concatenate([starts for starts, _ in pieces])
        return joined.by_word(starts, np.concatenate([scores for _, scores in pieces]))

    @property
    def _most(self) -> int:
        """Tokens of one prompt."""
        return min(self.most_tokens or self.draft.window_tokens, self.draft.window_tokens - self.lookahead_tokens)

    def _pieces(self, joined: _Joined, start: int, end: int, tail: str) -> Iterator[tuple[int, int, Located]]:
        """(start, end, prompt) of the pieces of joined.text[start:end], in order."""
        prompt = self.draft.locate(joined.text[start:end] + tail)
        middle = joined.middle(start, end)
        if len(prompt.ids) <= self._most or not start < middle < end:
            yield start, end, prompt
            return
        yield from self._pieces(joined, start, middle, tail)
        yield from self._pieces(joined, middle, end, tail)

    def _tokens(self, start: int, end: int, prompt: Located, tail: str) -> tuple[np.ndarray, np.ndarray]:
        """Where the tokens of one piece begin in the joined text, int64 [tokens], rising, and their scores."""
        places = np.array(prompt.starts)
        own = np.flatnonzero((places >= 0) & (places < end - start))
        behind = len(places) - own[-1] - 1 if len(own) else 0
        window = min(self.window, behind) if tail and behind else min(self.window, len(places))
        rows = self.draft.window_attention(
            prompt.ids, window=window, first_layer=self.first_layer, lookahead_tokens=self.lookahead_tokens
        )
        scores = (rows * _weights(window, len(rows))[:, None]).max(axis=0)[own]
        last = own >= len(places) - window
        scores[last] = scores.max(initial=0.0)
        scores = _best_around(scores, self.kernel)
        reach = self.kernel if self.neighbours is None else self.neighbours
        return places[own] + start, _best_around(scores[::-1], reach)[::-1]  # seen from the neighbour


class _Joined:
    """Some texts as one, and where their words stand in it."""

    def __init__(self, texts: Sequence[Words]) -> None:
        self.texts = texts
        self.text = _BETWEEN.join(words.text for words in texts)
        self.offsets = list(accumulate((len(words.text) + len(_BETWEEN) for words in texts), initial=0))

    @cached_property
    def words(self) -> list[int]:
        """Where the words begin, rising; white space is before them."""
        return [at + bound for at, words in self._placed for bound in words.bounds[:-1]]

    @cached_property
    def sentences(self) -> list[int]:
        """Where the first words of sentences begin, rising."""
        return [
            at + words.bounds[i]
            for at, words in self._placed
            for i in range(len(words))
            if not i or words.sentences[i] != words.sentences[i - 1]
        ]

    @property
    def _placed(self) -> Iterator[tuple[int, Words]]:
        return zip(self.offsets, self.texts, strict=False)

    def middle(self, start: int, end: int) -> int:
        """A place to cut a span: the sentence, else the word, that begins nearest to its middle, else that itself."""
        middle, slack = (start + end) // 2, (end - start) // 16
        for places in (self.sentences, self.words):
            at = bisect_left(places, middle)
            near = min(places[max(at - 1, 0) : at + 1], key=lambda place: abs(place - middle))
            if abs(near - middle) <= slack:
                return near
        return middle

    def by_word(self, starts: np.ndarray, scores: np.ndarray) -> list[Sequence[float]]:
        """The best score among the tokens of each word, [texts][words]; white space before it is not of it."""
        return [
            [
                float(scores[max(first, 0) : max(last, first + 1, 1)].max(initial=0.0))
                for first, last in zip(
                    np.searchsorted(starts, at + np.array(words.starts, int), "right") - 1,
                    np.searchsorted(starts, at + np.array(words.bounds[1:], int), "left"),
                    strict=True,
                )
            ]
            for at, words in self._placed
        ]


def _weights(window: int, rows: int) -> np.ndarray:
    """Of the window's positions from 0 to 1, and 1 for what was looked ahead; float32 [rows]."""
    weights = np.ones(rows, np.float32)
    if window > 1:
        weights[:window] = np.linspace(0, 1, window, dtype=np.float32)
    return weights


def _best_around(scores: np.ndarray, size: int) -> np.ndarray:
    """The largest of the `size` values around each, itself included; of an even number one more behind than before.

    >>> _best_around(np.array([0, 0, 3, 0, 0, 0, 1]), 4).tolist()
    [3, 3, 3, 3, 1, 1, 1]
    """
    if not len(scores):
        return scores
    before = (size - 1) // 2
    padded = np.pad(scores, (before, size - 1 - before), constant_values=scores.min())
    return np.lib.stride_tricks.sliding_window_view(padded, size).max(axis=1)
