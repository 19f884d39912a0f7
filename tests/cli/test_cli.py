"""The command line: results on stdout, all else on stderr, one line for a failure, exit codes that mean something."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ctxkit import __version__
from ctxkit.cli import models, plan
from ctxkit.cli.app import app
from ctxkit.context.report import shortened
from ctxkit.tokens import TemplateCounter

Cli = Callable[..., Any]
ASKED = "How many birds has the Zorblax colony?"


def _one_line(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


# --- index ---------------------------------------------------------------------------------------------------------


def test_index_says_what_it_did(docs: Path, ctxkit: Cli) -> None:
    ran = ctxkit("index", "docs")
    assert ran.code == 0
    assert ran.out == (
        "3 added, 0 changed, 0 unchanged, 0 removed, 0 skipped; 3 chunks written; 3 passages in .ctxkit\n"
    )
    assert "3/3" in ran.err
    assert ctxkit("index", "docs").out.startswith("0 added, 0 changed, 3 unchanged")


def test_index_as_json(docs: Path, ctxkit: Cli) -> None:
    (docs / "empty.txt").touch()
    ran = ctxkit("index", "docs", "--json")
    assert ran.code == 3
    assert ran.json == {
        "index": ".ctxkit",
        "passages": 3,
        "added": ["docs/deep/möss.md", "docs/penguins.md", "docs/trains.txt"],
        "changed": [],
        "unchanged": [],
        "removed": [],
        "skipped": [{"path": "docs/empty.txt", "reason": "empty file"}],
        "chunks": 3,
    }


def test_skipped_files_are_named_one_line_each_and_the_exit_code_is_3(docs: Path, ctxkit: Cli) -> None:
    (docs / "latin.txt").write_bytes(b"caf\xe9")
    (docs / "empty.txt").touch()
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    ran = ctxkit("index", "docs")
    assert ran.code == 3
    assert ran.out.startswith("3 added")
    told = [line for line in ran.err.splitlines() if line.startswith("skipped ")]
    assert [line.split(":")[0] for line in told] == [
        "skipped docs/empty.txt",
        "skipped docs/broken.pdf",
        "skipped docs/latin.txt",
    ]
    assert "Traceback" not in ran.err


def test_a_record_that_is_left_out_is_told_and_the_others_are_in(docs: Path, ctxkit: Cli) -> None:
    (docs / "records.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    ran = ctxkit("index", "docs", "--json")
    assert ran.code == 3
    assert "skipped docs/records.jsonl: not JSON in 1 line(s): 2" in ran.err
    assert "docs/records.jsonl" in json.loads(ran.out)["added"]
    assert ctxkit("index", "docs").code == 0, "nothing is read again, nothing is removed"


def test_paths_that_do_not_exist_make_no_index(home: Path, ctxkit: Cli) -> None:
    ran = ctxkit("index", "nowhere", "--to", "new")
    assert (ran.code, ran.out) == (2, "")
    assert "nowhere" in ran.err
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("place", ["docs/penguins.md", "/dev/null/x"])
def test_an_index_that_cannot_be_made_is_one_line(docs: Path, ctxkit: Cli, place: str) -> None:
    ran = ctxkit("index", "docs", "--to", place)
    assert (ran.code, ran.out) == (1, "")
    assert _one_line(ran.err) and place.split("/x")[0] in ran.err


# --- pack ----------------------------------------------------------------------------------------------------------


def test_pack_prints_the_context_and_nothing_else_on_stdout(indexed: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("pack", ASKED, CTXKIT_CACHE_DIR=cache)
    assert ran.code == 0
    assert ran.out.startswith("[1] Penguins\n# Penguins\n\nThe Zorblax penguin colony has 4321 birds.\n\n[2] ")
    assert ran.err.splitlines()[0] == "[1] docs/penguins.md:1-3"
    assert ran.err.splitlines()[-1].endswith(f"of 2,000 tokens, {'smollm2-135m-instruct'} (text)")


def test_what_pack_prints_takes_at_most_the_budget(indexed: Path, ctxkit: Cli, model_folder: Path) -> None:
    counter = TemplateCounter.from_folder(model_folder).as_text()
    whole = counter.count(ctxkit("pack", ASKED, "--model", model_folder).out)
    kept = set()
    for budget in range(70, whole + 3):
        ran = ctxkit("pack", ASKED, "--budget", budget, "--model", model_folder)
        assert ran.code == 0
        assert 0 < counter.count(ran.out) <= budget
        kept.add(ran.out)
    assert len(kept) >= 3


def test_pack_as_json(indexed: Path, ctxkit: Cli, cache: str) -> None:
    packed = ctxkit("pack", ASKED, "--budget", "90", "--json", CTXKIT_CACHE_DIR=cache).json
    assert packed["question"] == ASKED
    assert "4321" in packed["text"]
    assert packed["prompt_tokens"] <= packed["window_tokens"] == 90
    assert packed["reserve_tokens"] == 0 and packed["exact"] is True
    decisions = {one["source"]: one for one in packed["decisions"]}
    assert decisions["docs/penguins.md:1-3"]["number"] == 1
    assert sum(one["tokens"] for one in packed["decisions"]) + packed["template_tokens"] == packed["prompt_tokens"]
    assert [one for one in decisions.values() if one["level"] == "dropped" and one["enters_at"]]


def test_without_a_prepared_model_the_count_is_a_stated_upper_bound(indexed: Path, ctxkit: Cli, home: Path) -> None:
    ran = ctxkit("pack", ASKED, "--json", CTXKIT_CACHE_DIR=str(home / "none"))
    assert ran.json["exact"] is False
    assert "not prepared: tokens are an upper bound (ctxkit models prepare smollm2-135m-instruct)" in ran.err


def test_unicode_goes_through(indexed: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("pack", "wo wächst möss 🌿 コケ", "--candidates", "1", CTXKIT_CACHE_DIR=cache)
    assert "Purple möss 🌿 grows" in ran.out
    assert "docs/deep/möss.md:1-3" in ran.err
    assert "\\u" not in ctxkit("pack", "möss 🌿", "--json", CTXKIT_CACHE_DIR=cache).out


def test_an_empty_index_says_how_to_fill_it(docs: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("pack", ASKED, CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (1, "")
    assert _one_line(ran.err) and "holds no passages" in ran.err and "ctxkit index" in ran.err


# --- plan ----------------------------------------------------------------------------------------------------------


def test_plan_is_one_line_per_part_when_piped(indexed: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("plan", ASKED, "--budget", "300", CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.err) == (0, "")
    head, *rows = ran.out.splitlines()
    assert "of 225 prompt tokens (exact, smollm2-135m-instruct)" in head and "75 reserved for the answer" in head
    assert len(rows) == 10  # rule, two examples of two turns, three passages, question, template
    assert any("docs/penguins.md:1-3" in row and " full " in row for row in rows)
    assert any(" dropped " in row and "in at" in row for row in rows)


def test_plan_as_json_adds_up(indexed: Path, ctxkit: Cli, cache: str) -> None:
    made = ctxkit("plan", ASKED, "--budget", "400", "--reserve", "100", "--json", CTXKIT_CACHE_DIR=cache).json
    assert (made["window_tokens"], made["reserve_tokens"]) == (400, 100)
    assert made["prompt_tokens"] + made["free_tokens"] == 300
    spent = sum(one["tokens"] for one in made["decisions"]) + made["template_tokens"] + made["tools_tokens"]
    assert spent == made["prompt_tokens"]
    assert [message["role"] for message in made["messages"]] == ["system", "user"]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_in_a_terminal_no_source_is_broken_in_two(
    docs: Path, ctxkit: Cli, cache: str, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    long = docs / "a_folder_with_quite_a_long_name" / "and-a-file-whose-name-goes-on-and-on.md"
    long.parent.mkdir()
    long.write_text("# Birds\n\nThe birds of the colony.\n")
    ctxkit("index", "docs")
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, color_system=None, width=width, soft_wrap=True, highlight=False)
    monkeypatch.setattr(plan, "STDOUT", terminal)
    assert ctxkit("plan", ASKED, CTXKIT_CACHE_DIR=cache).code == 0
    lines = shown.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    text = shown.getvalue()
    assert ("docs/penguins.md:1-3 " if width >= 80 else "penguins.md:1-3 ") in text
    assert "and-on.md:1-3 " in text
    assert (f"{long.relative_to(docs.parent).as_posix()}:1-3" in text) == (width == 140)


def test_a_source_is_shortened_from_the_left_only_where_it_does_not_fit() -> None:
    assert shortened("docs/budget.md:1-3", 18) == "docs/budget.md:1-3"
    assert shortened("docs/budget.md:1-3", 17) == "…cs/budget.md:1-3"
    assert shortened("文書/予算.md:1", 9) == "…算.md:1"  # 算 takes two cells, 予 would be the tenth


# --- count ---------------------------------------------------------------------------------------------------------


def test_count_is_the_tokenizers_own_count(home: Path, ctxkit: Cli, model_folder: Path) -> None:
    (home / "a.txt").write_bytes(b"one two\r\nthree <|im_start|>\r\n")
    (home / "b.txt").write_bytes("möss 🌿".encode())
    counter = TemplateCounter.from_folder(model_folder)
    expected = {name: counter.count((home / name).read_bytes().decode()) for name in ("a.txt", "b.txt")}
    ran = ctxkit("count", "a.txt", "b.txt", "--model", model_folder, "--json")
    assert ran.json == {
        "counter": model_folder.name,
        "exact": True,
        "tokens": expected,
        "total": sum(expected.values()),
    }
    text = ctxkit("count", "a.txt", "b.txt", "--model", model_folder)
    assert [line.split() for line in text.out.splitlines()] == [
        *([str(tokens), name] for name, tokens in expected.items()),
        [str(sum(expected.values())), "total"],
    ]


def test_count_reads_standard_input(home: Path, ctxkit: Cli, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1 2\r\n3")))
    assert ctxkit("count", "-", CTXKIT_CACHE_DIR=cache).out == "         6  -\n"


@pytest.mark.parametrize(("name", "reason"), [("none.txt", "No such file"), ("l.txt", "not UTF-8"), (".", "directory")])
def test_what_cannot_be_counted_is_one_line(home: Path, ctxkit: Cli, cache: str, name: str, reason: str) -> None:
    (home / "l.txt").write_bytes(b"caf\xe9")
    ran = ctxkit("count", name, CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (1, "")
    assert _one_line(ran.err) and reason in ran.err and name in ran.err


# --- models --------------------------------------------------------------------------------------------------------


def test_models_list_says_what_is_prepared(home: Path, ctxkit: Cli, cache: str, model_folder: Path) -> None:
    ran = ctxkit("models", "list", CTXKIT_CACHE_DIR=cache)
    head, row = ran.out.splitlines()
    assert head.split() == ["name", "prepared", "window", "size", "licence", "where"]
    assert row.startswith("smollm2-135m-instruct  yes ") and row.endswith(str(model_folder))
    not_yet = ctxkit("models", "list", CTXKIT_CACHE_DIR=str(home))
    assert "  no " in not_yet.out and "ctxkit models prepare smollm2-135m-instruct" in not_yet.out


def test_models_list_as_json(ctxkit: Cli, home: Path, cache: str, model_folder: Path) -> None:
    (one,) = ctxkit("models", "list", "--json", CTXKIT_CACHE_DIR=cache).json
    assert (one["name"], one["prepared"], one["where"]) == ("smollm2-135m-instruct", True, str(model_folder))
    (one,) = ctxkit("models", "list", "--json", CTXKIT_CACHE_DIR=str(home)).json
    assert (one["prepared"], one["where"]) == (False, None)


def test_in_a_narrow_terminal_a_folder_has_a_line_of_its_own(
    ctxkit: Cli, cache: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "STDOUT", Console(force_terminal=True, width=80))
    lines = ctxkit("models", "list", CTXKIT_CACHE_DIR=cache).out.splitlines()
    assert str(model_folder) in lines
    assert all(len(line) <= 80 for line in lines if line != str(model_folder))


def test_preparing_what_is_prepared_prints_its_folder(ctxkit: Cli, cache: str, model_folder: Path) -> None:
    ran = ctxkit("models", "prepare", "smollm2-135m-instruct", CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (0, f"{model_folder}\n")


def test_inspecting_a_model_maps_its_heads(ctxkit: Cli, home: Path, model_folder: Path) -> None:
    ran = ctxkit("models", "inspect", model_folder, CTXKIT_CACHE_DIR=str(home))
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert "2 layers, 4 heads on 2 KV heads of 16 dimensions" in lines
    assert "trained window: 4,096 tokens; keys and values: 512 bytes per token" in lines
    start = next(number for number, line in enumerate(lines) if "rests on the first tokens" in line)
    for layer, line in enumerate(lines[start + 1 : start + 3]):
        number, *groups = line.split()
        assert int(number) == layer
        assert [len(group) for group in groups] == [2, 2, 2, 2]
        assert set("".join(groups)) <= set(".123456789")
    assert len(list((home / "profiles").glob("*.npz"))) == 1


def test_inspecting_in_a_narrow_terminal_puts_one_map_below_the_other(
    ctxkit: Cli, home: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "STDOUT", Console(width=40))
    lines = [
        line.strip() for line in ctxkit("models", "inspect", model_folder, CTXKIT_CACHE_DIR=str(home)).out.splitlines()
    ]
    assert lines.index("rests on the first tokens") < lines.index("retrieves")


def test_inspecting_as_json_and_as_a_picture(ctxkit: Cli, home: Path, model_folder: Path) -> None:
    ran = ctxkit("models", "inspect", model_folder, "--json", "--png", "map.png", CTXKIT_CACHE_DIR=str(home))
    assert (ran.json["layers"], ran.json["turnable"], ran.json["sliding"]) == (2, True, {})
    assert np.shape(ran.json["sink"]) == (2, 4)
    assert (home / "map.png").read_bytes().startswith(b"\x89PNG")


def test_inspecting_what_is_no_model_is_one_line(ctxkit: Cli, home: Path) -> None:
    ran = ctxkit("models", "inspect", home / "nothing", CTXKIT_CACHE_DIR=str(home))
    assert ran.code == 1
    assert _one_line(ran.err)


def test_preparing_an_unknown_model_names_the_known_ones(ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("models", "prepare", "gpt-7", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 1
    assert "ctxkit: no known model 'gpt-7'; known: smollm2-135m-instruct" in ran.err


# --- ask -----------------------------------------------------------------------------------------------------------


def test_ask_answers_from_a_model_folder(indexed: Path, ctxkit: Cli, model_folder: Path) -> None:
    options = ("ask", ASKED, "--budget", "500", "--reserve", "8", "--model", model_folder)
    ran = ctxkit(*options)
    assert ran.code == 0
    assert ran.out.endswith("\n")
    assert "answer tokens of 500" in ran.err.splitlines()[-1]
    written = ctxkit(*options, "--json")
    assert written.code == 0
    found = written.json
    assert found["question"] == ASKED
    assert found["cited_answer"] + "\n" == ran.out
    assert found["prompt_tokens"] == found["plan"]["prompt_tokens"] <= 492
    assert 1 <= found["completion_tokens"] <= 8
    assert found["finish_reason"] in ("stop", "length")


def test_ask_takes_the_prepared_model_of_the_cache(indexed: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("ask", ASKED, "--budget", "400", "--reserve", "4", CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.err.splitlines()[-1].endswith("smollm2-135m-instruct")) == (0, True)


def test_a_budget_beyond_the_models_window_is_cut_to_it(indexed: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("ask", ASKED, "--budget", "100000", "--reserve", "4", "--json", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 0
    assert (ran.json["plan"]["window_tokens"], ran.json["plan"]["reserve_tokens"]) == (4096, 4)
    assert "cut to the window" in ran.err


def test_one_seed_gives_one_answer(indexed: Path, ctxkit: Cli, cache: str) -> None:
    def said(seed: int) -> str:
        options = ("--budget", "400", "--reserve", "12", "--temperature", "1.5", "--seed", seed)
        return str(ctxkit("ask", ASKED, *options, CTXKIT_CACHE_DIR=cache).out)

    assert said(1) == said(1) != said(2)


def test_ask_of_a_model_that_is_not_prepared_says_how(indexed: Path, ctxkit: Cli, home: Path) -> None:
    ran = ctxkit("ask", ASKED, CTXKIT_CACHE_DIR=str(home / "none"))
    assert (ran.code, ran.out) == (1, "")
    assert _one_line(ran.err) and "ctxkit models prepare smollm2-135m-instruct" in ran.err


def test_ask_a_server(indexed: Path, ctxkit: Cli, server: Any) -> None:
    ran = ctxkit("ask", ASKED, "--base-url", server.url, "--model", "big", "--reserve", "40", CTXKIT_API_KEY="s3cret")
    assert ran.code == 0
    number = ran.out.removeprefix("The Zorblax colony has 4321 birds. ").split()[0]
    assert ran.out.strip() == f"The Zorblax colony has 4321 birds. {number} Bananas are yellow."
    assert ran.err.splitlines()[0] == f"{number} docs/penguins.md:1-3  Penguins"
    assert "s3cret" not in ran.out + ran.err
    ((body, key),) = server.seen
    assert (body["model"], body["max_tokens"], body["stream"], key) == ("big", 40, True, "Bearer s3cret")
    assert ASKED in body["messages"][-1]["content"]


def test_ask_a_server_as_json_lists_only_the_cited_source(indexed: Path, ctxkit: Cli, server: Any) -> None:
    found = ctxkit("ask", ASKED, "--base-url", server.url, "--model", "big", "--json").json
    (source,) = found["sources"]
    assert (source["source"], source["title"]) == ("docs/penguins.md:1-3", "Penguins")
    assert found["citations"] == [
        {"sentence": "The Zorblax colony has 4321 birds.", "numbers": [source["number"]], "support": 1.0}
    ]
    assert source["id"] in [one["id"] for one in found["plan"]["decisions"]]
    assert found["plan"]["exact"] is False
    kinds = [one["kind"] for one in found["plan"]["decisions"]]
    assert kinds == ["system", *["turn"] * 4, *["passage"] * 3, "question"]


def test_a_server_without_a_named_model_is_asked_for_its_first(indexed: Path, ctxkit: Cli, server: Any) -> None:
    assert ctxkit("ask", ASKED, "--base-url", server.url).code == 0
    assert ctxkit("ask", ASKED, "--base-url", server.url, CTXKIT_MODEL="named").code == 0
    assert [body["model"] for body, _ in server.seen] == ["first-model", "named"]


# --- usage, failures, environment ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["frob"], "frob"),
        (["pack"], "question"),
        (["pack", ""], "empty"),
        (["pack", " \n"], "empty"),
        (["pack", "\udcff"], "UTF-8"),
        (["pack", "q", "--budget", "0"], "--budget"),
        (["pack", "q", "--budget", "many"], "--budget"),
        (["pack", "q", "--nonsense"], "--nonsense"),
        (["pack", "q", "--candidates", "0"], "--candidates"),
        (["plan", "q", "--budget", "40", "--reserve", "40"], "--reserve (40)"),
        (["ask", "q", "--temperature", "-1"], "--temperature"),
        (["ask", "q", "--base-url", "host:8000"], "--base-url"),
        (["index"], "paths"),
        (["count"], "files"),
        (["models", "prepare"], "name"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_what_is_wrong(
    indexed: Path, ctxkit: Cli, cache: str, arguments: list[str], named: str
) -> None:
    ran = ctxkit(*arguments, CTXKIT_CACHE_DIR=cache, COLUMNS="200")
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("command", ["pack", "plan", "ask"])
def test_a_missing_index_names_the_command_that_makes_it(home: Path, ctxkit: Cli, cache: str, command: str) -> None:
    ran = ctxkit(command, "q", CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "ctxkit: there is no index at .ctxkit. Make one: ctxkit index FOLDER --to .ctxkit\n"


@pytest.mark.parametrize(("command", "budget"), [("plan", "60"), ("ask", "60"), ("pack", "3")])
def test_a_budget_too_small_for_the_question_is_one_clear_line(
    indexed: Path, ctxkit: Cli, cache: str, command: str, budget: str
) -> None:
    ran = ctxkit(command, ASKED, "--budget", budget, CTXKIT_CACHE_DIR=cache)
    assert (ran.code, ran.out) == (1, "")
    assert _one_line(ran.err) and f"a budget of {budget} tokens is too small" in ran.err
    needed = ran.err.split("--budget ")[1].split()[0].replace(",", "")
    reserve = ("--reserve", "15") if command != "pack" else ()
    assert ctxkit(command, ASKED, "--budget", needed, *reserve, CTXKIT_CACHE_DIR=cache).code == 0


def test_a_default_reserve_leaves_most_of_a_small_budget(indexed: Path, ctxkit: Cli, cache: str) -> None:
    def reserve(*arguments: str, **environment: str) -> int:
        made = ctxkit("plan", ASKED, *arguments, "--json", CTXKIT_CACHE_DIR=cache, **environment).json
        return int(made["reserve_tokens"])

    assert reserve("--budget", "400") == 100
    assert reserve() == reserve("--budget", "3000") == 256
    assert reserve("--budget", "400", CTXKIT_RESERVE="120") == 120
    assert reserve("--budget", "400", "--reserve", "130", CTXKIT_RESERVE="120") == 130


def test_the_environment_sets_defaults_and_flags_win(
    indexed: Path, home: Path, ctxkit: Cli, cache: str, model_folder: Path
) -> None:
    os.rename(home / ".ctxkit", home / "elsewhere")
    environment = {"CTXKIT_INDEX": "elsewhere", "CTXKIT_BUDGET": "90", "CTXKIT_CACHE_DIR": cache}
    packed = ctxkit("pack", ASKED, "--json", **environment)
    assert packed.json["window_tokens"] == 90
    assert ctxkit("pack", ASKED, "--budget", "100", "--json", **environment).json["window_tokens"] == 100
    missing = ctxkit("pack", ASKED, "--index", "nowhere", **environment)
    assert (missing.code, "no index at nowhere" in missing.err) == (1, True)
    counted = ctxkit("pack", ASKED, "--json", **{**environment, "CTXKIT_MODEL": str(model_folder)})
    assert counted.json["counter"] == f"{model_folder.name} (text)"
    assert ctxkit("index", "docs", **environment).out.endswith("passages in elsewhere\n")


@pytest.mark.parametrize(
    ("name", "value"), [("CTXKIT_BUDGET", "abc"), ("CTXKIT_BUDGET", "-1"), ("CTXKIT_RESERVE", "0")]
)
def test_a_variable_that_makes_no_sense_is_wrong_usage(indexed: Path, ctxkit: Cli, name: str, value: str) -> None:
    ran = ctxkit("plan", "q", **{name: value, "COLUMNS": "200"})
    assert (ran.code, ran.out) == (2, "")
    assert f"{name}='{value}'" in ran.err
    assert "Traceback" not in ran.err


def test_an_empty_variable_counts_as_absent(indexed: Path, ctxkit: Cli, cache: str) -> None:
    ran = ctxkit("pack", ASKED, CTXKIT_BUDGET="", CTXKIT_MODEL="", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 0


@pytest.mark.parametrize("arguments", [["--debug", "pack", "q"], ["pack", "q", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(home: Path, arguments: list[str]) -> None:
    done = _process(*arguments, cwd=home)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "IndexNotFound" in done.stderr


def test_an_unexpected_error_is_one_line_too(
    indexed: Path, ctxkit: Cli, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("ctxkit.pipeline.Pipeline.pack", broken)
    ran = ctxkit("pack", "q", CTXKIT_CACHE_DIR=cache)
    assert ran.code == 1
    assert ran.err == "ctxkit: unexpected KeyError: 'surprise' (--debug shows the traceback)\n"


def test_the_app_runs_under_the_typer_runner(home: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["--version"])
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, f"ctxkit {__version__}\n", "")
    helped = runner.invoke(app, ["--help"])
    assert all(verb in helped.stdout for verb in ("index", "pack", "ask", "plan", "count", "models"))
    assert runner.invoke(app, ["models", "list", "--json"]).exit_code == 0
    assert runner.invoke(app, ["nonsense"]).exit_code == 2


def test_help_tells_defaults_and_variables(ctxkit: Cli) -> None:
    shown = " ".join(ctxkit("ask", "--help", COLUMNS="200").out.split())
    assert "(env: CTXKIT_BUDGET; default: 2000)" in shown
    assert "(env: CTXKIT_INDEX; default: .ctxkit)" in shown


# --- as a process --------------------------------------------------------------------------------------------------


def _process(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CTXKIT_")}
    return subprocess.run(
        [sys.executable, "-m", "ctxkit", *arguments],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def test_exit_codes_of_the_process(docs: Path, home: Path, cache: str) -> None:
    (docs / "empty.txt").touch()
    skipped = _process("index", "docs", cwd=home)
    assert (skipped.returncode, "skipped docs/empty.txt: empty file" in skipped.stderr) == (3, True)
    assert "skipped docs" not in skipped.stdout
    (docs / "empty.txt").unlink()
    assert _process("index", "docs", cwd=home).returncode == 0
    packed = _process("pack", ASKED, "--json", cwd=home, CTXKIT_CACHE_DIR=cache)
    assert (packed.returncode, packed.stderr) == (0, "")
    assert json.loads(packed.stdout)["decisions"][0]["source"] == "docs/penguins.md:1-3"
    failed = _process("pack", "q", "--index", "none", cwd=home)
    assert (failed.returncode, failed.stdout, _one_line(failed.stderr)) == (1, "", True)
    assert _process("pack", cwd=home).returncode == 2


def test_a_narrow_output_encoding_is_no_failure(indexed: Path, home: Path, cache: str) -> None:
    done = _process("pack", "möss", cwd=home, CTXKIT_CACHE_DIR=cache, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "Purple m\\xf6ss" in done.stdout


def test_a_reader_that_goes_away_is_no_failure(indexed: Path, home: Path, cache: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "ctxkit", "pack", ASKED, "--json"],
            cwd=home,
            env={**os.environ, "CTXKIT_CACHE_DIR": cache},
            stdout=gone,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
            timeout=120,
        )
    assert (done.returncode, done.stderr) == (0, "")
