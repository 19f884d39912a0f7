"""One shard of a large collection: some of its files as an index of their own, made whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ctxkit.documents import Chunker, Skipped, source_name
from ctxkit.errors import StoreError
from ctxkit.pipeline import ingest
from ctxkit.protocols import Encoder
from ctxkit.retrieval import Index
from ctxkit.retrieval.storage.settings import EncoderIdentity

_MANIFEST = "shard.json"
_MAKING = ".making-"  # what the name of an unfinished shard begins with


@dataclass(frozen=True, slots=True)
class ShardSettings:
    """What a shard depends on besides its files.

    root: folder that sources are named from. count: of all shards. max_tokens: of a chunk. encoder: what makes vectors.
    """

    root: str
    count: int
    max_tokens: int
    encoder: EncoderIdentity

    def digest(self) -> str:
        """Names these settings."""
        said = json.dumps([self.root, self.count, self.max_tokens, asdict(self.encoder)])
        return blake2b(said.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard that is whole.

    folder: the index. made: whether it was made now, and not found as it must be. skipped: files that are not in it.
    """

    number: int
    folder: Path
    sources: int
    chunks: int
    skipped: tuple[Skipped, ...]
    made: bool


def number_of(source: str, count: int) -> int:
    """Which of `count` shards a source belongs to; another file that comes or goes does not change it."""
    return int.from_bytes(blake2b(source.encode(), digest_size=8).digest(), "big") % count


class ShardMaker:
    """Makes shards, with one encoder for all of them.

    encoder: makes it, when it is first needed.
    """

    def __init__(self, encoder: Callable[[], Encoder]) -> None:
        self._make_encoder = encoder
        self._encoder: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._make_encoder()
        return self._encoder

    def identity(self) -> EncoderIdentity:
        """The encoder's."""
        return EncoderIdentity.of(self.encoder)

    def make(self, number: int, files: Sequence[str], folder: str, settings: ShardSettings) -> Shard:
        """The index of `files` below `folder`; found by the hash of what the files hold, or made.

        It is made on the local disk, where sqlite is safe, copied, and only then gets its name. What the shard held
        before is not encoded again.
        """
        prefix = f"{number:05}-{settings.digest()}"
        place = Path(folder) / f"{prefix}-{_digest(files)}"
        if not place.is_dir():
            with tempfile.TemporaryDirectory(prefix="ctxkit-shard-") as scratch:
                made = Path(scratch) / "index"
                before = next(iter(sorted(Path(folder).glob(f"{prefix}-*"))), None)
                if before is not None:
                    shutil.copytree(before, made)
                self._index(made, files, settings)
                _publish(made, place)
            return _shard(number, place, made=True)
        return _shard(number, place, made=False)

    def _index(self, place: Path, files: Sequence[str], settings: ShardSettings) -> None:
        chunker = Chunker(self.encoder.count_batch, settings.max_tokens)
        names = {source_name(file, settings.root) for file in files}
        known = _skipped(place) if place.is_dir() else ()
        with Index.open(place, encoder=self.encoder, create=True, engine="exact") as index:
            report = ingest(index, files, chunker=chunker, root=settings.root)
            index.delete(sources=index.sources().keys() - names)
            facts = {"sources": len(index.sources()), "chunks": len(index)}
        unread = {*report.unchanged}  # their records that were skipped still are
        skipped = [asdict(skip) for skip in (*report.skipped, *(skip for skip in known if skip.path in unread))]
        (place / _MANIFEST).write_text(json.dumps({**facts, "skipped": skipped}), encoding="utf-8")


def sweep(folder: Path, kept: Iterable[Path]) -> None:
    """Delete all shards but these, and what was left half made."""
    names = {place.name for place in kept}
    for place in folder.iterdir():
        if place.name not in names and (place.name.startswith(_MAKING) or (place / _MANIFEST).is_file()):
            shutil.rmtree(place, ignore_errors=True)


def _digest(files: Sequence[str]) -> str:
    """Names what the files are called and hold. One that cannot be read counts by its name."""
    hasher = blake2b(digest_size=16)
    for file in sorted(files):
        try:
            content = blake2b(Path(file).read_bytes(), digest_size=16).digest()
        except OSError:
            content = b""
        hasher.update(f"{len(file)} {len(content)} {file}".encode() + content)
    return hasher.hexdigest()


def _publish(made: Path, place: Path) -> None:
    """Copy the index to where all see it; it has its name when every byte is on the disk."""
    making = place.with_name(f"{_MAKING}{place.name}-{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(made, making)
        for path in [*making.rglob("*"), making]:
            _sync(path)
        os.rename(making, place)
        _sync(place.parent)
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        if not place.is_dir():  # else another worker was faster, with the same bytes
            raise StoreError(f"{place}: the shard cannot be written: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _facts(place: Path) -> dict[str, Any]:
    return json.loads((place / _MANIFEST).read_text(encoding="utf-8"))


def _skipped(place: Path) -> tuple[Skipped, ...]:
    return tuple(Skipped(**skip) for skip in _facts(place)["skipped"])


def _shard(number: int, place: Path, *, made: bool) -> Shard:
    facts = _facts(place)
    return Shard(number, place, facts["sources"], facts["chunks"], _skipped(place), made)
