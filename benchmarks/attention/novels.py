"""Six novels of Jane Austen, public domain, as plain text: long English for benchmarks of long contexts.

    python benchmarks/attention/novels.py [--folder FOLDER]

Fetches Debian's package r-cran-janeaustenr (1.6 MB, by `apt-get download` and `dpkg-deb`), reads R's lazy-load file
without R and writes a text file per novel. `novel` reads one of them.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_cache_dir

PACKAGE = "r-cran-janeaustenr"
NAMES = ("emma", "mansfield-park", "northanger-abbey", "persuasion", "pride-and-prejudice", "sense-and-sensibility")
FOLDER = Path(user_cache_dir("ctxkit")) / "texts"

_STRINGS_VECTOR, _STRING = 16, 9  # R's types STRSXP and CHARSXP


def novel(name: str, folder: Path = FOLDER) -> str:
    """The text of one of NAMES, its lines joined to paragraphs."""
    path = folder / f"{name}.txt"
    if not path.exists():
        raise SystemExit(f"{path} is not there: run `python benchmarks/attention/novels.py`, or give a text file")
    return path.read_text(encoding="utf-8")


def fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["apt-get", "download", "-q", PACKAGE], cwd=work, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(work).glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, work], check=True)
        (data,) = Path(work).rglob("Rdata.rdb")
        folder.mkdir(parents=True, exist_ok=True)
        for name, lines in zip(NAMES, map(strings, objects(data.read_bytes())), strict=True):
            (folder / f"{name}.txt").write_text(paragraphs(lines), encoding="utf-8")


def objects(data: bytes) -> Iterator[bytes]:
    """The serialised objects of a lazy-load file: each a length, and as much as zlib makes of what follows."""
    while data:
        inflater = zlib.decompressobj()
        yield inflater.decompress(data[4:])
        data = inflater.unused_data


def strings(serialised: bytes) -> list[str]:
    """A vector of strings in R's XDR form, version 3."""
    at = 14  # "X\n" and three numbers: version, writer, reader
    at += 4 + number(serialised, at)  # the encoding's name
    if number(serialised, at) & 0xFF != _STRINGS_VECTOR:
        raise ValueError("not a vector of strings")
    count, at, found = number(serialised, at + 4), at + 8, []
    for _ in range(count):
        if number(serialised, at) & 0xFF != _STRING:
            raise ValueError(f"no string at byte {at}")
        length = max(0, number(serialised, at + 4))
        found.append(serialised[at + 8 : at + 8 + length].decode("utf-8"))
        at += 8 + length
    return found


def number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big", signed=True)


def paragraphs(lines: list[str]) -> str:
    blocks, block = [], []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line.strip())
        elif block:
            blocks.append(" ".join(block))
            block = []
    return "\n\n".join(blocks) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    fetch(folder)
    for name in NAMES:
        print(f"{name:24}{len(novel(name, folder)):>12,} characters")


if __name__ == "__main__":
    main()
