"""`ctxkit index`: folders to an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxkit.cli.loading import open_encoder
from ctxkit.cli.options import AsJson, EngineName
from ctxkit.cli.output import emit_json, note, print_raw
from ctxkit.cli.settings import settings

if TYPE_CHECKING:
    from ctxkit.pipeline import IngestReport
    from ctxkit.retrieval import Index

SKIPPED = 3
"""Exit code when all went well but for some files that could not be read."""

_MULTIVECTOR = "multivector"


def index(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders.", show_default=False)] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of the index. (env: CTXKIT_INDEX; default: .ctxkit)")
    ] = None,
    engine: Annotated[
        EngineName | None,
        typer.Option(
            help="What searches the vectors of a new index: auto, exact, flat, ivf or hnsw for one vector per text, "
            "multivector for one per token. (default: auto)"
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Encoder of a new index: a folder or a hub id. With multivector, a ColBERT or XTR checkpoint, or any "
            "other model for its token states. (default: all-minilm-l6-v2)"
        ),
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=16, help="Longest passage, in encoder tokens.")] = 200,
    check: Annotated[
        bool, typer.Option("--check", help="Then read all of the index and compare every checksum; alone, only that.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring an index up to date with files and folders. A second run reads only what changed.

    The engine is chosen when the index is made, and a later run goes on with it. Exits with 3 if some files were
    skipped; they are named, one line each, on stderr.
    """
    folder = to or settings().index
    if not paths and not check:
        raise typer.BadParameter("no paths: name files and folders, or --check", param_hint="PATHS")
    if paths and not folder.exists() and not any(path.exists() for path in paths):
        raise typer.BadParameter(f"there is no file or folder {' '.join(map(str, paths))}")
    with _open(folder, engine, encoder, create=bool(paths)) as opened:
        report = _ingest(opened, paths, max_tokens) if paths else None
        checked = _checked(opened) if check else None
        passages = len(opened)
    told = {"index": str(folder), "passages": passages}
    if as_json:
        emit_json({**told, **(report.to_dict() if report else {}), **({"checked": checked} if checked else {})})
    elif report:
        print_raw(f"{report}; {passages:,} passages in {folder}\n")
    if checked and not as_json:
        print_raw(
            f"checked {folder}: {checked['passages']:,} passages of {checked['sources']:,} sources, "
            f"{checked['vector_rows']:,} vectors, {checked['files']:,} vector files, {checked['bytes']:,} bytes; "
            "every checksum agrees\n"
        )
    if report and report.skipped:
        raise typer.Exit(SKIPPED)


def _open(folder: Path, engine: EngineName | None, encoder: str | None, *, create: bool) -> Index:
    """The index there; where there is none, a new one. Its kind of vectors decides what a named encoder is."""
    from ctxkit.errors import IndexNotFound
    from ctxkit.retrieval import Index

    try:
        with Index.open(folder, engine=engine) as there:  # another engine is told before an encoder is loaded
            by_token = there.stats().multi_vector
        made_by = open_encoder(encoder, by_token=by_token) if encoder else None
        return Index.open(folder, encoder=made_by, engine=engine)
    except IndexNotFound:
        if not create:
            raise
    by_token = engine == _MULTIVECTOR
    made_by = open_encoder(encoder, by_token=by_token) if encoder or by_token else None
    return Index.open(folder, encoder=made_by, engine=engine, create=True)


def _ingest(opened: Index, paths: list[Path], max_tokens: int) -> IngestReport:
    from ctxkit.documents import Chunker
    from ctxkit.pipeline import ingest

    chunker = Chunker(opened.encoder.count_batch, max_tokens=max_tokens)
    report = ingest(opened, paths, chunker=chunker, progress=True)
    for skip in report.skipped:
        note(f"skipped {skip.path}: {skip.reason}")
    return report


def _checked(opened: Index) -> dict[str, int]:
    """What was compared. Raises StoreError where something is damaged."""
    opened.verify()
    stats = opened.stats()
    return {
        "passages": stats.chunks,
        "sources": stats.sources,
        "vector_rows": stats.vector_rows,
        "files": stats.files,
        "bytes": stats.disk_bytes,
    }
