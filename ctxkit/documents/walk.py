"""Finds the files to read below some paths, and says why it leaves out the others."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ctxkit.documents.decode import byte_order_mark
from ctxkit.documents.loaders import LOADERS

MAX_BYTES = 50_000_000
"""Files larger than this are left out unless the caller says otherwise."""

IGNORED_FOLDERS = frozenset({"node_modules", "__pycache__"})
"""Folders never entered, besides hidden ones (`.git`, `.venv`, ...). A path named by the caller is always entered."""

_BINARY_NAMES = """
    png jpg jpeg gif bmp ico webp tif tiff heic avif psd mp3 wav flac ogg m4a mp4 mov avi mkv webm
    zip gz tgz bz2 xz zst 7z rar tar jar whl egg iso dmg deb rpm woff woff2 ttf otf eot
    exe dll so dylib o pyc pyo pyd class wasm sqlite sqlite3 npy npz pt pth onnx safetensors gguf
    parquet arrow feather pkl doc docx xls xlsx ppt pptx odt epub
"""
BINARY_SUFFIXES = frozenset(f".{name}" for name in _BINARY_NAMES.split())
"""Suffixes that are binary whatever the first bytes look like."""

_HEAD_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that is not read, and the reason in one line."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Discovered:
    """What `discover` found.

    root: folder that sources are named from: the folder that was given, or the deepest folder common to all paths.
    files: the files to read, each real file once, sorted by path.
    skipped: what was left out, sorted by path.
    """

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Skipped, ...]


def discover(
    paths: Iterable[str | os.PathLike[str]] | str | os.PathLike[str], *, max_bytes: int = MAX_BYTES
) -> Discovered:
    """The files to read below `paths`, folders entered in sorted order.

    Hidden files and folders, `IGNORED_FOLDERS` and links to what is read anyway are passed over in silence; every other
    file that is not read is listed with its reason. No file is read beyond its first 8 KiB.

    paths: files or folders. max_bytes: larger files are skipped.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    walk = _Walk(max_bytes)
    for path in dict.fromkeys(Path(os.path.abspath(path)) for path in given):
        walk.start(path)
    return Discovered(
        _common_root(given),
        tuple(sorted(walk.files.values())),
        tuple(sorted(walk.skipped, key=lambda s: (s.path, s.reason))),
    )


def size_reason(size: int, max_bytes: int) -> str:
    """Why a file of `size` bytes is not read."""
    return f"too large: {size:,} bytes, the limit is {max_bytes:,} bytes"


def _common_root(given: Iterable[str | os.PathLike[str]]) -> Path:
    absolute = [os.path.abspath(path) for path in given]
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in absolute]
    existing = [folder for folder in folders if os.path.isdir(folder)]
    return Path(os.path.commonpath(existing)) if existing else Path.cwd()


@dataclass
class _Walk:
    """One run of `discover`. Links wait until the real files are known, so that a file goes by its real name."""

    max_bytes: int
    files: dict[str, Path] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    entered: set[str] = field(default_factory=set)
    loops: set[str] = field(default_factory=set)

    def start(self, path: Path) -> None:
        """Walks one path that the caller named; a link named by the caller is followed wherever it leads."""
        if path.is_symlink() and not path.exists():
            self._broken_link(path)
            return
        if not os.path.lexists(path):
            self.skip(path, "no such file or folder")
            return
        real = os.path.realpath(path)
        self._visit(path)
        while self.links:
            self._follow(self.links.pop(0), real)

    def skip(self, path: Path, reason: str) -> None:
        name = os.fsencode(path).decode("utf-8", "backslashreplace")
        self.skipped.append(Skipped(name, reason))

    def _visit(self, path: Path) -> None:
        if path.is_dir():
            self._enter(path)
        else:
            self._consider(path)

    def _enter(self, top: Path) -> None:
        stack = [top]
        while stack:
            folder = stack.pop()
            real = os.path.realpath(folder)
            if real in self.entered:
                continue
            self.entered.add(real)
            stack.extend(reversed(list(self._entries(folder))))

    def _entries(self, folder: Path) -> Iterator[Path]:
        """Considers the files of a folder, keeps its links for later, and yields its folders, sorted."""
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.skip(folder, _why(error))
            return
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith(".") or entry.name in IGNORED_FOLDERS:
                continue
            if entry.is_symlink():
                self.links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                yield path
            else:
                self._consider(path)

    def _follow(self, link: Path, real_root: str) -> None:
        if not link.exists():
            self._broken_link(link)
            return
        target = os.path.realpath(link)
        if not _is_below(target, real_root):
            self.skip(link, f"link leaves the folder: {target}")
        elif os.path.isdir(target) and _is_below(os.path.realpath(link.parent), target):
            self.skip(link, f"link loop: leads back to {target}")
        else:
            self._visit(link)

    def _broken_link(self, link: Path) -> None:
        """A link to nowhere, or to itself by way of others; a ring of links is reported once."""
        chain: list[str] = []
        path = os.path.abspath(link)
        while os.path.islink(path) and path not in chain:
            chain.append(path)
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        if path not in chain:
            self.skip(link, f"broken link: {path} does not exist")
            return
        ring = min(chain[chain.index(path) :])
        if ring not in self.loops:
            self.loops.add(ring)
            self.skip(link, "link loop: leads back to itself")

    def _consider(self, path: Path) -> None:
        """Lists a file, or says why not."""
        real = os.path.realpath(path)
        if real in self.files:
            return
        reason = self._refusal(path)
        if reason:
            self.skip(path, reason)
        else:
            self.files[real] = path

    def _refusal(self, path: Path) -> str | None:
        suffix = path.suffix.lower()
        try:
            path.name.encode("utf-8")
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return "not a regular file"
            if status.st_size == 0:
                return "empty file"
            if status.st_size > self.max_bytes:
                return size_reason(status.st_size, self.max_bytes)
            if suffix in BINARY_SUFFIXES:
                return f"binary file ({suffix})"
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
        except UnicodeEncodeError:
            return "file name is not UTF-8"
        except OSError as error:
            return _why(error)
        return None if suffix in LOADERS or _is_text(head) else "binary file"


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are text: UTF-8 without NUL, or anything with a byte order mark."""
    if byte_order_mark(head):
        return True
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < _HEAD_BYTES)
    except UnicodeDecodeError:
        return False


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _why(error: OSError) -> str:
    return f"cannot be read: {(error.strerror or str(error)).lower()}"
