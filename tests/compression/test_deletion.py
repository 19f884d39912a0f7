"""Semantic deletion: against each deletion made by hand, measured and estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ctxkit.compression.deletion import SemanticDeletion
from ctxkit.compression.prepared import compress
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.words import Words
from ctxkit.protocols import Counter, Vectors
from ctxkit.retrieval import HashingEncoder

TEXT = (
    "The old bridge over the river Aare was built of sandstone by masons from Bern and it has carried carts, cattle "
    "and people ever since. Nobody knows who paid for it.\nThe toll house is gone."
)


class Counting(HashingEncoder):
    """Notes how many texts each call has."""

    def __init__(self, *, multi_vector: bool = False) -> None:
        super().__init__(64, multi_vector=multi_vector)
        self.calls: list[int] = []

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self.calls.append(len(texts))
        return super().encode_documents(texts)


class InWindows(HashingEncoder):
    """A row for each word, as an encoder of one vector does whose windows are one word long."""

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        rows = HashingEncoder(self.dims, multi_vector=True).encode_documents(texts)
        return Vectors(rows.values, rows.offsets)


class NoSpans(InWindows):
    multi_vector = True  # type: ignore[assignment]


@pytest.fixture(params=[False, True], ids=["measured", "estimated"])
def multi_vector(request: pytest.FixtureRequest) -> bool:
    return request.param


def _scores(method: SemanticDeletion, *texts: str) -> list[Sequence[float]]:
    return method.scores([Words.of(text, None) for text in texts], "")


def _by_hand(sentence: str) -> list[float]:
    words = Words.of(sentence, None)
    encode = HashingEncoder(64).encode_documents
    whole = encode([sentence]).values[0]
    others = ["".join(word for j, word in enumerate(words.spaced) if j != i) for i in range(len(words))]
    return [1 - float(encode([other]).values[0] @ whole) for other in others]


@pytest.mark.parametrize("encoder", [HashingEncoder(64), HashingEncoder(64, multi_vector=True), InWindows(64)])
def test_a_score_is_how_far_the_sentence_moves_without_the_word(encoder: HashingEncoder) -> None:
    # For this encoder the estimate is exact: a text's vector is the sum of its words'.
    sentences = ["The old bridge was built of sandstone by masons.", "Nobody knows who paid, nobody at all."]
    for got, sentence in zip(_scores(SemanticDeletion(encoder), *sentences), sentences, strict=True):
        np.testing.assert_allclose(got, _by_hand(sentence), atol=1e-6)


def test_sentences_are_measured_alone(multi_vector: bool) -> None:
    method = SemanticDeletion(HashingEncoder(64, multi_vector=multi_vector))
    words = Words.of(TEXT, None)
    assert len(set(words.sentences)) == 3
    first = "".join(words.spaced[: words.sentences.index(1)])
    np.testing.assert_allclose(_scores(method, TEXT)[0][: words.sentences.index(1)], _scores(method, first)[0])


def test_batches_change_no_score(multi_vector: bool) -> None:
    encoder = HashingEncoder(64, multi_vector=multi_vector)
    for big, small in zip(
        _scores(SemanticDeletion(encoder), TEXT, TEXT[::-1]),
        _scores(SemanticDeletion(encoder, batch_texts=1), TEXT, TEXT[::-1]),
        strict=True,
    ):
        np.testing.assert_allclose(big, small, atol=1e-6)


def test_all_texts_are_encoded_in_one_call_where_they_fit() -> None:
    measuring, estimating = Counting(), Counting(multi_vector=True)
    words = len(Words.of(TEXT, None))
    _scores(SemanticDeletion(measuring), TEXT, TEXT)
    _scores(SemanticDeletion(estimating), TEXT, TEXT)
    assert measuring.calls == [2 * (words + 3)]
    assert estimating.calls == [6]


def test_a_batch_is_of_the_size_that_was_asked_for() -> None:
    encoder = Counting()
    _scores(SemanticDeletion(encoder, batch_texts=40, most_words=10), TEXT * 5)
    assert max(encoder.calls) <= 40
    assert len(encoder.calls) > 3


def test_a_long_sentence_is_cut(multi_vector: bool) -> None:
    long = "a long list of things that goes on " * 40
    encoder = Counting(multi_vector=multi_vector)
    (scores,) = _scores(SemanticDeletion(encoder, most_words=16), long)
    assert len(scores) == 320
    assert sum(encoder.calls) == (20 if multi_vector else 340)


@pytest.mark.parametrize("text", ["", "  \n", "word", "!", "https://example.org/a?b=1", "1.5 2.5 3.5", "🎉", "日本語"])
def test_degenerate_texts_have_a_finite_score_for_each_word(text: str, multi_vector: bool) -> None:
    method = SemanticDeletion(HashingEncoder(64, multi_vector=multi_vector))
    words = Words.of(text, Pins())
    (scores,) = method.scores([words], "")
    assert len(scores) == len(words)
    assert np.isfinite(scores).all()
    assert (np.array(scores) >= -1e-9).all()
    assert method.scores([], "") == []


def test_a_text_is_compressed_to_the_budget(multi_vector: bool, counter: Counter) -> None:
    method = SemanticDeletion(HashingEncoder(64, multi_vector=multi_vector))
    result = compress([TEXT, TEXT[::-1]], method, rate=0.5, counter=counter)
    assert 0 < result.tokens <= 0.5 * result.source_tokens
    assert compress([TEXT, TEXT[::-1]], method, rate=0.5, counter=counter) == result
    assert result.method == "semantic deletion"


def test_rows_without_places_are_refused() -> None:
    with pytest.raises(ValueError, match="does not say where its rows stand"):
        _scores(SemanticDeletion(NoSpans(64)), TEXT)


@pytest.mark.parametrize("name", ["most_words", "batch_texts"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        SemanticDeletion(HashingEncoder(), **{name: 0})
