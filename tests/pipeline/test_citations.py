"""Citations come from the evidence: the words and the numbers of a sentence, whatever pieces it came in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxkit.context import Budget, Part, fit, passage, question
from ctxkit.pipeline import Citer
from ctxkit.pipeline.citations import numbers, split_sentences, stems
from ctxkit.pipeline.pipeline import AnswerStream
from ctxkit.protocols import Sampling
from ctxkit.testing import WhitespaceCounter

PASSAGES = {
    1: Part("passage", "The Zorblax penguin colony has 4321 birds. It lives on Quill Island.", title="Penguins"),
    2: Part("passage", "The Velmora railway opened in 1887 and has 12 stations on its line.", title="Trains"),
    3: Part("passage", "A budget holds 1,024 tokens; the reserve is part of it.", title="Budgets"),
}


def _cited(sentence: str, passages: dict[int, Part] = PASSAGES) -> list[int]:
    return [one.number for one in Citer(passages).cite(sentence)]


@pytest.mark.parametrize(
    ("sentence", "numbers_cited"),
    [
        ("The Zorblax colony has 4321 birds.", [1]),
        ("There are 12 stations on the Velmora line.", [2]),
        ("The budget is 1024 tokens.", [3]),
        ("Velmora railway stations opened.", [2]),
        ("The answer is 1887.", [2]),
        ("According to the passages, 4321 birds.", [1]),
        ("1887", [2]),
    ],
)
def test_a_supported_sentence_cites_its_passage(sentence: str, numbers_cited: list[int]) -> None:
    assert _cited(sentence) == numbers_cited


@pytest.mark.parametrize(
    "sentence",
    [
        "The Zorblax penguin colony has 99 birds.",
        "The Velmora railway opened in 1888 and has 12 stations on its line.",
        "The Zorblax penguin colony on Quill Island has 4,3210 birds.",
        "A budget holds 512 tokens; the reserve is part of it.",
    ],
)
def test_a_sentence_with_a_wrong_number_cites_nothing(sentence: str) -> None:
    assert _cited(sentence) == []


def test_of_two_like_passages_the_one_with_the_number_is_cited() -> None:
    two = {n: Part("passage", f"Hall {n} of the museum seats {n}00 people.") for n in (1, 2, 3)}
    assert _cited("Hall 2 of the museum seats 200 people.", two) == [2]
    assert _cited("Hall 2 of the museum seats 300 people.", two) == []


def test_numbers_are_compared_by_value_and_not_by_their_looks() -> None:
    assert numbers("1,024 of 1024; 2024-03-07; 3.5%; v2") == {"1024", "2024", "3", "7", "3.5", "2"}
    assert numbers("none") == set()


def test_the_number_of_a_list_item_and_an_invented_citation_claim_nothing() -> None:
    assert _cited("7. The Zorblax colony has 4321 birds.") == [1]
    assert _cited("The Zorblax colony has 4321 birds [9].") == [1]


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        " ",
        "...",
        "?!",
        "Yes.",
        "It is what it is.",
        "Bananas grow in warm countries.",
        "[1]",
        "1.",
        "\n",
        "🐧",
        "\u200b",
    ],
)
def test_what_says_nothing_of_the_passages_cites_nothing(sentence: str) -> None:
    assert _cited(sentence) == []


def test_without_passages_nothing_is_cited() -> None:
    assert _cited("The Zorblax colony has 4321 birds.", {}) == []


def test_empty_passages_support_nothing() -> None:
    assert _cited("The Zorblax colony.", {1: Part("passage", ""), 2: Part("passage", "...")}) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Колония пингвинов живёт на острове Квилл.", "Колония живёт на острове Квилл."),
        ("Η αποικία ζει στο νησί Κουίλ.", "Η αποικία ζει στο νησί Κουίλ."),
        ("مستعمرة البطريق تعيش في جزيرة كويل.", "مستعمرة البطريق في جزيرة كويل."),
        ("Die Straße nach Ülm ist gesperrt.", "Die STRASSE nach Ülm ist gesperrt"),
    ],
)
def test_other_scripts_are_cited_too(text: str, sentence: str) -> None:
    other = Part("passage", "Something else altogether.")
    assert _cited(sentence, {1: other, 2: Part("passage", text)}) == [2]


def test_equal_passages_are_both_cited_and_never_more_than_two() -> None:
    same = {n: Part("passage", "The moss is purple.") for n in (1, 2, 3)}
    assert _cited("The moss is purple.", same) == [1, 2]


def test_support_is_the_share_that_was_found() -> None:
    (whole,) = Citer(PASSAGES).cite("The Zorblax penguin colony.")
    (most,) = Citer(PASSAGES).cite("The Zorblax penguin colony waddles.")
    assert whole.support == 1.0
    assert 0.6 <= most.support < 1.0


def test_endings_do_not_matter() -> None:
    assert stems("opening opened opens open") == ["open"] * 4
    assert stems("the of and is") == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", [""]),
        ("No end", ["No end"]),
        ("One. Two! Three", ["One.", " Two!", " Three"]),
        ('He said "go." Then left.', ['He said "go."', " Then left."]),
        ("Version 1.2.3 is out. Yes.", ["Version 1.2.3 is out.", " Yes."]),
        ("- a\n- b\n\nc", ["- a", "\n- b", "\n", "\nc"]),
        ("1. Open it.\n2. Close it.", ["1. Open it.", "\n2. Close it."]),
        ("它住在岛上。「是的。」好", ["它住在岛上。", "「是的。」", "好"]),
        ("...", ["..."]),
        ("What?! No.", ["What?!", " No."]),
    ],
)
def test_sentences_end_where_a_reader_sees_it(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


_FRAGMENTS = st.sampled_from(
    [
        "The Zorblax colony has 4321 birds",
        "12 stations",
        "Velmora railway",
        "1",
        "42",
        ".",
        "!",
        "?",
        "。",
        "」",
        "」",
        ")",
    ]
    + ['"', " ", " ", "\n", "\n\n", "\r\n", "\t", "é", "👩‍🚀", "[1]", ",", "-", "1.", "2)"]
)
_TEXTS = st.lists(_FRAGMENTS, max_size=30).map("".join) | st.text(max_size=60)


@given(_TEXTS)
def test_sentences_joined_are_the_text(text: str) -> None:
    assert "".join(split_sentences(text)) == text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a class
@given(_TEXTS, st.data())
def test_pieces_cut_anywhere_give_the_same_cited_text(piece_model: Any, text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    plan = fit([*PASSAGES.values(), question("?")], budget=Budget(200), counter=WhitespaceCounter())
    whole = AnswerStream(piece_model([text]), plan, Sampling())
    parts = AnswerStream(piece_model(pieces), plan, Sampling())
    shown = "".join(parts)
    assert shown == parts.answer.cited_text == whole.answer.cited_text
    assert parts.answer.citations == whole.answer.citations
    assert parts.answer.text == text


@settings(max_examples=50)
@given(st.text(max_size=80), st.dictionaries(st.integers(1, 9), st.text(max_size=80), max_size=4))
def test_any_text_over_any_passages_is_safe(sentence: str, texts: dict[int, str]) -> None:
    for one in Citer({number: passage(text) for number, text in texts.items()}).cite(sentence):
        assert one.number in texts
        assert 0.6 <= one.support <= 1.0 + 1e-9
