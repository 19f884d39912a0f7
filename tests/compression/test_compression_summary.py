"""A summary is a level only where it is one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import pytest

from ctxkit.compression import SummaryCompressor, SummaryRejected
from ctxkit.context import Level, passage
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest
from ctxkit.testing import ScriptedModel, WhitespaceCounter

Groups = Callable[..., Group]

TEXT = "\n".join(f"The server {i} was started at noon. It has answered {i * 3} requests since then." for i in range(40))
WORDS = len(TEXT.split())


def levels(compressor: SummaryCompressor, group: Group, *, expandable: bool = False) -> list[Level]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list(compressor.levels(group, LevelRequest("", WhitespaceCounter(), expandable)))


def test_a_summary_replaces_the_text_and_is_asked_for_once(group_of: Groups) -> None:
    model, cache = ScriptedModel(["Forty servers run."]), dict[str, str]()
    group = group_of(passage(TEXT), passage("A short one."))
    (level,) = levels(SummaryCompressor(model, cache=cache), group)
    assert level.parts[0].content == "[summary of 40 lines]\nForty servers run."
    assert level.parts[1] is group.parts[1]
    assert [handle.part_id for handle in level.handles] == ["passage-1"]
    assert 0 < level.utility < 1
    assert levels(SummaryCompressor(ScriptedModel([]), cache=cache), group) == [level]
    (expandable,) = levels(SummaryCompressor(ScriptedModel([]), cache=cache), group, expandable=True)
    assert expandable.parts[0].content.startswith('[summary of 40 lines; expand("passage-1")]')


def test_nothing_is_asked_before_the_level_is(group_of: Groups) -> None:
    model = ScriptedModel(["Short."])
    SummaryCompressor(model).levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter()))
    assert model.prompts == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("word " * 3 * WORDS, "its source"),
        ("", "said nothing"),
        ("  \n", "said nothing"),
        ("bad \ufffd text", "FFFD"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        ([{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}], "said nothing"),
    ],
)
def test_what_is_no_summary_is_a_warning_and_no_level(group_of: Groups, reply: str, reason: str) -> None:
    compressor = SummaryCompressor(ScriptedModel([reply]), summary_tokens=4_000)
    with pytest.warns(SummaryRejected, match=reason):
        assert not list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter())))
    assert not compressor.cache


def test_a_text_beyond_the_window_is_summarised_in_pieces(group_of: Groups) -> None:
    def answer(request: object) -> str:
        return "Servers started at noon."

    model = ScriptedModel(answer, window_tokens=160)
    (level,) = levels(SummaryCompressor(model, summary_tokens=30), group_of(passage(TEXT)))
    assert len(model.prompts) > 2
    assert level.parts[0].content.endswith("Servers started at noon.")
    counter = WhitespaceCounter()
    assert all(counter.render(prompt.messages).tokens + 30 <= 160 for prompt in model.prompts)


def test_one_line_beyond_the_window_is_summarised_in_pieces(group_of: Groups) -> None:
    model = ScriptedModel(lambda request: "Much of the same.", window_tokens=160)
    (level,) = levels(SummaryCompressor(model, summary_tokens=30), group_of(passage("again and again " * 400)))
    assert level.parts[0].content.endswith("Much of the same.")


def test_a_window_without_room_is_a_warning(group_of: Groups) -> None:
    compressor = SummaryCompressor(ScriptedModel(["x"], window_tokens=40))
    with pytest.warns(SummaryRejected, match="no room"):
        assert not list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter())))


def test_summaries_of_json_are_json_and_verbatim_parts_stay(group_of: Groups) -> None:
    rows = json.dumps([{"server": i, "started at": "noon on that day"} for i in range(60)])
    group = group_of(passage(rows), passage(TEXT, verbatim=True))
    (level,) = levels(SummaryCompressor(ScriptedModel(['Sixty "servers".'])), group)
    assert json.loads(level.parts[0].content) == {"[summary of 1 line]": 'Sixty "servers".'}
    assert level.parts[1] is group.parts[1]


def test_a_summary_is_not_summarised_again(group_of: Groups) -> None:
    (level,) = levels(SummaryCompressor(ScriptedModel(["word " * 100])), group_of(passage(TEXT)))
    assert levels(SummaryCompressor(ScriptedModel([])), Group(0, (0,), level.parts)) == []


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="summary_tokens"):
        SummaryCompressor(ScriptedModel([]), summary_tokens=0)
    with pytest.raises(ValueError, match="utility"):
        SummaryCompressor(ScriptedModel([]), utility=0)
