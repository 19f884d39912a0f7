"""ThinkReader: the thinking before an answer is kept apart, and nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.models.reasoning import ThinkReader, opens_thinking


def _read(text: str, cuts: tuple[int, ...] = (), *, thinking: bool = False) -> tuple[str, str]:
    reader = ThinkReader(thinking=thinking)
    edges = [0, *cuts, len(text)]
    shown = "".join(reader.feed(text[start:end]) for start, end in zip(edges, edges[1:], strict=False)) + reader.flush()
    return reader.reasoning, shown


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("", False, ("", "")),
        ("Two.", False, ("", "Two.")),
        ("<think>\nHm\n</think>\n\nTwo.", False, ("\nHm\n", "\n\nTwo.")),
        ("\n <think></think>Two.", False, ("", "Two.")),
        ("<thin", False, ("", "<thin")),
        ("<think>Hm", False, ("Hm", "")),
        ("Hm</think>Two.", True, ("Hm", "Two.")),
        ("Hm", True, ("Hm", "")),
        ("Two. <think>no</think>", False, ("", "Two. <think>no</think>")),
        ("<think>a</think>b<think>c</think>", False, ("a", "b<think>c</think>")),
    ],
)
def test_thinking_and_answer(text: str, thinking: bool, expected: tuple[str, str]) -> None:
    assert _read(text, thinking=thinking) == expected


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<", "think", " ", "a"]), max_size=8).map("".join),
    st.lists(st.integers(0, 60), max_size=5),
    st.booleans(),
)
def test_it_does_not_matter_how_the_text_is_cut(text: str, cuts: list[int], thinking: bool) -> None:
    whole = _read(text, thinking=thinking)
    assert _read(text, tuple(sorted({cut for cut in cuts if cut < len(text)})), thinking=thinking) == whole
    assert "".join(whole).count("a") == text.count("a")


def test_a_prompt_may_end_within_the_thinking() -> None:
    assert opens_thinking("<|im_start|>assistant\n<think>\n")
    assert not opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens_thinking("")
