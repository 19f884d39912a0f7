"""Settings: a flag goes before a variable, a variable before ctxkit.toml, the file before the default."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ctxkit.cli import app
from ctxkit.cli.settings import Settings
from ctxkit.server import ServeOptions

Cli = Callable[..., Any]
WIDE = {"COLUMNS": "300"}


def held(ctxkit: Cli, *flags: str, **environment: str) -> dict[str, tuple[Any, str]]:
    """Every setting's value and origin."""
    ran = ctxkit("config", "show", "--json", *flags, **environment)
    assert ran.code == 0, ran.err
    return {one["name"]: (one["value"], one["origin"]) for one in ran.json["settings"]}


def refused(ctxkit: Cli, *flags: str, **environment: str) -> str:
    ran = ctxkit("config", "show", *flags, **environment, **WIDE)
    assert (ran.code, ran.out) == (2, "") and "Traceback" not in ran.err
    return " ".join(ran.err.replace("│", " ").split())


def test_each_source_goes_before_the_next(home: Path, ctxkit: Cli) -> None:
    assert held(ctxkit)["serve.port"] == (8000, "default")
    (home / "ctxkit.toml").write_text("budget = 7\n[serve]\nport = 1\n")
    assert held(ctxkit)["serve.port"] == (1, "file") and held(ctxkit)["budget"] == (7, "file")
    assert held(ctxkit, CTXKIT_SERVE_PORT="2")["serve.port"] == (2, "environment")
    assert held(ctxkit, "--port", "3", CTXKIT_SERVE_PORT="2")["serve.port"] == (3, "flag")
    assert held(ctxkit, CTXKIT_SERVE_PORT="")["serve.port"] == (1, "file"), "an empty variable is none"


def test_false_and_zero_are_values(home: Path, ctxkit: Cli) -> None:
    (home / "ctxkit.toml").write_text("[serve]\nmetrics = true\nport = 1\nmax_waiting = 0\n")
    found = held(ctxkit, "--no-metrics", "--port", "0")
    assert (found["serve.metrics"], found["serve.port"]) == ((False, "flag"), (0, "flag"))
    assert found["serve.max_waiting"] == (0, "file")
    assert held(ctxkit, CTXKIT_SERVE_METRICS="false")["serve.metrics"] == (False, "environment")


def test_commands_take_what_the_file_says(indexed: Path, home: Path, ctxkit: Cli, cache: str) -> None:
    (home / "ctxkit.toml").write_text("budget = 90\n")
    packed = ctxkit("pack", "birds", "--json", CTXKIT_CACHE_DIR=cache).json
    assert packed["window_tokens"] == 90
    assert ctxkit("pack", "birds", "--json", CTXKIT_CACHE_DIR=cache, CTXKIT_BUDGET="95").json["window_tokens"] == 95


def test_a_model_of_the_file_is_named(home: Path, ctxkit: Cli, server: Any, docs: Path) -> None:
    (home / "ctxkit.toml").write_text('model = "of-the-file"\n')
    assert ctxkit("index", "docs").code == 0
    assert ctxkit("ask", "birds", "--base-url", server.url, "--reserve", "8").code == 0
    assert server.seen[0][0]["model"] == "of-the-file"


