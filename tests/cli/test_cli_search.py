"""`ctxkit search`: hits as a list, as JSON, as a heat map in the terminal and as a page."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from rich.console import Console

from ctxkit.cli import output, search
from ctxkit.cli.options import EngineName, SearchMode
from ctxkit.cli.where import conditions
from ctxkit.documents import Chunk
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval.search import MODES
from ctxkit.retrieval.storage.settings import ENGINES

Cli = Callable[..., Any]
ASKED = "How many birds has the Zorblax colony?"


@pytest.fixture
def by_token(home: Path) -> Path:
    """An index of token vectors at .ctxkit, of four passages with metadata."""
    rows = [
        ("a.md", "Rivers carry water to the sea.", ("Course",), {"lang": "en", "year": 2021, "draft": False}),
        (
            "a.md",
            "A delta of sand forms where the river slows.",
            ("Delta",),
            {"lang": "en", "year": 2019, "draft": True},
        ),
        ("deep/b.md", "Flüsse tragen Wasser 🌿 zum Meer.", (), {"lang": "de", "year": 2021, "draft": False}),
        ("deep/c.md", "water " * 3000 + "sluice gates", (), {"lang": "en", "year": 1999, "draft": False}),
    ]
    with Index.open(home / ".ctxkit", encoder=HashingEncoder(multi_vector=True), create=True) as index:
        index.add(
            Chunk(f"c{i}", source, text, titles, metadata=own) for i, (source, text, titles, own) in enumerate(rows)
        )
    return home


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., io.StringIO]:
    """terminal(color_system="truecolor"): what is shown in one."""

    def make(**options: Any) -> io.StringIO:
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=True, width=70, soft_wrap=True, highlight=False, **options)
        for module in (search, output):
            monkeypatch.setattr(module, "STDOUT", console)
        return shown

    return make


# --- the list ------------------------------------------------------------------------------------------------------


def test_search_lists_rank_relevance_place_and_the_best_sentence(indexed: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", ASKED, "-k", "1")
    assert (ran.code, ran.err) == (0, "")
    head, sentence = ran.out.splitlines()
    rank, relevance, place, title = head.split()
    assert (rank, place, title) == ("1", "docs/penguins.md:1-3", "Penguins") and 0 < float(relevance) <= 1
    assert sentence == "    The Zorblax penguin colony has 4321 birds."


def test_k_is_how_many_and_the_mode_is_taken(indexed: Path, ctxkit: Cli) -> None:
    assert [len(ctxkit("search", "birds", "-k", k, "--json").json["hits"]) for k in (1, 2, 50)] == [1, 2, 3]
    lexical = ctxkit("search", "birds", "--mode", "lexical", "--json").json
    assert [hit["chunk"]["source"] for hit in lexical["hits"]] == ["docs/penguins.md"]
    assert [ranking["method"] for ranking in lexical["hits"][0]["rankings"]] == ["lexical"]


def test_search_as_json_is_the_librarys_hits(by_token: Path, ctxkit: Cli) -> None:
    shown = ctxkit("search", "river water", "-k", "2", "--json").json
    with Index.open(".ctxkit") as index:
        assert shown["hits"] == json.loads(json.dumps([hit.to_dict() for hit in index.search("river water", 2)]))
    assert (shown["query"], shown["mode"]) == ("river water", "hybrid")


def test_filters_by_metadata_and_by_source(by_token: Path, ctxkit: Cli) -> None:
    def found(*options: str) -> list[str]:
        return sorted(hit["chunk"]["id"] for hit in ctxkit("search", "water", *options, "--json").json["hits"])

    assert found() == ["c0", "c1", "c2", "c3"]
    assert found("--where", "lang=de") == ["c2"]
    assert found("--where", "year>=2019", "--where", "year<2021") == ["c1"]
    assert found("--where", "draft=true") == ["c1"]
    assert found("--where", "year=1999", "--where", "year=2019") == ["c1", "c3"]
    assert found("--where", "lang=en", "--where", "draft=false") == ["c0", "c3"]
    assert found("--source", "deep/*") == ["c2", "c3"]
    assert found("--source", "a.md", "--source", "deep/b.md", "--where", "year=2021") == ["c0", "c2"]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["a=1"], {"a": {"in": [1]}}),
        (["a=1.5", "b=x"], {"a": {"in": [1.5]}, "b": {"in": ["x"]}}),
        (['a="1"'], {"a": {"in": ["1"]}}),
        (["a=true", "b=false"], {"a": {"in": [True]}, "b": {"in": [False]}}),
        ([" a >= 2 ", "a<9"], {"a": {">=": 2, "<": 9}}),
        (["a!=x y"], {"a": {"!=": "x y"}}),
        (["a==b=c"], {"a": {"in": ["b=c"]}}),
        (["a="], {"a": {"in": [""]}}),
        (["a=NaN", "b=[1]", "c=null"], {"a": {"in": ["NaN"]}, "b": {"in": ["[1]"]}, "c": {"in": ["null"]}}),
        ([], None),
    ],
)
def test_conditions_are_typed(written: list[str], read: dict[str, Any] | None) -> None:
    assert conditions(written) == read


@pytest.mark.parametrize("written", [["lang"], ["=en"], [">3"], [""], ["a>1", "a>2"]])
def test_what_is_no_condition_is_wrong_usage(written: list[str], by_token: Path, ctxkit: Cli) -> None:
    with pytest.raises(typer.BadParameter):
        conditions(written)
    flags = [part for one in written for part in ("--where", one)]
    ran = ctxkit("search", "water", *flags, COLUMNS="200")
    assert (ran.code, ran.out) == (2, "") and "--where" in ran.err


def test_finding_nothing_is_said_and_no_failure(by_token: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "xylophone", "--mode", "lexical")
    assert (ran.code, ran.out) == (0, "") and "no passage shares a word" in ran.err
    ran = ctxkit("search", "water", "--where", "lang=fr", "--explain")
    assert (ran.code, ran.out) == (0, "") and "no passage is allowed" in ran.err
    assert ctxkit("search", "water", "--where", "lang=fr", "--json").json["hits"] == []


def test_an_empty_index_says_how_to_fill_it(docs: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", ASKED)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "holds no passages" in ran.err and "ctxkit index" in ran.err


@pytest.mark.parametrize(
    ("options", "named"),
    [(["-k", "0"], "-k"), (["--mode", "magic"], "--mode"), (["--index", "none"], "no index at none")],
)
def test_wrong_options_are_named(by_token: Path, ctxkit: Cli, options: list[str], named: str) -> None:
    ran = ctxkit("search", "water", *options, COLUMNS="200")
    assert ran.code in (1, 2) and ran.out == "" and named in ran.err


def test_the_options_list_what_the_library_has() -> None:
    assert set(get_args(SearchMode)) == set(MODES)
    assert set(get_args(EngineName)) == set(ENGINES)


# --- --explain -----------------------------------------------------------------------------------------------------


def test_explained_hits_have_scores_a_legend_and_brackets_when_piped(by_token: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "sand in deltas of a river delta", "-k", "1", "--explain")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].endswith("a.md:1  Delta")
    assert lines[1].startswith("    1st by vectors (") and "1st by words (" in lines[1] and " together" in lines[1]
    assert "sand -> sand 1.00" in lines[2] and "river -> river 1.00" in lines[2]
    assert "delta -> in a heading" in lines[2] or "delta -> delta 1.00" in lines[2]
    assert "[[sand]] forms where the [[river]] slows." in ran.out


def test_in_a_terminal_words_are_coloured_and_lines_are_no_wider(
    by_token: Path, ctxkit: Cli, terminal: Callable[..., io.StringIO]
) -> None:
    shown = terminal(color_system="truecolor")
    assert ctxkit("search", "water sea", "--explain", "-k", "3").code == 0
    text = shown.getvalue()
    assert "\x1b[" in text and "[[" not in text
    assert "sea" in text


def test_without_colours_a_terminal_shows_brackets(
    by_token: Path, ctxkit: Cli, terminal: Callable[..., io.StringIO]
) -> None:
    shown = terminal(color_system=None, no_color=True)
    assert ctxkit("search", "water sea", "--explain", "-k", "2").code == 0
    assert "[[water]]" in shown.getvalue() and "[[sea]]" in shown.getvalue()
    assert all(len(line) <= 70 for line in shown.getvalue().splitlines())


def test_a_very_long_passage_is_shown_where_it_is_warm(by_token: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "sluice gates", "-k", "1", "--explain")
    assert "[[sluice]] [[gates]]" in ran.out and len(ran.out) < 2000


def test_an_index_of_one_vector_per_text_marks_words_and_says_so(indexed: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "Zorblax birds", "-k", "1", "--explain")
    assert "The [[Zorblax]] penguin colony has 4321 [[birds]]." in ran.out
    assert "Zorblax -> Zorblax, birds -> birds" in ran.out
    assert "one vector per text" in ran.err and "--engine multivector" in ran.err
    assert "compares no vectors" in ctxkit("search", "birds", "--explain", "--mode", "lexical").err


def test_explained_json_has_links_and_placings(by_token: Path, ctxkit: Cli) -> None:
    hit = ctxkit("search", "water", "--explain", "--json", "-k", "1", "--where", "lang=de").json["hits"][0]
    assert set(hit["explained"]) == {"placing", "links", "by_headings"}
    assert hit["explained"]["links"][0]["asked"] == "water"
    assert "🌿" in hit["chunk"]["text"]


# --- --html --------------------------------------------------------------------------------------------------------


def test_html_writes_a_page_and_the_list_goes_on(by_token: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "Wasser <b>", "--html", "page.html", "-k", "2")
    assert ran.code == 0 and "written: page.html" in ran.err and ran.out.startswith("  1 ")
    page = (by_token / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "Wasser &lt;b&gt;" in page and "<b>Wasser" not in page
    assert page.count("<article>") == 2 and "🌿" in page


def test_a_page_that_cannot_be_written_is_one_line(by_token: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "water", "--html", "no/such/folder/page.html")
    assert (ran.code, ran.err.count("\n")) == (1, 1) and "no/such/folder/page.html" in ran.err


def test_unicode_queries_go_through(by_token: Path, ctxkit: Cli) -> None:
    ran = ctxkit("search", "🌿 コケ Flüsse", "--explain", "-k", "1")
    assert ran.code == 0 and "[[Flüsse]] tragen Wasser 🌿" in ran.out
