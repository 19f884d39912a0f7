"""What ChainOfAgents is made of: sources and chunks, quotes, units, votes, and the worker without a model."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.compression.router import by_question
from ctxkit.context import passage, turn
from ctxkit.errors import BudgetError, PartError
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter
from ctxkit.tokens.graphemes import cluster_interiors
from ctxkit_agents.chain.evidence import Quote, blocks, evidence_of, find, verified
from ctxkit_agents.chain.extractive import ExtractiveWorker
from ctxkit_agents.chain.manager import majority, normalised
from ctxkit_agents.chain.source import Chunk, read_source
from ctxkit_agents.chain.split import split
from ctxkit_agents.chain.unit import Written, capped, is_loop, read_answer

COUNTER = WhitespaceCounter()
TURNS = [turn("user", "It rains. Take a coat.", id="t1", name="Ann"), turn("assistant", "I will.", id="t2", name="Bob")]
TEXTS = st.text(alphabet=st.sampled_from("ab. \n!é👩‍👧e\u0301日本。"), min_size=1, max_size=400).filter(str.strip)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_turns_are_read_with_who_speaks_and_spans_leave_that_out() -> None:
    source = read_source(TURNS)
    assert source.text == "Ann: It rains. Take a coat.\nBob: I will."
    (first, second) = source.spans(0, len(source.text))
    assert (first.source, first.start, first.end) == ("t1", 0, 22)
    assert (second.source, source.content(second)) == ("t2", "I will.")
    assert source.clipped(0, 3) is None and source.clipped(0, 14) == (5, 14)


def test_chat_messages_and_passages_are_sources_too() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": '{"path": "a"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Look."}, image]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "a is 3"},
    ]
    source = read_source(messages)
    assert "user: Look." in source.text and 'read({"path": "a"})' in source.text and "tool: a is 3" in source.text
    assert source.unread == ("m0",)
    titled = read_source([passage("Rivers rise.", title="Rivers", id="r"), passage("Lakes lie.")])
    assert titled.text == "Rivers\nRivers rise.\n\nLakes lie." and titled.label_at(8) == "Rivers"


@pytest.mark.parametrize("nothing", ["", " \n", [], [turn("user", "")], 7, [passage("x"), 7]])
def test_a_source_without_text_is_refused(nothing: object) -> None:
    with pytest.raises((ValueError, PartError)):
        read_source(nothing)  # type: ignore[arg-type]


def test_parts_of_one_id_are_refused() -> None:
    with pytest.raises(PartError, match="'a'"):
        read_source([passage("x", id="a"), passage("y", id="a")])


# --- chunks -----------------------------------------------------------------------------------------------------------


@given(TEXTS, st.integers(4, 30), st.booleans())
def test_chunks_cover_the_text_fit_the_room_and_break_no_grapheme(text: str, room: int, estimate: bool) -> None:
    counter = EstimatingCounter() if estimate else COUNTER
    room = room * 4 if estimate else room  # the estimate of one emoji with a joiner is large
    source = read_source(text)
    cuts = split(text, source.bounds, room, counter)
    assert cuts[0] == 0 and cuts[-1] == len(text)
    assert all(low < high for low, high in pairwise(cuts))
    assert all(counter.count(text[low:high]) <= room for low, high in pairwise(cuts))
    assert cluster_interiors(text).isdisjoint(cuts)


def test_chunks_are_the_fewest_and_then_of_even_size() -> None:
    text = "One two three four. " * 25  # 100 words, sentences of 4
    cuts = split(text, read_source(text).bounds, 39, COUNTER)  # 36 words in whole sentences
    assert [COUNTER.count(text[low:high]) for low, high in pairwise(cuts)] == [32, 36, 32]


def test_a_full_last_chunk_keeps_the_chunks_filled() -> None:
    text = "One two three four. " * 9 + "A b c."
    cuts = split(text, read_source(text).bounds, 20, COUNTER)
    assert [COUNTER.count(text[low:high]) for low, high in pairwise(cuts)] == [20, 19]


def test_a_sentence_longer_than_the_room_is_cut_between_words() -> None:
    text = "word " * 50
    cuts = split(text, read_source(text).bounds, 20, COUNTER)
    assert [COUNTER.count(text[low:high]) for low, high in pairwise(cuts)] == [16, 18, 16]
    assert all(text[low:high].startswith(("word", " word")) for low, high in pairwise(cuts))


def test_a_single_grapheme_without_room_is_refused() -> None:
    text = "e" + "\u0301" * 300
    with pytest.raises(BudgetError, match="alone has"):
        split(text, read_source(text).bounds, 5, EstimatingCounter())


# --- quotes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("It rains.", "It rains."),
        ("it   rains.\n", "It rains."),
        ("say “no” – ever", 'say "no" - ever'),
        ("It snows.", None),
        ("...", None),
        ("", None),
    ],
)
def test_a_quote_is_found_where_only_space_case_and_marks_differ(quote: str, found: str | None) -> None:
    text = 'Today: It rains. We say "no" - ever.'
    place = find(quote, text)
    assert (place and text[slice(*place)]) == found


@given(TEXTS, st.integers(0, 400), st.integers(1, 60))
def test_what_is_copied_is_found_as_it_stands(text: str, start: int, size: int) -> None:
    quote = text[start : start + size].strip()
    place = find(quote, text)
    if place is not None:
        assert text[slice(*place)] == quote
    else:
        assert not any(char.isalnum() for char in quote)


def test_verified_quotes_know_their_part_and_others_are_counted() -> None:
    source = read_source(TURNS)
    whole = Chunk(3, 0, len(source.text), (), 0)
    quotes, missing = verified(
        ["Take a coat.\nBob: I will", "I left.", "Bob:", "Take a coat.\nBob: I will"], source, whole
    )
    assert missing == 2
    evidence = evidence_of(quotes, source)
    assert [(one.text, one.source, one.start, one.end, one.worker) for one in evidence] == [
        ("Take a coat.", "t1", 10, 22, 3),
        ("I will", "t2", 0, 6, 3),
    ]


def test_quotes_side_by_side_are_shown_together() -> None:
    source = read_source("One. Two. Three. Four.")
    quotes = [Quote(0, 4, 1), Quote(5, 9, 1), Quote(17, 22, 1), Quote(2, 9, 2)]
    assert [len(block) for block in blocks(quotes, source)] == [3, 1]


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Ann came.", Written("Ann came.")),
        ('New notes: Ann came.\n- evidence 1: "Ann"\nEVIDENCE: she\n', Written("Ann came.", ("Ann", "she"))),
        ("Ann came.\nANSWERED: no\nANSWERED: Yes.", Written("Ann came.", (), True)),
        ('{"unit": " Ann ", "evidence": ["a", 3, ""], "answered": true}', Written("Ann", ("a",), True)),
        ('```json\n{"unit": "Ann", "evidence": "a", "answered": "yes"}\n```', Written("Ann", ("a",), True)),
        ('{"unit": 3}', Written('{"unit": 3}')),
        ('EVIDENCE: ""\nANSWERED:', Written("")),
        ("", Written("")),
    ],
)
def test_an_answer_is_read_in_either_form(text: str, written: Written) -> None:
    assert read_answer(text) == written


def test_a_loop_is_told_from_a_list() -> None:
    assert is_loop("yes " * 20) and is_loop("He came late. And then he left. " * 5)
    long = "He came late to the meeting of the harbour board, and nobody knew why he had come so late. "
    assert is_loop("Notes: " + long * 3 + "He came late to") and not is_loop("It rained. " + long * 2)
    assert not is_loop("yes yes yes") and not is_loop(" ".join(f"item {i}" for i in range(200)))


@given(TEXTS, st.integers(0, 30))
def test_a_capped_unit_never_has_more_than_its_cap(text: str, tokens: int) -> None:
    shorter = capped(text, tokens, COUNTER, by_question(), "a b")
    assert COUNTER.count(shorter) <= tokens
    assert shorter == text or COUNTER.count(text) > tokens


# --- votes ------------------------------------------------------------------------------------------------------------


def test_answers_are_equal_but_for_case_articles_and_marks_and_numbers_are_not() -> None:
    assert normalised("The  Panthers!") == normalised("panthers")
    assert len({normalised(answer) for answer in ("3", "-3", "3.5", "35", "A")}) == 5
    assert normalised("A.") == normalised("a")
    assert majority(["no", "Yes.", "yes"]) == 1 and majority(["a1", "b", "c"]) is None and majority(["x"]) == 0


# --- the worker without a model ---------------------------------------------------------------------------------------

NOISE = " ".join(f"On day {i} the weather was fair and nothing was said." for i in range(300))
STORY = f"{NOISE} The budget of the harbour is 300 crowns. {NOISE}"


def test_the_extractive_worker_finds_the_sentence_that_is_asked_for() -> None:
    evidence = ExtractiveWorker().evidence(STORY, "What is the budget of the harbour?", tokens=60, counter=COUNTER)
    (best,) = [one for one in evidence if "harbour" in one.text]
    assert best.text == "The budget of the harbour is 300 crowns." == STORY[best.start : best.end]


@given(TEXTS, st.sampled_from(["", "a b", "zzz"]), st.integers(1, 40))
def test_extracted_evidence_keeps_to_its_tokens_and_to_the_source(text: str, question: str, tokens: int) -> None:
    worker = ExtractiveWorker(reach=2)
    evidence = worker.evidence(text, question, tokens=tokens, counter=COUNTER)
    assert all(text[one.start : one.end] == one.text for one in evidence)
    assert sum(COUNTER.count(one.text) for one in evidence) <= max(tokens, 0) + len(evidence)
    assert evidence == worker.evidence(text, question, tokens=tokens, counter=COUNTER)


def test_wrong_settings_of_the_extractive_worker_are_refused() -> None:
    for wrong in ({"around": -0.1}, {"reach": -1}, {"around": float("nan")}):
        with pytest.raises(ValueError, match="`around` and `reach`"):
            ExtractiveWorker(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`tokens`"):
        ExtractiveWorker().evidence("x", tokens=0, counter=COUNTER)