def test_another_file_can_be_named_and_must_then_exist(home: Path, ctxkit: Cli) -> None:
    (home / "ctxkit.toml").write_text("budget = 7\n")
    (home / "other.toml").write_text("reserve = 3\n")
    found = held(ctxkit, CTXKIT_CONFIG="other.toml")
    assert found["reserve"] == (3, "file") and found["budget"] == (2000, "default")
    assert ctxkit("config", "show", "--json", CTXKIT_CONFIG="other.toml").json["file"] == "other.toml"
    assert "nowhere.toml: no such file" in refused(ctxkit, CTXKIT_CONFIG="nowhere.toml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("budgett = 1", "ctxkit.toml: unknown `budgett`"),
        ("[serve]\nporrt = 1", "ctxkit.toml: unknown `serve.porrt`"),
        ("serve_port = 1", "ctxkit.toml: unknown `serve_port`"),
        ("store = 'x'", "ctxkit.toml: unknown `store`"),
        ("[server]\nport = 1", "ctxkit.toml: unknown `server`"),
        ("serve = 1", "ctxkit.toml: `serve` must be a table: [serve]"),
        ("budget = 0", "ctxkit.toml: `budget` = 0: "),
        ("[serve]\nport = 'x'", "ctxkit.toml: `serve.port` = 'x': "),
        ("[serve]\nlog_format = 'xml'", "ctxkit.toml: `serve.log_format` = 'xml': "),
        ("budget =", "ctxkit.toml: not TOML: "),
        ("budget = '\udcff'", "ctxkit.toml: not TOML: "),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(home: Path, ctxkit: Cli, text: str, told: str) -> None:
    (home / "ctxkit.toml").write_bytes(text.encode(errors="surrogateescape"))
    assert told in refused(ctxkit)


def test_an_empty_file_says_nothing(home: Path, ctxkit: Cli) -> None:
    (home / "ctxkit.toml").write_text("")
    assert {origin for _, origin in held(ctxkit).values()} == {"default"}


def test_a_variable_that_makes_no_sense_is_named(home: Path, ctxkit: Cli) -> None:
    assert "CTXKIT_SERVE_PORT='99999'" in refused(ctxkit, CTXKIT_SERVE_PORT="99999")
    assert "--porrt" in refused(ctxkit, "--porrt", "1")


def test_secrets_are_never_shown(home: Path, ctxkit: Cli) -> None:
    secret = "s3cr3t"
    (home / "ctxkit.toml").write_text(f'api_key = "{secret}"\n[serve]\napi_keys = ["{secret}"]\n')
    store = f"postgresql://me:{secret}@db:5432/ctxkit?password={secret}"
    environment = {"CTXKIT_STORE": store, "CTXKIT_SERVE_UPSTREAM": f"https://{secret}@gpu/v1"}
    found = held(ctxkit, **environment)
    assert found["api_key"] == ("set", "file") and found["serve.api_keys"] == ("set", "file")
    assert found["serve.store"] == ("postgresql://db:5432/ctxkit", "environment")
    assert found["serve.upstream"] == (["https://gpu/v1"], "environment")
    assert held(ctxkit, CTXKIT_CONFIG="/dev/null")["api_key"] == ("not set", "default")
    both = [ctxkit("config", "show", *how, **environment) for how in ([], ["--json"])]
    assert all(secret not in ran.out + ran.err for ran in both)


@pytest.mark.parametrize("keys", ['["s3cr3t", 5]', '["s3cr3t", ""]', "{a = 's3cr3t'}"])
def test_a_wrong_secret_is_not_shown_either(home: Path, ctxkit: Cli, keys: str) -> None:
    (home / "ctxkit.toml").write_text(f"[serve]\napi_keys = {keys}\n")
    told = refused(ctxkit)
    assert "`serve.api_keys` = (a secret): " in told and "s3cr3t" not in told


def test_several_values_are_a_list_or_separated_by_commas(home: Path, ctxkit: Cli) -> None:
    (home / "ctxkit.toml").write_text('[serve]\ncors_origin = ["a", "b"]\n')
    assert held(ctxkit)["serve.cors_origin"] == (["a", "b"], "file")
    assert held(ctxkit, CTXKIT_SERVE_CORS_ORIGIN=" c ,, d")["serve.cors_origin"] == (["c", "d"], "environment")
    assert held(ctxkit, "--cors-origin", "e", "--cors-origin", "f")["serve.cors_origin"] == (["e", "f"], "flag")


def test_as_text_a_setting_is_a_line(home: Path, ctxkit: Cli) -> None:
    (home / "ctxkit.toml").write_text("[serve]\nmetrics = false\n")
    ran = ctxkit("config", "show")
    lines = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines()}
    assert lines["serve.metrics"] == ["false", "file"] and lines["reserve"] == ["-", "default"]
    assert len(lines) == len(Settings.model_fields) and ran.err == "file: ctxkit.toml\n"


