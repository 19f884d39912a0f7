"""`ctxkit bench retrieval`: every engine on a collection of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ctxkit.cli.loading import open_encoder
from ctxkit.cli.options import AsJson
from ctxkit.cli.output import STDOUT, emit_json, note, print_raw

if TYPE_CHECKING:
    from ctxkit.protocols import Encoder
    from ctxkit.retrieval.bench import Report

app = typer.Typer(help="Measure what suits your own data.", no_args_is_help=True)

_COLUMNS = ("method", "build s", "bytes", "ms", "p95", "nDCG", "recall", "of exact")
_LEGEND = (
    "build: CPU-s from known vectors; bytes: on disk, per passage; ms, p95: CPU time of a query, its encoding not "
    "counted; nDCG, recall, of exact: of the first 10. Times are of this machine."
)


@app.callback()
def bench() -> None:
    """Measure what suits your own data."""


@app.command("retrieval")
def retrieval(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Collections in BEIR form: corpus.jsonl, queries.jsonl, qrels/*.tsv.", show_default=False),
    ],
    engines: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            metavar="NAME",
            help="Measure only these, repeatable: lexical, flat, ivf, hnsw, hybrid, multivector-exact, "
            "multivector-coded, multivector-hybrid. (default: all)",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder of one vector per text: a folder or a hub id. (default: all-minilm-l6-v2)"),
    ] = None,
    token_encoder: Annotated[
        str | None,
        typer.Option(
            "--token-encoder",
            help="Encoder of one vector per token, as `ctxkit index --engine multivector` takes it. (default: token "
            "states of all-minilm-l6-v2)",
        ),
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Queries at most; of more, so many are drawn.")] = 200,
    cache: Annotated[
        Path | None, typer.Option(help="Keep vectors in this file, so that a second run encodes nothing again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Index collections with each engine: what it costs to build, its size, its speed, and how well it finds.

    Times are CPU times of this machine, on one thread, as busy as it is now: compare rows, not machines. Encoding is
    told apart from building and searching.

    Quality needs judgements (qrels): nDCG@10 and recall@10. Without them, what an approximate engine finds of the exact
    search's first ten is shown. Without queries, sentences of the passages are asked. All vectors are held in memory.
    """
    from ctxkit.retrieval.bench import METHODS, read_collection, trial

    unknown = [name for name in engines or () if name not in METHODS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(METHODS)}", param_hint="--engine")
    reports = [
        trial(
            read_collection(folder, most_queries=queries),
            tuple(engines or METHODS),
            single=lambda: _cached(open_encoder(encoder, by_token=False), cache),
            by_token=lambda: _cached(open_encoder(token_encoder, by_token=True), cache),
            said=note,
        )
        for folder in folders
    ]
    if as_json:
        emit_json([report.to_dict() for report in reports])
        return
    for report in reports:
        _show(report, cached=cache is not None)
    print_raw(f"{_LEGEND}\n")


def _cached(encoder: Encoder, cache: Path | None) -> Encoder:
    from ctxkit.retrieval import CachedEncoder

    return CachedEncoder(encoder, cache) if cache else encoder


def _show(report: Report, *, cached: bool) -> None:
    kind = "sentences of its passages as queries" if report.sampled_queries else "queries"
    judged = "" if report.judged else ", no judgements"
    print_raw(f"{report.collection}: {report.passages:,} passages, {report.queries:,} {kind}{judged}\n")
    for encoding in report.encodings:
        print_raw(
            f"encoding, {encoding.vectors}: {encoding.passages_cpu_seconds:.1f} CPU-s for {encoding.rows:,} vectors, "
            f"{encoding.query_cpu_ms:.1f} CPU-ms per query ({encoding.encoder}{', what the cache had not' * cached})\n"
        )
    _table([_COLUMNS, *_cells(report)])
    print_raw("\n")


def _cells(report: Report) -> list[tuple[str, ...]]:
    return [
        (
            one.method,
            f"{one.build_cpu_seconds:.2f}",
            f"{one.bytes_per_passage:,.0f}",
            f"{one.median_ms:.2f}",
            f"{one.p95_ms:.2f}",
            *("-" if value is None else f"{value:.3f}" for value in (one.ndcg, one.recall, one.of_exact)),
        )
        for one in report.methods
    ]


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Columns of text when piped, a table in a terminal."""
    if STDOUT.is_terminal:
        table = Table(box=None, pad_edge=False)
        for at, name in enumerate(rows[0]):
            table.add_column(name, justify="right" if at else "left", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        STDOUT.print(table, soft_wrap=False)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        print_raw("  ".join(cells).rstrip() + "\n")
