"""An extractive summary says what a text is about, each thing once, in its own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ctxkit.compression import CentroidCompressor
from ctxkit.compression.summaries.sentence_space import EncodedSpace, TermSpace, by_centroid
from ctxkit.context import passage
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter, Encoder, Vectors
from ctxkit.retrieval.encoders import HashingEncoder

Groups = Callable[..., Group]

ABOUT = [
    "The ferry timetable of the northern harbour changes in the spring season.",
    "In spring the ferry leaves the northern harbour every hour by the new timetable.",
    "The timetable of the ferry in the northern harbour changes in spring, as said.",
    "Tickets for the ferry cost four crowns at the harbour office.",
    "A cat slept on a warm stone wall near somebody's garden gate.",
    "The harbour office sells ferry tickets until the last ferry of the timetable leaves.",
]
TEXT = "\n\n".join(ABOUT)


class TokenEncoder:
    """One vector for each word, by its first letter; none for a text without words."""

    name = fingerprint = "letters"
    dims = 26
    multi_vector = True

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        words = [[word for word in text.casefold().split() if "a" <= word[0] <= "z"] for text in texts]
        rows = [np.eye(26, dtype=np.float32)[ord(word[0]) - ord("a")] for one in words for word in one]
        values = np.stack(rows) if rows else np.zeros((0, 26), np.float32)
        return Vectors(values, np.cumsum([0, *map(len, words)], dtype=np.int64))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self.encode_documents(texts)


ENCODERS: dict[str, Encoder | None] = {"terms": None, "single": HashingEncoder(), "multi": TokenEncoder()}


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest) -> Encoder | None:
    return ENCODERS[request.param]


def cut(compressor: CentroidCompressor, text: str, counter: Counter, tokens: int) -> str:
    source = compressor.read(text, LevelRequest("", counter))
    made = None if source is None else source.at(tokens)
    return "" if made is None else made.text


def test_the_levels_say_that_no_model_was_at_it(group_of: Groups, counter: Counter) -> None:
    levels = list(CentroidCompressor().levels(group_of(passage(TEXT)), LevelRequest("", counter)))
    assert {level.method for level in levels} == {"extractive summary, no model (text)"}
    assert all(0 < level.utility < 0.7 for level in levels)


def test_what_a_text_is_about_comes_before_what_it_only_mentions(encoder: Encoder | None) -> None:
    space = TermSpace(ABOUT) if encoder is None else EncodedSpace(ABOUT, encoder)
    scores = by_centroid(space, ABOUT, 1.0)
    assert min(scores) > 0
    if not isinstance(encoder, TokenEncoder):
        assert scores.index(min(scores)) == 4


def test_what_was_said_comes_last_and_with_balance_1_it_may_be_repeated() -> None:
    twice = [ABOUT[0], ABOUT[3], ABOUT[0], ABOUT[4]]
    new, central = (by_centroid(TermSpace(twice), twice, balance) for balance in (0.5, 1.0))
    assert min(range(4), key=new.__getitem__) == 2
    assert sorted(range(4), key=central.__getitem__)[-2:] == [2, 0]


def test_the_scores_are_in_the_order_of_maximal_marginal_relevance() -> None:
    """Against the definition, on every sentence."""
    space, balance = TermSpace(ABOUT), 0.6
    scores = by_centroid(space, ABOUT, balance)
    similar = np.stack([space.near(i) for i in range(len(ABOUT))])
    assert np.allclose(np.diag(similar), 1.0)
    assert np.allclose(similar, similar.T)
    worth = np.array(by_centroid(space, ABOUT, 1.0)) - 0.002
    taken: list[int] = []
    while len(taken) < len(ABOUT):
        rest = [i for i in range(len(ABOUT)) if i not in taken]
        nearest = {i: max((similar[i, j] for j in taken), default=0.0) for i in rest}
        taken.append(max(rest, key=lambda i: (round(balance * worth[i] - (1 - balance) * nearest[i], 6), -i)))
    assert taken == sorted(range(len(ABOUT)), key=lambda i: (-scores[i], i))


def test_summaries_are_sentences_of_the_source_and_nest(encoder: Encoder | None, counter: Counter) -> None:
    kept: set[str] = set()
    for tokens in (60, 120, 200, 300, 420):
        now = {line for line in cut(CentroidCompressor(encoder), TEXT, counter, tokens).splitlines() if line.strip()}
        assert now - {"[...]"} <= set(ABOUT)
        assert kept <= now | {"[...]"}
        kept = now


def test_short_remarks_do_not_outrank_what_is_said() -> None:
    talk = ["Timetable.", "The ferry timetable.", *ABOUT, "Ferry, harbour."]
    scores = by_centroid(TermSpace(talk), talk, 0.5)
    assert max(range(len(talk)), key=scores.__getitem__) in range(2, 8)


def test_an_extract_is_extracted_again_to_itself(counter: Counter) -> None:
    compressor = CentroidCompressor()
    once = cut(compressor, TEXT, counter, 250)
    source = compressor.read(once, LevelRequest("", counter))
    assert source is not None
    again = source.at(250)
    assert again is None or again.text in (once, once.strip())


@pytest.mark.parametrize("text", ["", " ", "\n", "...", "\ud800", "e\u0301" * 400, "。" * 300, "the of and\n" * 40])
def test_texts_without_a_word_are_no_error(
    text: str, encoder: Encoder | None, group_of: Groups, counter: Counter
) -> None:
    list(CentroidCompressor(encoder).levels(group_of(passage(text)), LevelRequest("", counter)))


def test_ten_thousand_sentences_are_ranked(counter: Counter) -> None:
    sentences = [f"Row {i} of list{i % 97} names item{i % 31}.\n" for i in range(10_000)]
    scores = by_centroid(TermSpace(sentences), sentences, 0.7)
    assert len(scores) == 10_000 and min(scores) > 0
    assert CentroidCompressor().read("".join(sentences), LevelRequest("", counter)) is not None


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="balance"):
        CentroidCompressor(balance=1.1)
    with pytest.raises(ValueError, match="least_tokens"):
        CentroidCompressor(least_tokens=0)
