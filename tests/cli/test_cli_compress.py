"""`ctxkit compress`: what is left on stdout, the tokens on stderr."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
TEXT = "The server 17 waits for the invoice INV-20931. " * 3 + "Nobody knows why, they say, and nobody will ask.\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_rate_1_is_the_file_byte_for_byte(file: Path, ctxkit: Cli) -> None:
    ran = ctxkit("compress", file, "--rate", "1", "--method", "head")
    assert (ran.code, ran.out) == (0, TEXT)


@pytest.mark.parametrize(
    "method", ["auto", "bm25", "centroid", "content", "extractive", "facts", "structural", "idf", "head"]
)
def test_every_method_keeps_to_the_tokens(method: str, file: Path, ctxkit: Cli) -> None:
    ran = ctxkit("compress", file, "--tokens", "20", "--method", method, "--json")
    assert ran.code == 0 and ran.json["tokens"] <= 20 < ran.json["source_tokens"]
    assert ran.json["files"][0]["left_out"]


def test_the_budget_is_one_for_all_files(file: Path, ctxkit: Cli, tmp_path: Path) -> None:
    other = tmp_path / "b.txt"
    other.write_text("Penguins swim. Their colony has 4,321 birds.", encoding="utf-8")
    ran = ctxkit("compress", file, other, "--tokens", "40", "--query", "How many birds?")
    assert ran.code == 0 and "4,321 birds" in ran.out and ran.out.count("==>") == 2
    assert "tokens (" in ran.err


def test_show_strikes_out_and_html_is_a_page(file: Path, ctxkit: Cli, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = ctxkit("compress", file, "--rate", "0.5", "--method", "stop-words", "--show", "--html", page)
    assert ran.code == 0 and "[-" in ran.out and "INV-20931" in ran.out
    assert "<del" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("wrong", [(), ("--rate", "0.5", "--tokens", "3"), ("--rate", "0.5", "--method", "magic")])
def test_wrong_usage_is_exit_code_2(wrong: tuple[str, ...], file: Path, ctxkit: Cli) -> None:
    assert ctxkit("compress", file, *wrong).code == 2


def test_a_model_for_a_method_that_has_none_is_refused(file: Path, ctxkit: Cli) -> None:
    ran = ctxkit("compress", file, "--rate", "0.5", "--method", "head", "--method-model", "some/model")
    assert ran.code != 0 and "no model to choose" in ran.err


def test_methods_are_listed(file: Path, ctxkit: Cli) -> None:
    assert {"auto", "facts", "llmlingua2"} <= set(ctxkit("compress", file, "--method", "list").out.split())
