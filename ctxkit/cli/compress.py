"""`ctxkit compress`: files in fewer tokens, and what went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ctxkit.cli.loading import open_counter, read_text
from ctxkit.cli.options import AsJson, ModelName
from ctxkit.cli.output import STDOUT, emit_json, in_colour, note, print_raw

if TYPE_CHECKING:
    from ctxkit.compression import Compressed, Compression


def compress(
    files: Annotated[list[Path], typer.Argument(help="Text files; - reads standard input.", show_default=False)],
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Tokens of all files together.")] = None,
    rate: Annotated[float | None, typer.Option("--rate", min=0.0, max=1.0, help="Share of the tokens to keep.")] = None,
    question: Annotated[str, typer.Option("--query", "--question", help="What the text is to answer.")] = "",
    method: Annotated[str, typer.Option("--method", help="How. `--method list` names them.")] = "auto",
    method_model: Annotated[
        str | None, typer.Option("--method-model", help="Folder or hub id of the method's own model.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the whole text, with what went struck out.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write what went and what stayed to FILE, a page.")
    ] = None,
    model: ModelName = None,
    as_json: AsJson = False,
) -> None:
    """Print files in fewer tokens of --model: at most --tokens, or --rate of what they have.

    The budget is one for all files: it goes to what matters most, for the --query where there is one. What is left are
    slices of the files.
    """
    from ctxkit.compression import compress as compress_texts
    from ctxkit.pipeline.compressors import compressor_named, method_names

    if method == "list":
        print_raw("\n".join(method_names()) + "\n")
        return
    if (tokens is None) == (rate is None):
        raise typer.BadParameter("give either --tokens or --rate")
    if method not in method_names():
        raise typer.BadParameter(f"--method {method!r} is none of {', '.join(method_names())}")
    texts = [read_text(path) for path in files]
    compressor = compressor_named(method, method_model)
    made = compress_texts(texts, compressor, tokens=tokens, rate=rate, question=question, counter=open_counter(model))
    if html is not None:
        _write_page(html, made, files)
    _print(made, files, show=show, as_json=as_json)


def _print(made: Compression, files: list[Path], *, show: bool, as_json: bool) -> None:
    from ctxkit.compression.shown import headline

    if as_json:
        emit_json(
            {
                "method": made.method,
                "tokens": made.tokens,
                "source_tokens": made.source_tokens,
                "files": [_as_dict(path, result) for path, result in zip(files, made.results, strict=True)],
            }
        )
        return
    for path, result in zip(files, made.results, strict=True):
        if len(files) > 1:
            STDOUT.print(f"==> {path} <==", style="bold", markup=False)
        if show:
            STDOUT.print(_shown(result))
        else:
            print_raw(result.text + "\n" * (len(files) > 1 or STDOUT.is_terminal))
    note(headline(made))


def _as_dict(path: Path, result: Compressed) -> dict[str, object]:
    return {
        "file": str(path),
        "text": result.text,
        "tokens": result.tokens,
        "source_tokens": result.source_tokens,
        "left_out": [list(gap) for gap in result.gaps],
    }


def _shown(result: Compressed) -> Text:
    from ctxkit.compression.shown import coloured, plain

    return coloured(result) if in_colour() else Text(plain(result))


def _write_page(path: Path, made: Compression, files: list[Path]) -> None:
    from ctxkit.compression.shown import page

    path.write_text(page(made, ", ".join(map(str, files))), encoding="utf-8")
    note(f"written: {path}")