def test_defaults_are_those_of_the_server() -> None:
    options, fields = ServeOptions(), Settings.model_fields
    limits = ("requests_per_minute", "tokens_per_minute")
    for name in ("answer_tokens", "max_running", "max_waiting", "metrics", "untrusted", "index_label", *limits):
        assert fields[f"serve_{name}"].default == getattr(options, name)
    assert fields["serve_timeout"].default == options.timeout_seconds
    assert fields["serve_keep_days"].default == options.keep_sessions_days


def test_the_server_is_started_with_what_holds(
    home: Path, ctxkit: Cli, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    monkeypatch.setattr("ctxkit.cli.serving._run_one", lambda *given: started.append(given))
    (home / "keys").write_text("one\n\ntwo\n")
    (home / "ctxkit.toml").write_text(
        f'[serve]\nmodel = "far"\nupstream = "{server.url}"\nwindow = 4000\nport = 1\ntimeout = 7\nstore = "s.db"\n'
        'api_key_file = "keys"\nkeep_days = 3\nlog_format = "json"\n'
    )
    ran = ctxkit("serve", "--port", "2", CTXKIT_SERVE_MAX_RUNNING="3", CTXKIT_SERVE_API_KEYS="three")
    assert ran.code == 0, ran.err
    ((service, chosen, debug),) = started
    options = service.options
    assert (next(iter(service.models)), chosen.serve_port, chosen.serve_log_format, debug) == ("far", 2, "json", False)
    assert options.api_keys == ("one", "two", "three") and options.keep_sessions_days == 3
    assert (options.max_running, options.timeout_seconds, service.models["far"].window_tokens) == (3, 7, 4000)
    assert (home / "s.db").is_file()
    assert ctxkit("serve", "--host", "0.0.0.0", CTXKIT_CONFIG="/dev/null", CTXKIT_SERVE_UPSTREAM=server.url).code == 0
    assert list(started[1][0].models) == ["first-model"]


def test_variables_of_deploy_and_of_its_page_exist(repository: Path) -> None:
    known = {f"CTXKIT_{name.upper()}" for name in Settings.model_fields} | {"CTXKIT_CONFIG"}
    files = [*(repository / "deploy").iterdir(), repository / "docs" / "deployment.md"]
    named = {name for file in files for name in re.findall(r"CTXKIT_[A-Z_]+", file.read_text(encoding="utf-8"))}
    assert "CTXKIT_STORE" in named and named <= known


def test_flags_of_deploy_and_of_its_page_exist(repository: Path) -> None:
    serve: Any = get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {flag for one in serve.params for flag in one.opts}
    files = [repository / "deploy" / "ctxkit.service", repository / "docs" / "deployment.md"]
    text = "\n".join(file.read_text(encoding="utf-8").replace("\\\n", " ") for file in files)
    named = {flag for line in re.findall(r"ctxkit serve (.*)", text) for flag in re.findall(r"--[a-z-]+", line)}
    assert "--upstream" in named and named <= options


def test_settings_that_the_docs_show_are_taken(repository: Path, home: Path, ctxkit: Cli) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (repository / "docs").glob("*.md")]
    shown = [block for page in pages for block in re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    ours = [block for block in shown if "[serve]" in block]
    assert len(ours) >= 2
    for block in ours:
        (home / "ctxkit.toml").write_text(block, encoding="utf-8")
        assert "file" in {origin for _, origin in held(ctxkit).values()}


def test_the_image_is_made_of_files_that_exist(repository: Path) -> None:
    lines = (repository / "deploy" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    ]
    ignored = (repository / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "ctxkit" in copied and all((repository / one).exists() for one in copied)
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)
