"""TokenReader: what an encoder says about each token of some texts, and of that about each word."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ctxkit.compression.encoder.token_windows import Window, batches, windows
from ctxkit.compression.text.words import Words

Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(ids, mask), int64 [rows, longest], mask 0 for padding -> float [rows, longest] or [rows, longest, dims]."""

Merge = Literal["mean", "first"]
"""How the values of a word's tokens become the word's: their mean, or the first."""

_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character; no tokenizer takes it


@dataclass(frozen=True)
class TokenValues:
    """The tokens of some texts, in order, and what the encoder said of them.

    texts: the texts, cut. ids: int64 [tokens]. starts, ends: char offsets in the token's text, int64 [tokens].
    owners: number of the token's text, int64 [tokens]. values: float32 [tokens] or [tokens, dims].
    """

    texts: Sequence[Words]
    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    owners: np.ndarray
    values: np.ndarray

    def per_word(self, merge: Merge = "mean", values: np.ndarray | None = None) -> np.ndarray:
        """One value per word of all texts, float32 [words] or [words, dims].

        values: in place of the encoder's, [tokens] or [tokens, dims]. A token that stands in several words counts for
        each. A word that the tokenizer dropped gets the value of the word before it, else of the one behind it; all
        are 0 in a text of which nothing is left.
        """
        values = self.values if values is None else values
        tokens, words = self._pairs
        begins = np.flatnonzero(np.diff(words, prepend=-1))
        merged = np.zeros((self._word_offsets[-1], *values.shape[1:]), np.float32)
        if len(begins):
            paired = values[tokens]
            counts = np.diff(begins, append=len(words)).reshape(-1, *(1,) * (values.ndim - 1))
            means = paired[begins] if merge == "first" else np.add.reduceat(paired, begins, axis=0) / counts
            merged[words[begins]] = means
        seen = np.zeros(len(merged), bool)
        seen[words] = True
        return merged if seen.all() else merged[self._stand_ins(seen)] * self._text_has(seen, values.ndim)

    @property
    def tokens_per_word(self) -> np.ndarray:
        """Tokens that stand in each word of all texts, int64 [words]; one in several words counts for each."""
        return np.bincount(self._pairs[1], minlength=self._word_offsets[-1])

    def per_text(self, of_words: np.ndarray) -> list[np.ndarray]:
        """Values of all words, [words, ...], as one array for each text."""
        return np.split(of_words, self._word_offsets[1:-1]) if len(self.texts) else []

    def holding(self, pattern: re.Pattern[str]) -> np.ndarray:
        """Whether each token has a character that the pattern, of one character, matches: bool [tokens]."""
        found = [
            match.start() + base
            for words, base in zip(self.texts, self._char_offsets.tolist(), strict=False)
            for match in pattern.finditer(words.text)
        ]
        bases = self._char_offsets[self.owners]
        return np.searchsorted(found, self.starts + bases) < np.searchsorted(found, self.ends + bases)

    @cached_property
    def _char_offsets(self) -> np.ndarray:
        """Where each text would begin if all stood in one string, int64 [texts + 1]."""
        return np.cumsum([0, *(len(words.text) for words in self.texts)], dtype=np.int64)

    @cached_property
    def _word_offsets(self) -> np.ndarray:
        """int64 [texts + 1]"""
        return np.cumsum([0, *map(len, self.texts)], dtype=np.int64)

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and the words they stand in, int64 [pairs] each; words rise."""
        first, last = words_of(self.texts, self.starts, self.ends, self.owners)
        counts = np.maximum(last - first + 1, 0)  # none in a text that has no words
        tokens = np.repeat(np.arange(len(first)), counts)
        steps = np.arange(len(tokens)) - np.repeat(np.cumsum(counts) - counts, counts)
        words = first[tokens] + steps
        order = np.argsort(words, kind="stable")
        return tokens[order], words[order]

    def _stand_ins(self, seen: np.ndarray) -> np.ndarray:
        """The word whose value each word takes, its own where it was seen; int64 [words]."""
        places = np.arange(len(seen))
        lower = np.repeat(self._word_offsets[:-1], np.diff(self._word_offsets))
        before = np.maximum.accumulate(np.where(seen, places, -1))
        behind = np.minimum.accumulate(np.where(seen, places, len(seen) - 1)[::-1])[::-1]
        return np.where(before >= lower, before, behind)

    def _text_has(self, seen: np.ndarray, ndim: int) -> np.ndarray:
        """1 for the words of a text of which any word was seen, else 0; [words] with axes to multiply by."""
        running = np.concatenate([[0], np.cumsum(seen)])
        counts = running[self._word_offsets[1:]] - running[self._word_offsets[:-1]]
        known = np.repeat(counts > 0, np.diff(self._word_offsets))
        return known.astype(np.float32).reshape(-1, *(1,) * (ndim - 1))


class TokenReader:
    """Sends texts through an encoder: one pass of the tokenizer, windows on ids, batches with little padding.

    tokenizer: a fast one, `tokenizers.Tokenizer`, that neither truncates nor pads; its own special tokens go around
        each window. Special tokens that a text spells are ordinary characters.
    forward: the encoder. What it gives for special tokens and padding is not looked at.
    window_tokens: the most that the encoder reads at once, special tokens included.
    batch_tokens: the most in one batch, padding included: more than a cache holds makes it slower.
    most_padding: share of a batch.

    A text's values do not depend on its neighbours, up to rounding. Raises ValueError where `window_tokens` has no
    room beside the special tokens.
    """

    def __init__(
        self,
        tokenizer: Any,
        forward: Forward,
        *,
        window_tokens: int = 512,
        batch_tokens: int = 4096,
        most_padding: float = 0.15,
        pad_id: int = 0,
    ) -> None:
        self._before, self._after = special_ids(tokenizer)
        specials = len(self._before) + len(self._after)
        if window_tokens <= specials:
            raise ValueError(f"`window_tokens` must be more than the {specials} special tokens, got {window_tokens!r}")
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._forward = forward
        self._size = window_tokens - specials
        self._batch_tokens = batch_tokens
        self._most_padding = most_padding
        self._pad_id = pad_id

    def read(self, texts: Sequence[Words]) -> TokenValues:
        """The tokens of all texts and the encoder's values of them."""
        coded = self._tokenizer.encode_batch(
            [_SURROGATE.sub("\ufffd", words.text) for words in texts], add_special_tokens=False
        )
        counts = np.array([len(one.ids) for one in coded], np.int64)
        ids = np.concatenate([np.zeros(0, np.int64), *(one.ids for one in coded)]).astype(np.int64)
        spans = np.concatenate([np.zeros((0, 2), np.int64), *(one.offsets for one in coded if one.ids)])
        starts, ends = spans.astype(np.int64).T
        owners = np.repeat(np.arange(len(texts)), counts)
        plan = self._windows(texts, starts, ends, owners, np.cumsum([0, *counts]))
        return TokenValues(texts, ids, starts, ends, owners, self._values(ids, plan))

    def _windows(
        self, texts: Sequence[Words], starts: np.ndarray, ends: np.ndarray, owners: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray:
        """Windows over the tokens of all texts, int64 [windows, 4]."""
        breaks = np.zeros(0, np.int64)
        if (np.diff(offsets) > self._size).any():  # few texts are so long
            numbers = np.concatenate([np.zeros(0, np.int64), *(words.sentences for words in texts)]).astype(np.int64)
            first, _ = words_of(texts, starts, ends, owners)
            first = np.minimum(first, len(numbers) - 1)
            breaks = np.flatnonzero(np.diff(numbers[first], prepend=-1)) if len(numbers) else breaks
        found: list[Window] = []
        for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            found.extend(windows(begin, end, self._size, breaks))
        return np.array(found, np.int64).reshape(-1, 4)

    def _values(self, ids: np.ndarray, plan: np.ndarray) -> np.ndarray:
        """What the encoder says of each token, float32 [tokens, ...]."""
        if not len(plan):  # only the shape is asked for
            zero, one = np.zeros(1, np.int64), np.ones(1, np.int64)
            return self._forward(*self._padded(zero, zero, one))[:0, 0]
        begins, lengths = plan[:, 0], plan[:, 1] - plan[:, 0]
        values: np.ndarray | None = None
        for batch in batches(lengths, self._batch_tokens, self._most_padding):
            rows = self._forward(*self._padded(ids, begins[batch], lengths[batch]))
            if values is None:
                values = np.zeros((len(ids), *rows.shape[2:]), np.float32)
            columns = np.arange(int(lengths[batch].max()))
            places = begins[batch, None] + columns
            kept = (places >= plan[batch, 2:3]) & (places < plan[batch, 3:4])
            values[places[kept]] = rows[:, len(self._before) : len(self._before) + len(columns)][kept]
        return values if values is not None else np.zeros(len(ids), np.float32)

    def _padded(self, ids: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows with their special tokens, padded at the end, and the mask: int64 [rows, longest] each."""
        before, after = len(self._before), len(self._after)
        columns = np.arange(int(lengths.max()) + before + after) - before
        rows = ids[np.clip(begins[:, None] + columns, 0, len(ids) - 1)]
        rows[:, :before] = self._before
        ends = lengths[:, None]
        for step, id_ in enumerate(self._after):
            rows[columns == ends + step] = id_
        mask = columns < ends + after
        rows[~mask] = self._pad_id
        return rows, mask.astype(np.int64)


def words_of(
    texts: Sequence[Words], starts: np.ndarray, ends: np.ndarray, owners: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """First and last word of each token, among the words of all texts; int64 [tokens] each.

    starts, ends: char offsets of the tokens in their texts. owners: numbers of the texts. All int64 [tokens].
    The last is less than the first for a token of a text without words.
    """
    bases = np.cumsum([0, *(len(words.text) for words in texts)], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    bounds = np.concatenate(
        [
            np.zeros(0, np.int64),
            *(np.array(w.bounds[: len(w)], np.int64) + b for w, b in zip(texts, bases, strict=False)),
        ]
    )
    low, high = offsets[owners], offsets[owners + 1] - 1
    first = np.searchsorted(bounds, starts + bases[owners], side="right") - 1
    last = np.searchsorted(bounds, np.maximum(ends - 1, starts) + bases[owners], side="right") - 1
    first = np.clip(first, low, np.maximum(high, low))
    return first, np.minimum(np.maximum(last, first), high)


def special_ids(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and behind a text."""
    coded = tokenizer.encode("a", add_special_tokens=True)
    mask = list(coded.special_tokens_mask)
    if 0 not in mask:
        return list(coded.ids[: len(mask) // 2]), list(coded.ids[len(mask) // 2 :])
    return list(coded.ids[: mask.index(0)]), list(coded.ids[len(mask) - mask[::-1].index(0) :])
