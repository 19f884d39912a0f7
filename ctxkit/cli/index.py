"""`ctxkit index`: folders to an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxkit.cli.options import AsJson
from ctxkit.cli.output import emit_json, note, print_raw
from ctxkit.cli.settings import settings

SKIPPED = 3
"""Exit code when all went well but for some files that could not be read."""


def index(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of the index. (env: CTXKIT_INDEX; default: .ctxkit)")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of a new index: a folder or a hub id. (default: all-minilm-l6-v2)")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=16, help="Longest passage, in encoder tokens.")] = 200,
    as_json: AsJson = False,
) -> None:
    """Bring an index up to date with files and folders. A second run reads only what changed.

    Exits with 3 if some files were skipped; they are named, one line each, on stderr.
    """
    from ctxkit.documents import Chunker
    from ctxkit.pipeline import ingest
    from ctxkit.retrieval import Index, SentenceTransformerEncoder

    folder = to or settings().index
    if not folder.exists() and not any(path.exists() for path in paths):
        raise typer.BadParameter(f"there is no file or folder {' '.join(map(str, paths))}")
    made_by = SentenceTransformerEncoder(encoder) if encoder else None
    with Index.open(folder, encoder=made_by, create=True) as opened:
        chunker = Chunker(opened.encoder.count_batch, max_tokens=max_tokens)
        report = ingest(opened, paths, chunker=chunker, progress=True)
        for skip in report.skipped:
            note(f"skipped {skip.path}: {skip.reason}")
        if as_json:
            emit_json({"index": str(folder), "passages": len(opened), **report.to_dict()})
        else:
            print_raw(f"{report}; {len(opened):,} passages in {folder}\n")
    if report.skipped:
        raise typer.Exit(SKIPPED)
