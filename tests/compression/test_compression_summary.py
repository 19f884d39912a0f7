"""A summary is a level only where it is one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxkit.compression import CentroidCompressor, SummaryCompressor, SummaryRejected
from ctxkit.compression.summaries.clip import clipped, finished
from ctxkit.context import Level, passage
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest
from ctxkit.errors import StoreError
from ctxkit.protocols import Counter, Reply
from ctxkit.session import SqliteOriginals
from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_model

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


LONG_ANSWER = " ".join(f"Server {i} runs." for i in range(60))


@pytest.mark.parametrize("cap", [12, 40, 150, 400])
def test_what_stands_in_the_prompt_holds_the_cap_in_the_targets_tokens(
    cap: int, group_of: Groups, counter: Counter
) -> None:
    compressor = SummaryCompressor(ScriptedModel([LONG_ANSWER]), summary_tokens=cap)
    request = LevelRequest("", counter)  # nearly a token for each character
    if cap == 12:
        with pytest.warns(SummaryRejected, match="no room for a word beside its heading"):
            assert not list(compressor.levels(group_of(passage(TEXT)), request))
        return
    (level,) = compressor.levels(group_of(passage(TEXT)), request)
    content = level.parts[0].content
    assert counter.count(content) <= cap
    assert content.endswith("runs.")
    assert counter.count(content) > cap - 20


@pytest.mark.parametrize("cap", [40, 150])
def test_a_summary_of_json_holds_the_cap_and_stays_json(cap: int, group_of: Groups, counter: Counter) -> None:
    rows = json.dumps([{"server": i, "state": "up"} for i in range(90)])
    compressor = SummaryCompressor(ScriptedModel(['All "up". ' * 50]), summary_tokens=cap)
    (level,) = compressor.levels(group_of(passage(rows)), LevelRequest("", counter))
    content = level.parts[0].content
    assert counter.count(content) <= cap
    assert json.loads(content)["[summary of 1 line]"].startswith('All "up".')


def test_an_answer_that_was_cut_by_its_length_ends_with_a_whole_sentence(group_of: Groups) -> None:
    compressor = SummaryCompressor(ScriptedModel([LONG_ANSWER]), summary_tokens=20)
    (level,) = levels(compressor, group_of(passage(TEXT)))
    assert level.parts[0].content.split("\n")[1].split(". ")[-1].endswith("runs.")
    assert all(len(summary.split()) <= 20 for summary in compressor.cache.values())


def test_a_server_that_does_not_care_for_max_tokens_does_not_break_the_cap(group_of: Groups) -> None:
    class Rambling(ScriptedModel):
        def generate(self, prompt: object, sampling: object = None) -> Reply:  # type: ignore[override]
            return Reply(LONG_ANSWER, "stop", 1, 180, self.name)

    cache = dict[str, str]()
    levels(SummaryCompressor(Rambling([]), cache=cache, summary_tokens=30), group_of(passage(TEXT)))
    (summary,) = cache.values()
    assert len(summary.split()) == 30


@pytest.mark.parametrize(
    ("text", "chars", "expected"),
    [
        ("It rains. It pours all day.", 12, "It rains."),
        ("Yes! It rains and it pours all day long.", 25, "Yes! It rains and it…"),
        ("one\ntwo\nthree", 9, "one\ntwo"),
        ("雨が降る。風が吹く。寒い", 11, "雨が降る。風が吹く。"),
        ("e\u0301" * 9, 6, "e\u0301e\u0301…"),
        ("short", 9, "short"),
        ("", 9, ""),
        ("long", 0, None),
    ],
)
def test_a_text_is_clipped_where_a_sentence_ends_if_that_costs_little(
    text: str, chars: int, expected: str | None
) -> None:
    assert clipped(text, lambda shorter: len(shorter) <= chars) == expected


@pytest.mark.parametrize(("cut", "whole"), [("Rain. Sn", "Rain."), ("Rain.", "Rain."), ("abc de", "abc…"), ("a", "a")])
def test_an_unfinished_text_is_finished_before_it_breaks_off(cut: str, whole: str) -> None:
    assert finished(cut) == whole


def test_fifty_thousand_tokens_go_through_a_window_of_64(group_of: Groups) -> None:
    def answer(request: object) -> str:
        words = prompt_of(request).split()[1:]
        return " ".join(words[: len(words) // 2]) or "nothing"

    model = ScriptedModel(answer, window_tokens=64)
    source = " ".join(f"w{i}" + "." * (i % 9 == 0) for i in range(50_000))
    compressor = SummaryCompressor(model, instruction="Summarise:\n", for_question=False, summary_tokens=30)
    (level,) = levels(compressor, group_of(passage(source)))
    assert WhitespaceCounter().count(level.parts[0].content) <= 30
    assert all(WhitespaceCounter().render(one.messages).tokens + 16 <= 64 for one in model.prompts)
    assert len(model.prompts) < 3_000


def prompt_of(request: object) -> str:
    (message,) = request.messages  # type: ignore[attr-defined]
    return str(message.content)


def test_an_instruction_that_fills_the_window_is_named(group_of: Groups) -> None:
    compressor = SummaryCompressor(ScriptedModel([], window_tokens=56))
    with pytest.warns(SummaryRejected, match="56 tokens has no room .* shorter `instruction`"):
        assert not list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter())))


def test_a_model_that_shortens_nothing_is_asked_for_one_round_only(group_of: Groups) -> None:
    class Parrot(ScriptedModel):
        def generate(self, prompt: object, sampling: object = None) -> Reply:  # type: ignore[override]
            self.prompts.append(prompt)  # type: ignore[arg-type]
            said = prompt[0]["content"].removeprefix("Summarise:\n")  # type: ignore[index]
            return Reply(said, "stop", 1, 1, self.name)

    model = Parrot([], window_tokens=100)
    compressor = SummaryCompressor(model, instruction="Summarise:\n")
    with pytest.warns(SummaryRejected, match="summaries of its .* pieces are no shorter"):
        assert not list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter())))
    assert 5 < len(model.prompts) < 20


def test_a_short_last_piece_that_cannot_be_shortened_stays_as_it_is(group_of: Groups) -> None:
    def answer(request: object) -> str:
        said = prompt_of(request)
        return "word " * 60 if "the end" in said and len(said.split()) < 60 else "Much of the same."

    model = ScriptedModel(answer, window_tokens=200)
    text = "again and again. " * 200 + "x. " * 20 + "the end."
    assert levels(SummaryCompressor(model, instruction="Sum:\n", summary_tokens=99), group_of(passage(text)))


def test_half_a_surrogate_pair_is_summarised_and_asked_about(group_of: Groups, counter: Counter) -> None:
    model = ScriptedModel(["Many servers."], counter=counter)
    compressor = SummaryCompressor(model)
    (level,) = compressor.levels(group_of(passage(TEXT + "\ud800")), LevelRequest("why \ud800?", counter))
    assert level.parts[0].content.endswith("Many servers.")


@pytest.mark.parametrize("reply", ["", RuntimeError("down"), "bad \ufffd text", "word " * 3 * WORDS])
def test_a_fallback_takes_over_and_says_that_no_model_was_at_it(group_of: Groups, reply: str) -> None:
    compressor = SummaryCompressor(ScriptedModel([reply]), summary_tokens=4_000, fallback=CentroidCompressor())
    with pytest.warns(SummaryRejected):
        made = list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter())))
    assert made
    assert all(level.method.startswith("extractive summary, no model") for level in made)


@pytest.mark.parametrize("seed", range(4))
def test_the_gibberish_of_a_real_model_is_a_capped_text_or_a_warning(seed: int, group_of: Groups) -> None:
    pytest.importorskip("transformers")
    model = tiny_model(seed, window_tokens=512)
    compressor = SummaryCompressor(model, instruction="Sum:\n", summary_tokens=90, for_question=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SummaryRejected)
        made = list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", model.counter)))
    assert bool(made) != any(one.category is SummaryRejected for one in caught)
    for level in made:
        assert model.counter.count(level.parts[0].content) <= 90
        assert "\ufffd" not in level.parts[0].content


def test_a_fallback_is_not_asked_where_there_is_a_summary(group_of: Groups) -> None:
    compressor = SummaryCompressor(ScriptedModel(["Short."]), fallback=CentroidCompressor())
    assert [level.name for level in levels(compressor, group_of(passage(TEXT)))] == ["summary"]


def test_a_summary_on_disk_survives_a_kill(tmp_path: Path, group_of: Groups) -> None:
    code = (
        "import os, signal, sys\n"
        "from ctxkit.compression import SummaryCompressor\n"
        "from ctxkit.context import LevelRequest, passage\n"
        "from ctxkit.context.group import grouped, identified\n"
        "from ctxkit.session import SqliteOriginals\n"
        "from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_model\n"
        "compressor = SummaryCompressor(ScriptedModel(['Forty servers.']), cache=SqliteOriginals(sys.argv[1]))\n"
        "(group,) = grouped(identified([passage(sys.argv[2])]))\n"
        "assert list(compressor.levels(group, LevelRequest('', WhitespaceCounter())))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "summaries.sqlite"
    killed = subprocess.run([sys.executable, "-c", code, str(path), TEXT], env=os.environ | {"PYTHONPATH": _path()})
    assert killed.returncode == -signal.SIGKILL
    with SqliteOriginals(path) as cache:
        (level,) = levels(SummaryCompressor(ScriptedModel([]), cache=cache), group_of(passage(TEXT)))
    assert level.parts[0].content.endswith("Forty servers.")


def _path() -> str:
    return os.pathsep.join(sys.path)


def test_a_cache_that_fails_costs_a_warning_and_no_summary(group_of: Groups, tmp_path: Path) -> None:
    cache = SqliteOriginals(tmp_path / "s.sqlite")
    cache.close()
    compressor = SummaryCompressor(ScriptedModel(["Forty servers."]), cache=cache)
    with pytest.warns(RuntimeWarning, match="the store is closed") as caught:
        assert list(compressor.levels(group_of(passage(TEXT)), LevelRequest("", WhitespaceCounter())))
    assert len(caught) == 2
    with pytest.raises(StoreError):
        cache["a"] = "b"
