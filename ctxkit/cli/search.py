"""`ctxkit search`: what an index finds, and with --explain, why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.text import Text

from ctxkit.cli.loading import open_index
from ctxkit.cli.options import AsJson, IndexFolder, Question, SearchMode
from ctxkit.cli.output import STDOUT, emit_json, in_colour, note, print_raw
from ctxkit.cli.where import conditions

if TYPE_CHECKING:
    from ctxkit.retrieval import HeatMap, Hit, Index

_INDENT = 4
_SENTENCE_CHARACTERS = 300

Html = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the explained hits to FILE, a page of their own.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only passages whose metadata meet it: KEY=VALUE, also with !=, <, <=, >, >=; repeatable, all must hold. "
        "The same KEY with = twice: either value.",
    ),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="GLOB", help="Only sources that fit; repeatable, any of them; * crosses slashes."),
]


def search(
    query: Question,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits.")] = 10,
    mode: Annotated[SearchMode, typer.Option(help="dense: by vectors; lexical: by words; hybrid: both.")] = "hybrid",
    where: Where = None,
    sources: Sources = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which words answered which, each method's scores, and the passage.")
    ] = False,
    html: Html = None,
    index: IndexFolder = None,
    as_json: AsJson = False,
) -> None:
    """Search the index: rank, relevance, place and the best sentence of each passage.

    With --explain the passage is a heat map: words that answered words of the query are coloured by similarity, in
    brackets where there are no colours. That needs an index of token vectors (`ctxkit index --engine multivector`);
    with another one, the words of the query are marked.
    """
    asked_for = conditions(where or ())
    with open_index(index) as opened:
        _refuse_empty(opened)
        hits = opened.search(query, k, mode=mode, where=asked_for, sources=sources)
        told = _kind(opened, mode)
    if html is not None:
        _write(html, query, hits, told)
    if as_json:
        emit_json({"query": query, "mode": mode, "hits": _plain_values(hits, query, explain)})
    elif not hits:
        note("nothing was found: no passage " + ("shares a word with the query" if mode == "lexical" else "is allowed"))
    elif explain:
        _explain(query, hits, told)
    else:
        _list(hits)


def _refuse_empty(index: Index) -> None:
    from ctxkit.errors import StoreError

    if not len(index):
        where = index.path
        raise StoreError(f"the index at {where} holds no passages. Add some: ctxkit index FOLDER --to {where}")


def _kind(index: Index, mode: str) -> str:
    """What heat maps of this search show."""
    if mode == "lexical":
        return "lexical search compares no vectors: the words of the query are marked"
    if not index.stats().multi_vector:
        return (
            "this index has one vector per text and none per token: the words of the query are marked "
            "(for similarities: ctxkit index FOLDER --engine multivector --to ANOTHER)"
        )
    return ""


def _plain_values(hits: Sequence[Hit], query: str, explain: bool) -> list[dict[str, Any]]:
    if not explain:
        return [hit.to_dict() for hit in hits]
    from ctxkit.retrieval import HeatMap, placings

    return [
        {**hit.to_dict(), "explained": {"placing": placing, **HeatMap.of(hit, query).to_dict()}}
        for hit, placing in zip(hits, placings(hits), strict=True)
    ]


def _list(hits: Sequence[Hit]) -> None:
    for hit in hits:
        _head(hit)
        _indented(Text(_sentence(hit)))


def _head(hit: Hit) -> None:
    chunk = hit.chunk
    title = "" if chunk.title == chunk.source else chunk.title
    if not STDOUT.is_terminal:
        print_raw(f"{hit.rank:>3} {hit.relevance:.2f} {chunk.location}{f'  {title}' if title else ''}\n")
        return
    line = Text.assemble(f"{hit.rank:>3} ", (f"{hit.relevance:.2f} ", "dim"), (chunk.location, "bold"), f"  {title}")
    STDOUT.print(line, soft_wrap=False)


def _sentence(hit: Hit) -> str:
    """The best sentence of the evidence, or how the passage begins."""
    best = " ".join((hit.snippets() or [hit.chunk.text])[0].split())
    return best if len(best) <= _SENTENCE_CHARACTERS else best[: _SENTENCE_CHARACTERS - 1] + "…"


def _indented(text: Text) -> None:
    if not STDOUT.is_terminal:
        print_raw("".join(f"{' ' * _INDENT}{line}".rstrip() + "\n" for line in text.plain.split("\n")))
        return
    STDOUT.print(Padding(text, (0, 0, 0, _INDENT)), soft_wrap=False)


def _explain(query: str, hits: Sequence[Hit], told: str) -> None:
    from ctxkit.retrieval import HeatMap, placings

    for hit, placing in zip(hits, placings(hits), strict=True):
        heat_map = HeatMap.of(hit, query)
        _head(hit)
        _indented(Text(placing, "dim"))
        _indented(Text(heat_map.legend or "no word of the query stands in it", "dim"))
        print_raw("\n")
        _indented(_passage(heat_map))
        print_raw("\n")
    if told:
        note(told)


def _passage(heat_map: HeatMap) -> Text:
    from ctxkit.retrieval.heat_map_text import coloured, plain

    return coloured(heat_map) if in_colour() else Text(plain(heat_map))


def _write(path: Path, query: str, hits: Sequence[Hit], told: str) -> None:
    from ctxkit.retrieval import heat_map_page

    path.write_text(heat_map_page(query, hits, note=told), encoding="utf-8")
    note(f"written: {path}")
