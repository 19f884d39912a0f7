"""`ctxkit plan` of a conversation, and --explain: what it prints is what the plan says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console

from ctxkit import Budget, TemplateCounter, fit_messages
from ctxkit.cli import plan as command
from ctxkit.context.counterfactual import explained

Cli = Callable[..., Any]
ASKED = "How many birds has the Zorblax colony?"
TOOLS = [{"type": "function", "function": {"name": "gauge", "description": "Read a gauge.", "parameters": {}}}]


def chat() -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "You watch rivers."}]
    for i in range(4):
        call = {"id": f"c{i}", "type": "function", "function": {"name": "gauge", "arguments": "{}"}}
        log = "\n".join(f"day {day} level {200 + day} cm of river {i}" for day in range(30))
        messages += [
            {"role": "user", "content": f"Read river {i}."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{i}", "content": log},
            {"role": "assistant", "content": f"River {i} rises."},
        ]
    return [*messages, {"role": "user", "content": "And now?"}]


@pytest.fixture
def chat_file(home: Path) -> Path:
    file = home / "chat.json"
    file.write_text(json.dumps(chat()), encoding="utf-8")
    return file


def test_a_conversation_is_planned_as_fit_messages_plans_it(
    chat_file: Path, ctxkit: Cli, cache: str, model_folder: Path
) -> None:
    ran = ctxkit("plan", "--messages", chat_file, "--window", "900", "--reserve", "100", CTXKIT_CACHE_DIR=cache)
    made = fit_messages(chat(), budget=Budget(900, 100), counter=TemplateCounter.from_folder(model_folder))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{made}\n"
    assert made.prompt_tokens > 400 and any(decision.level != "full" for decision in made.decisions)


@pytest.mark.parametrize("flag", ["--window", "--budget"])
def test_the_window_goes_by_two_names(chat_file: Path, ctxkit: Cli, cache: str, flag: str) -> None:
    made = ctxkit("plan", "--messages", chat_file, flag, "1200", "--json", CTXKIT_CACHE_DIR=cache).json
    assert (made["window_tokens"], made["reserve_tokens"]) == (1200, 256)
    assert "question" not in made
    spent = sum(one["tokens"] for one in made["decisions"]) + made["template_tokens"] + made["tools_tokens"]
    assert spent == made["prompt_tokens"] <= 944
    assert made["messages"][-1] == chat()[-1]


def test_tools_of_the_file_are_counted(chat_file: Path, ctxkit: Cli, cache: str, model_folder: Path) -> None:
    chat_file.write_text(json.dumps({"messages": chat(), "tools": TOOLS}))
    ran = ctxkit("plan", "--messages", chat_file, "--budget", "1500", CTXKIT_CACHE_DIR=cache)
    counter = TemplateCounter.from_folder(model_folder)
    assert ran.out == f"{fit_messages(chat(), tools=TOOLS, budget=Budget(1500, 256), counter=counter)}\n"


def test_a_dash_reads_standard_input(home: Path, ctxkit: Cli, cache: str) -> None:
    given = io.TextIOWrapper(io.BytesIO(json.dumps(chat()).encode()))
    with patch("sys.stdin", given):
        made = ctxkit("plan", "--messages", "-", "--budget", "1500", "--json", CTXKIT_CACHE_DIR=cache).json
    assert made["messages"][0] == chat()[0]


def test_repairs_are_printed(home: Path, ctxkit: Cli, cache: str) -> None:
    (home / "broken.json").write_text(json.dumps([{"role": "tool", "tool_call_id": "gone", "content": "x"}, *chat()]))
    ran = ctxkit("plan", "--messages", "broken.json", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 0
    assert [line for line in ran.out.splitlines() if line.startswith("repaired: message 0: ")]
    assert ctxkit("plan", "--messages", "broken.json", "--json", CTXKIT_CACHE_DIR=cache).json["repairs"]


def test_explain_follows_the_table(chat_file: Path, ctxkit: Cli, cache: str, model_folder: Path) -> None:
    options = ("plan", "--messages", chat_file, "--window", "900", "--reserve", "100")
    plain = ctxkit(*options, CTXKIT_CACHE_DIR=cache)
    ran = ctxkit(*options, "--explain", CTXKIT_CACHE_DIR=cache)
    made = fit_messages(chat(), budget=Budget(900, 100), counter=TemplateCounter.from_folder(model_folder))
    assert (ran.code, ran.err) == (0, "")
    table, _, told = ran.out.partition("\n\n")
    assert f"{table}\n" == plain.out
    assert [line.removeprefix("- ") for line in told.splitlines()] == explained(made)
    assert "+1,000 tokens would " in told and "A window of 1,024 tokens would " in told
    assert "would have to " in told or "not even alone" in told
    assert "whole at a window of " in told


def test_explain_works_for_a_question_and_as_json(indexed: Path, ctxkit: Cli, cache: str) -> None:
    options = ("plan", ASKED, "--budget", "300", "--explain")
    told = ctxkit(*options, CTXKIT_CACHE_DIR=cache).out.partition("\n\n")[2]
    made = ctxkit(*options, "--json", CTXKIT_CACHE_DIR=cache).json
    assert [f"- {line}" for line in made["explained"]] == told.splitlines()
    assert made["question"] == ASKED
    dropped = [one["id"] for one in made["decisions"] if one["level"] == "dropped"]
    assert dropped and all(any(name in line for line in made["explained"][4:]) for name in dropped)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_in_a_terminal_no_line_is_wider_than_it(
    chat_file: Path, ctxkit: Cli, cache: str, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, color_system=None, width=width, soft_wrap=True, highlight=False)
    monkeypatch.setattr(command, "STDOUT", terminal)
    ran = ctxkit("plan", "--messages", chat_file, "--window", "900", "--explain", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 0
    lines = shown.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    assert [line for line in lines if line.startswith("- ")]
    assert all(line.startswith(("- ", "  ")) for line in lines[lines.index(next(x for x in lines if x[:2] == "- ")) :])


def test_a_long_conversation_is_cut_in_the_table_and_whole_in_json(home: Path, ctxkit: Cli, cache: str) -> None:
    long = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"message {i}"} for i in range(601)]
    (home / "long.json").write_text(json.dumps(long))
    options = ("plan", "--messages", "long.json", "--window", "900")
    ran = ctxkit(*options, CTXKIT_CACHE_DIR=cache)
    assert "... and 401 more" in ran.out and len(ran.out.splitlines()) < 210
    assert len(ctxkit(*options, "--json", CTXKIT_CACHE_DIR=cache).json["decisions"]) == 601


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not JSON"),
        ("7", "`messages` is no list"),
        ('{"messages": "x"}', "`messages` is no list"),
        ('{"tools": []}', "`messages` is no list"),
        ("[1]", "`messages[0]` is no object"),
        ('{"messages": [{"role": "user", "content": "x"}], "tools": [3]}', "`tools[0]` is no object"),
        ('{"messages": [{"role": "user", "content": "x"}], "tools": {}}', "`tools` is no list"),
        ("[]", "it holds no messages"),
        ("[{}]", "0"),
        ('[{"role": "user", "content": 7}]', "0"),
        ("[" * 100_000, "not JSON"),
        (b"\xff", "not UTF-8 (byte 0)"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_holds_no_conversation_is_one_line(
    home: Path, ctxkit: Cli, cache: str, content: str | bytes | None, named: str
) -> None:
    if content is not None:
        (home / "chat.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = ctxkit("plan", "--messages", "chat.json", CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1 and named in ran.err and "unexpected" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "a question or --messages"),
        (["q", "--messages", "chat.json"], "a question or --messages"),
        (["--messages", "chat.json", "--index", "x"], "needs no index"),
        (["--messages", "chat.json", "--window", "50", "--reserve", "50"], "--reserve (50)"),
        (["--messages"], "--messages"),
    ],
)
def test_wrong_usage_exits_with_2(chat_file: Path, ctxkit: Cli, cache: str, arguments: list[str], named: str) -> None:
    ran = ctxkit("plan", *arguments, CTXKIT_CACHE_DIR=cache, COLUMNS="200")
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err and "Traceback" not in ran.err


def test_a_window_too_small_is_one_line_that_names_one_that_is_not(chat_file: Path, ctxkit: Cli, cache: str) -> None:
    options = ("plan", "--messages", chat_file, "--reserve", "10", "--explain")
    ran = ctxkit(*options, "--window", "30", CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("ctxkit: a budget of 30 tokens is too small, at least --budget ")
    needed = int(ran.err.split("--budget ")[1].split()[0].replace(",", ""))
    assert ctxkit(*options, "--window", needed, CTXKIT_CACHE_DIR=cache).code == 0
    assert ctxkit(*options, "--window", needed - 1, CTXKIT_CACHE_DIR=cache).code == 1


def test_a_refusal_names_the_largest_of_many_pinned_messages(home: Path, ctxkit: Cli, cache: str) -> None:
    many = [{"role": "system", "content": "rule " * (i + 1)} for i in range(40)]
    (home / "many.json").write_text(json.dumps([*many, {"role": "user", "content": "?"}]))
    ran = ctxkit("plan", "--messages", "many.json", "--window", "100", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 1 and "m39 " in ran.err and "more)" in ran.err and "m0 " not in ran.err
