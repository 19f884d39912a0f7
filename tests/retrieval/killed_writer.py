"""A process whose children write to an index and kill themselves at a point that they are told.

It reads one task per line, as JSON, from stdin, and answers each with one line of JSON. Children are forked from it,
so that a killed writer costs milliseconds: it has no threads of its own, and no child lives longer than its task.

The module also says what is written (`STEPS`), so that a test knows what must be there after how many steps.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit.retrieval.storage import store

WORDS = "red green blue amber ochre violet umber cyan teal olive ivory plum".split()


def chunk(name: str, source: str = "a.md", length: int = 5) -> Chunk:
    """A chunk whose text has `length` words and no other chunk's name."""
    seed = sum(map(ord, name + source))
    words = [WORDS[(seed * 7 + 5 * n) % len(WORDS)] for n in range(length - 1)]
    return Chunk(name, source, " ".join([f"{name}{source[0]}", *words]))


def batch(name: str, size: int, source: str) -> list[Chunk]:
    return [chunk(f"{name}{n}", source) for n in range(size)]


# What is written, in an index that puts 12 rows into a file and codes them when there are more than 60, then 30.
STEPS: list[Callable[[Index], Any]] = [
    lambda index: index.add([chunk("single", "s.md", 3)]),  # stays in the database
    lambda index: index.add([chunk("second", "s.md", 3), chunk("third", "s.md", 4)]),
    lambda index: index.add(batch("b", 5, "b.md")),  # goes to a file
    lambda index: index.add([chunk("b0", "b.md", 4), chunk("single", "s.md", 6)]),  # replaced by id
    lambda index: index.replace_source("c.md", "first", batch("c", 6, "c.md")),  # coded by a new codebook
    lambda index: index.add([chunk("late", "d.md", 9)]),
    lambda index: index.add(batch("d", 6, "d.md")),  # coded by the codebook that is there
    lambda index: index.delete(sources=["s.md"], ids=["b1", "c2"]),
    lambda index: index.replace_source("c.md", "second", [chunk("c1", "c.md"), *batch("x", 8, "c.md")]),
    lambda index: index.compact(),  # coded anew, the dead left out
    lambda index: index.delete(sources=["b.md", "d.md", "nowhere.md"]),  # more than half is dead
    lambda index: index.add([]),
    lambda index: index.add(batch("y", 9, "y.md")),
]


@dataclass(frozen=True)
class Kind:
    """What is written to."""

    multi_vector: bool
    refine: bool = False

    def open(self, folder: Path, *, create: bool = False) -> Index:
        encoder = HashingEncoder(16, multi_vector=self.multi_vector)
        build = BuildOptions(exact_below_tokens=60, tail_tokens=30, fresh_rows=12, refine=self.refine)
        if not self.multi_vector:
            build = BuildOptions(fresh_rows=4)
        return Index.open(folder, encoder=encoder, create=create, build=build if create else None)


class Points:
    """Counts the moments at which something is written, and ends the process at one of them.

    last: the number of the moment that is survived by nobody, -1 for none. Each call is two moments: before and after.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self.kinds: list[str] = []

    def call(self, kind: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._pass(f"before {kind}")
        result = function(*args, **kwargs)
        self._pass(f"after {kind}")
        return result

    def _pass(self, kind: str) -> None:
        if len(self.kinds) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.kinds.append(kind)

    def install(self) -> None:
        """Put the points where the process writes. Only for a process that soon ends."""
        points, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> Any:
                run = super().execute
                if sql.startswith(("INSERT", "UPDATE", "DELETE", "CREATE", "PRAGMA incremental")):
                    return points.call("statement", run, sql, *parameters)
                if sql == "COMMIT" and self.in_transaction and self.total_changes:
                    return points.call("commit", run, sql)
                return run(sql, *parameters)

        store.sqlite3.connect = lambda *args, **kwargs: connect(*args, factory=Connection, **kwargs)
        fsync, replace, unlink = os.fsync, os.replace, Path.unlink
        os.fsync = lambda handle: points.call("fsync", fsync, handle)
        os.replace = lambda old, new: points.call(_replaced(new), replace, old, new)
        Path.unlink = lambda path, missing_ok=False: points.call("unlink", unlink, path, missing_ok=missing_ok)


def _replaced(path: os.PathLike[str]) -> str:
    return "acknowledgement" if Path(path).name == "acknowledged" else "replace"


def write(folder: Path, kind: Kind, step: int, last: int, report: int) -> None:
    """One step (-1: make the index), in a process that may not return from it."""
    points = Points(last)
    if step < 0:
        points.install()
        index = kind.open(folder, create=True)
    else:
        index = kind.open(folder)
        points.install()
        STEPS[step](index)
    answer = {"acknowledged": True, "points": points.kinds}
    os.write(report, json.dumps(answer).encode())
    os.kill(os.getpid(), signal.SIGKILL)  # without closing anything: the log stays behind


def in_a_child(work: Callable[[int], None]) -> dict[str, Any]:
    """What a child that does `work` reported before it died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(reading)
            work(writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return {"killed": killed, "acknowledged": False, **(json.loads(said) if said else {})}


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        kind, folder = Kind(**task["kind"]), Path(task["folder"])
        answer = in_a_child(lambda report: write(folder, kind, task["step"], task["last"], report))  # noqa: B023
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
