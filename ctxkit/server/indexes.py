"""Indexes: documents that clients bring. Each key has its own, below one folder, and reaches no other."""

from __future__ import annotations

import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxkit.documents import Chunker, Document
from ctxkit.documents.loaders import LOADERS, text
from ctxkit.errors import CtxkitError, IndexNotFound

if TYPE_CHECKING:
    from ctxkit.protocols import Encoder
    from ctxkit.retrieval import Index

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MOST_OPEN = 64
_CHUNK_TOKENS = 200


class NoSuchIndex(CtxkitError):
    """There is no index of that name for this owner."""


@dataclass(frozen=True, slots=True)
class GivenDocument:
    """source: its name; the suffix says how it is read, as of a file (".md", ".html", ...).

    metadata: for filters; "label" is how far it is trusted, which only the client says, never the text of itself.
    """

    source: str
    text: str
    metadata: Mapping[str, Any]


@dataclass
class _Open:
    """path, inode: where it lay when it was opened."""

    index: Index
    path: Path
    inode: int
    users: int = 0
    writer: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gone(self) -> bool:
        """Whether another process has deleted it, and perhaps made a new one of that name."""
        try:
            return self.path.stat().st_ino != self.inode
        except FileNotFoundError:
            return True


class Indexes:
    """folder: where they are, one folder for each owner. encoder: of all of them. For several threads.

    Names are checked before they become paths: letters, digits, dashes and underscores.
    """

    def __init__(self, folder: str | Path, encoder: Encoder) -> None:
        self.folder = Path(folder)
        self.encoder = encoder
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self._lock = threading.Lock()

    def names(self, owner: str) -> list[str]:
        """The owner's indexes, sorted."""
        own = self._path(owner)
        return sorted(one.name for one in own.iterdir() if one.is_dir()) if own.is_dir() else []

    @contextmanager
    def opened(self, owner: str, name: str, *, create: bool = False) -> Iterator[Index]:
        """The index, open while the block runs. Raises NoSuchIndex, StoreError, ValueError for a name that is none."""
        with self._held(owner, name, create) as held:
            yield held.index

    @contextmanager
    def writing(self, owner: str, name: str, *, create: bool = False) -> Iterator[Index]:
        """As `opened`, for one writer at a time: the next one waits, instead of being refused by the index."""
        with self._held(owner, name, create) as held, held.writer:
            yield held.index

    @contextmanager
    def _held(self, owner: str, name: str, create: bool) -> Iterator[_Open]:
        key = (owner, _checked(name))
        with self._lock:
            held = self._current(key) or self._add(key, create)
            held.users += 1
            self._open.move_to_end(key)
        try:
            yield held
        finally:
            with self._lock:
                held.users -= 1
                if not held.users and self._open.get(key) is not held:
                    held.index.close()
                self._close_some()

    def _current(self, key: tuple[str, str]) -> _Open | None:
        """As it is open here; one that is gone is let go, by its last user where it has any."""
        held = self._open.get(key)
        if held is None or not held.gone:
            return held
        del self._open[key]
        if not held.users:
            held.index.close()
        return None

    def add(self, owner: str, name: str, documents: Sequence[GivenDocument]) -> int:
        """Adds documents, or replaces those of the same source, in one transaction; the chunks that were written.

        On disk when this returns. Raises DocumentError for a text that cannot be read as its suffix says.
        """
        chunker = Chunker(self.encoder.count_batch, _CHUNK_TOKENS)
        sources = [(one.source, _digest(one), chunker.chunk_all(_read(one))) for one in documents]
        with self.writing(owner, name, create=True) as index:
            return index.replace_sources((source, digest, list(chunks)) for source, digest, chunks in sources).added

    def delete(self, owner: str, name: str) -> None:
        """Deletes an index and its files. Raises NoSuchIndex; StoreError while it is used."""
        key = (owner, _checked(name))
        with self._lock:
            held = self._current(key)
            if held is not None and held.users:
                refusal = CtxkitError(f"the index {name!r} is in use; try again")
                refusal.retryable = True
                raise refusal
            if not (path := self._path(*key)).is_dir():
                raise NoSuchIndex(f"there is no index {name!r}")
            if held is not None:
                del self._open[key]
                held.index.close()
            shutil.rmtree(path)

    def close(self) -> None:
        with self._lock:
            for held in self._open.values():
                held.index.close()
            self._open.clear()

    def _add(self, key: tuple[str, str], create: bool) -> _Open:
        from ctxkit.retrieval import Index

        path = self._path(*key)
        if not create and not path.is_dir():
            raise NoSuchIndex(f"there is no index {key[1]!r}; add documents to it first")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            index = Index.open(path, encoder=self.encoder, create=create)
        except IndexNotFound as error:
            raise NoSuchIndex(f"there is no index {key[1]!r}; add documents to it first") from error
        return self._open.setdefault(key, _Open(index, path, path.stat().st_ino))

    def _close_some(self) -> None:
        for key in [key for key, held in self._open.items() if not held.users][: max(len(self._open) - _MOST_OPEN, 0)]:
            self._open.pop(key).index.close()

    def _path(self, owner: str, name: str | None = None) -> Path:
        own = self.folder / _checked(owner)
        return own if name is None else own / name


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a name has 1 to 64 letters, digits, dashes and underscores, got {name!r}")
    return name


def _read(given: GivenDocument) -> list[Any]:
    load = LOADERS.get(Path(given.source).suffix.lower(), text.load)
    return [replace(one, metadata=_metadata(one, given)) for one in load(given.text.encode(), given.source)]


def _metadata(read: Document, given: GivenDocument) -> dict[str, Any]:
    return {**{key: value for key, value in read.metadata.items() if key != "label"}, **given.metadata}


def _digest(given: GivenDocument) -> str:
    return blake2b(f"{_CHUNK_TOKENS}\0{given.text}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
