"""Folders to an index: only what changed is read again, what is gone is removed, what cannot be read is named."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from ctxkit.documents import Chunk, Chunker, Skipped, discover, load, source_name
from ctxkit.errors import DocumentError

if TYPE_CHECKING:
    from ctxkit.retrieval import Writable

_FORMAT = "1"  # part of every content hash: raise it when loading or chunking changes, and all files count as changed
_CHUNKS_AT_ONCE = 512  # per transaction: large enough for full encoder batches, small enough to show progress


@dataclass
class IngestReport:
    """What an ingestion did, by source. `chunks` is how many were written."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    chunks: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "added": self.added,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "skipped": [{"path": skip.path, "reason": skip.reason} for skip in self.skipped],
            "chunks": self.chunks,
        }

    def __str__(self) -> str:
        named = ("added", "changed", "unchanged", "removed", "skipped")
        counts = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in named)
        return f"{counts}; {self.chunks:,} chunks written"


@dataclass(frozen=True, slots=True)
class _Source:
    """One file, read and chunked."""

    name: str
    content_hash: str
    chunks: list[Chunk]


def ingest(
    index: Writable,
    paths: Sequence[str | os.PathLike[str]],
    *,
    chunker: Chunker,
    root: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> IngestReport:
    """Bring the index up to date with the files below `paths`.

    Files whose bytes have not changed are not read into chunks again; sources below `paths` whose file is gone are
    removed; what cannot be read is listed in `skipped`, keeps nothing in the index, and stops nothing. A file of which
    only some records cannot be read is listed there too, and its other records are in.

    root: folder that sources are named from (default: the working directory), so that a citation opens from there.
    progress: a bar on stderr.
    """
    base = Path(root) if root is not None else Path.cwd()
    found = discover(paths)
    own = os.path.abspath(index.path)  # an index among the documents is none of them
    skipped = [skip for skip in found.skipped if not _lies_below(skip.path, own)]
    report = IngestReport(skipped=[Skipped(source_name(skip.path, base), skip.reason) for skip in skipped])
    failed = {skip.path for skip in report.skipped}
    known = index.sources()
    names = {source_name(path, base): path for path in found.files if not _lies_below(str(path), own)}
    bar = tqdm(total=len(names), desc="indexing", unit="file", disable=not progress, file=sys.stderr)
    with bar:
        for batch in _batches(_read(names, known, chunker, base, report, failed, bar)):
            index.replace_sources((one.name, one.content_hash, one.chunks) for one in batch)
            report.chunks += sum(len(one.chunks) for one in batch)
            bar.update(len(batch))
    gone = [name for name in known if _is_below(name, paths, base) and (name not in names or name in failed)]
    report.removed = sorted(gone)
    if gone:
        index.delete(sources=gone)
    return report


def _read(
    names: Mapping[str, Path],
    known: Mapping[str, str],
    chunker: Chunker,
    base: Path,
    report: IngestReport,
    failed: set[str],
    bar: Any,
) -> Iterator[_Source]:
    """The new and changed sources; the others go straight to the report."""
    for name, path in names.items():
        try:
            content_hash = _hash(path.read_bytes(), chunker)
            if known.get(name) == content_hash:
                report.unchanged.append(name)
                bar.update()
                continue
            documents = load(path, base)
        except (DocumentError, OSError) as error:
            report.skipped.append(Skipped(name, _reason(error)))
            failed.add(name)
            bar.update()
            continue
        report.skipped.extend(Skipped(name, note) for document in documents for note in document.notes)
        (report.changed if name in known else report.added).append(name)
        yield _Source(name, content_hash, list(chunker.chunk_all(documents)))


def _reason(error: DocumentError | OSError) -> str:
    if isinstance(error, DocumentError):
        return error.reason
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


def _batches(sources: Iterable[_Source]) -> Iterator[list[_Source]]:
    batch: list[_Source] = []
    for source in sources:
        batch.append(source)
        if sum(len(one.chunks) for one in batch) >= _CHUNKS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _hash(content: bytes, chunker: Chunker) -> str:
    settings = f"{_FORMAT}\0{chunker.max_tokens}\0".encode()
    return blake2b(settings + content, digest_size=16).hexdigest()


def _is_below(name: str, paths: Sequence[str | os.PathLike[str]], base: Path) -> bool:
    """Whether the source of that name lies at or below one of the paths that were walked."""
    source = os.path.abspath(base / name)
    return any(_lies_below(source, os.path.abspath(path)) for path in paths)


def _lies_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
