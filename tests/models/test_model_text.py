"""Detokenizer and StopGuard: nothing half-made is ever shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ctxkit.models.text import Detokenizer, StopGuard
from ctxkit.testing import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def _pieces(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER)
    return [detokenizer.feed(index) for index in ids]


@given(st.text(max_size=80))
def test_pieces_of_encoded_text_join_to_the_text(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert "".join(_pieces(ids)) == TOKENIZER.decode(ids).rstrip("\ufffd")


@given(st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1), max_size=80))
def test_pieces_of_any_ids_join_to_what_decoding_all_gives(ids: list[int]) -> None:
    assert "".join(_pieces(ids)) == TOKENIZER.decode(ids).rstrip("\ufffd")


def test_a_character_over_several_tokens_comes_whole() -> None:
    ids = TOKENIZER.encode("a🎉b", add_special_tokens=False).ids
    assert len(ids) == 6
    assert _pieces(ids) == ["a", "", "", "", "🎉", "b"]


def test_an_unfinished_character_at_the_end_is_left_out() -> None:
    ids = TOKENIZER.encode("a🎉", add_special_tokens=False).ids
    assert "".join(_pieces(ids[:-1])) == "a"


@given(
    st.text("abE", max_size=40),
    st.lists(st.text("abE", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 40), max_size=10),
)
def test_a_stop_guard_does_not_depend_on_how_the_text_is_cut(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    assert _guarded(parts, stops) == _guarded(list(text), stops) == _guarded([text], stops)


def _guarded(parts: list[str], stops: list[str]) -> tuple[str, bool]:
    guard = StopGuard(stops)
    shown = "".join(guard.feed(part) for part in parts) + guard.flush()
    return shown, guard.hit


@given(st.text("abE", max_size=40), st.lists(st.text("abE", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_guard_shows_everything_before_the_stop_that_is_complete_first(text: str, stops: list[str]) -> None:
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    expected = (text[: min(ends)[1]], True) if ends else (text, False)
    assert _guarded(list(text), stops) == expected


def test_what_was_held_back_comes_when_it_is_no_stop() -> None:
    guard = StopGuard(["STOP"])
    assert [guard.feed("a ST"), guard.feed("ART ST"), guard.flush()] == ["a ", "START ", "ST"]
