"""TokenReader: each token once, windows at sentences, little padding, every word a value, whatever the text."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.compression.encoder.token_model import TokenReader
from ctxkit.compression.encoder.token_windows import batches, windows
from ctxkit.compression.text.words import Words

tokenizers = pytest.importorskip("tokenizers")

DEGENERATE = [
    "",
    " ",
    "\n\n",
    "\x00",
    "\x00\x00 \u200b",
    "\ud800",
    "a\ud800b",
    "…",
    "中文字",
    "🎉👩‍👩‍👧",
    "é" * 40,
    "[SEP]",
]
SHORT = ["one two three.", "Two, one? one!", *DEGENERATE]


def word_tokenizer():
    """A token is a run of letters or a mark; "drop" is no token; [CLS] and [SEP] stand around."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[CLS]": 0, "[SEP]": 1, "[UNK]": 2}, "[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Replace("drop", ""), tokenizers.normalizers.BertNormalizer(lowercase=False)]
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_tokens(["one", "two", "three"])
    ends = [("[CLS]", 0), ("[SEP]", 1)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


class Recorder:
    """An encoder that gives back what `value` makes of (ids, mask), and keeps its batches."""

    def __init__(self, value: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.value = value
        self.batches: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        self.batches.append((ids, mask))
        return self.value(ids, mask)


def ids_as_values(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return ids.astype(np.float32)


def two_dims(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.stack([ids, -ids], -1).astype(np.float32)


def of(texts) -> list[Words]:
    return [Words.of(text) for text in texts]


@given(
    st.integers(0, 60),
    st.integers(1, 20),
    st.lists(st.integers(0, 70), max_size=12).map(lambda some: sorted(set(some))),
)
def test_windows_keep_each_token_once_and_are_never_too_long(length, size, starts):
    found = list(windows(5, 5 + length, size, starts))
    assert [i for window in found for i in range(window.first, window.last)] == list(range(5, 5 + length))
    assert all(window.begin <= window.first < window.last <= window.end for window in found)
    assert all(window.end - window.begin <= size for window in found)


def test_a_window_ends_where_a_sentence_does_and_overlaps_where_none_does():
    assert [tuple(w) for w in windows(0, 20, 8, [0, 5, 11])] == [
        (0, 5, 0, 5),
        (5, 11, 5, 11),
        (11, 19, 11, 18),
        (17, 20, 18, 20),
    ]


@given(st.lists(st.integers(1, 500), max_size=80))
def test_batches_hold_each_row_once_with_little_padding_within_the_cap(lengths):
    lengths = np.array(lengths, np.int64)
    found = list(batches(lengths, 1000, 0.15))
    assert sorted(i for batch in found for i in batch.tolist()) == list(range(len(lengths)))
    for batch in found:
        area = len(batch) * lengths[batch].max()
        assert area <= 1000
        assert area - lengths[batch].sum() <= 0.15 * area


def test_padding_of_many_short_texts_is_small_and_rows_stand_between_special_tokens():
    draw = random.Random(0)
    encoder = Recorder(ids_as_values)
    TokenReader(word_tokenizer(), encoder).read(of("one " * draw.randint(1, 60) for _ in range(300)))
    real, all_ = (sum(int(f(mask)) for _, mask in encoder.batches) for f in (np.sum, np.size))
    assert real / all_ >= 0.85
    for ids, mask in encoder.batches:
        ends = mask.sum(1) - 1
        assert (ids[:, 0] == 0).all() and (ids[np.arange(len(ids)), ends] == 1).all()
        assert ids.dtype == mask.dtype == np.int64


@pytest.mark.parametrize("window", [3, 4, 7, 30, 512])
def test_values_come_back_to_the_tokens_they_are_of_in_windows_of_any_length(window):
    texts = of(["one two three. " * 20, "two", "", "three one " * 15])
    read = TokenReader(word_tokenizer(), ids_as_values, window_tokens=window).read(texts)
    assert read.values.tolist() == read.ids.tolist()
    named = {"one": 3, "two": 4, "three": 5, ".": 2}
    expected = [named[word] for words in texts for word in words.proper]
    assert read.per_word().tolist() == expected


def test_a_word_is_the_mean_of_its_tokens_or_the_first():
    read = TokenReader(word_tokenizer(), ids_as_values).read(of(["one-two three"]))
    assert read.per_word("mean").tolist() == [3.0, 5.0]  # 3, "-" as 2, 4
    assert read.per_word("first").tolist() == [3.0, 5.0]
    read = TokenReader(word_tokenizer(), ids_as_values).read(of(["two-one three"]))
    assert read.per_word("first").tolist() == [4.0, 5.0]


def test_a_token_over_several_words_counts_for_each():
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["?!"])
    assert TokenReader(tokenizer, ids_as_values).read(of(["one?! two"])).per_word().tolist() == [3.0, 6.0, 6.0, 4.0]


def test_a_word_that_the_tokenizer_drops_takes_the_value_of_the_one_before_else_behind():
    read = TokenReader(word_tokenizer(), ids_as_values).read(of(["one drop two", "drop three", "drop"]))
    assert [of_text.tolist() for of_text in read.per_text(read.per_word())] == [[3, 3, 4], [5, 5], [0]]


@pytest.mark.parametrize("forward", [ids_as_values, two_dims])
@pytest.mark.parametrize("texts", [[], [""], ["", " "], SHORT, SHORT[::-1], ["\x00"]])
def test_every_word_has_a_value_whatever_the_text(forward, texts):
    cut = of(texts)
    read = TokenReader(word_tokenizer(), forward).read(cut)
    for merge in ("mean", "first"):
        values = read.per_word(merge)
        assert values.shape == (sum(map(len, cut)), *((2,) if forward is two_dims else ()))
        assert np.isfinite(values).all()
        assert [len(of_text) for of_text in read.per_text(values)] == [len(words) for words in cut]


def test_special_tokens_that_a_text_spells_are_ordinary_characters():
    read = TokenReader(word_tokenizer(), ids_as_values).read(of(["one [SEP] two"]))
    assert 1 not in read.ids
    assert len(read.texts[0]) == 5


def test_tokens_that_hold_a_character_are_found_in_their_own_text():
    read = TokenReader(word_tokenizer(), ids_as_values).read(of(["one a1 two", "", "7", "three"]))
    assert read.holding(re.compile(r"\d")).tolist() == [False, True, False, True, False]


def test_a_window_without_room_beside_the_special_tokens_is_refused():
    with pytest.raises(ValueError, match="window_tokens"):
        TokenReader(word_tokenizer(), ids_as_values, window_tokens=2)
