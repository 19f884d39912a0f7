"""A process killed at any moment of a write loses nothing that was acknowledged and leaves nothing half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexLocked
from ctxkit.retrieval import HashingEncoder, Index

PRELUDE = """
import os, signal, sqlite3, sys
from pathlib import Path
from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index

folder = sys.argv[1]

def say(word):
    sys.stdout.write(word + "\\n")
    sys.stdout.flush()

def batch(name, size=3):
    return [Chunk(f"{name}-{n}", f"{name}.md", f"{name} text {n} of {size}") for n in range(size)]
"""

# The call of `point` whose number is given kills the process, before or after it does its work.
SELF_KILLER = (
    PRELUDE
    + """
point, moment, number = sys.argv[2], sys.argv[3], int(sys.argv[4])
calls = 0

def deadly(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == number and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

index = Index.open(folder, encoder=HashingEncoder(16), create=True)

class Connection(sqlite3.Connection):
    def execute(self, sql, *args):
        run = super().execute
        return (deadly(run) if point == "commit" and sql == "COMMIT" and self.total_changes else run)(sql, *args)

connect = sqlite3.connect
store.sqlite3.connect = lambda *a, **k: connect(*a, factory=Connection, **k)
if point == "fsync":
    os.fsync = deadly(os.fsync)
if point == "rename":
    Path.replace = deadly(Path.replace)
if point == "remove":
    segments.SegmentFolder.remove = deadly(segments.SegmentFolder.remove)

for n in range(4):
    index.add(batch(f"b{n}"))
    say(f"b{n}")
index.delete(sources=["b0.md", "b1.md", "b2.md"])
say("deleted")
index.replace_source("b3.md", "new", batch("b3", 2))
say("replaced")
"""
)

STEPS = ("b0", "b1", "b2", "b3", "deleted", "replaced")

HELD_WRITER = (
    PRELUDE
    + """
class Held(HashingEncoder):
    def encode_documents(self, texts, *, progress=False):
        say("writing")
        sys.stdin.readline()
        return super().encode_documents(texts, progress=progress)

index = Index.open(folder, encoder=Held(16))
index.add(batch("held"))
say("written")
"""
)


def state_after(steps: int) -> set[str]:
    if steps <= 4:
        return {f"b{n}-{i}" for n in range(steps) for i in range(3)}
    return {f"b3-{i}" for i in range(3 if steps == 5 else 2)}


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("point", "number"),
    [("commit", 1), ("commit", 4), ("commit", 5), ("commit", 6), ("fsync", 1), ("fsync", 4), ("rename", 2)]
    + [("rename", 5), ("remove", 2), ("remove", 8)],
)
def test_a_killed_writer_leaves_whole_steps_only(tmp_path, point, number, moment):
    result = run(SELF_KILLER, tmp_path, point, moment, number)
    assert result.returncode == -signal.SIGKILL, result.stderr
    acknowledged = len(result.stdout.split())
    assert result.stdout.split() == list(STEPS[:acknowledged])
    with Index.open(tmp_path) as index:
        found = {hit.chunk.id for hit in index.search("text", 100, mode="dense")}
        assert found in (state_after(acknowledged), state_after(acknowledged + 1))
        assert len(index) == len(found)
        if point == "commit":
            assert found == state_after(acknowledged + (moment == "after"))
        index.add([Chunk("later", "later.md", "text written after the crash")])
        assert index.search("crash", 1)[0].chunk.id == "later"
        files = {path.name for path in (tmp_path / "vectors").iterdir()}
        assert len(files) == index.stats().segments, "what the killed writer left behind was swept"


@pytest.fixture
def held_writer(tmp_path):
    """A process that is in the middle of a write to an index of one chunk, and waits there for a line."""
    with Index.open(tmp_path, encoder=HashingEncoder(16), create=True) as index:
        index.add([Chunk("old", "old.md", "old text")])
    writer = subprocess.Popen(
        [sys.executable, "-c", HELD_WRITER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
    yield writer
    writer.kill()
    writer.communicate()


def test_during_a_write_readers_see_the_old_state_and_a_second_writer_is_refused(tmp_path, held_writer):
    with Index.open(tmp_path) as index:
        assert [hit.chunk.id for hit in index.search("text")] == ["old"]
        for write in (
            lambda: index.add([Chunk("x", "x.md", "x")]),
            lambda: index.delete(ids=["old"]),
            lambda: index.replace_source("old.md", "1", []),
        ):
            with pytest.raises(IndexLocked, match="another writer is at work"):
                write()
        assert held_writer.communicate("\n")[0] == "written\n"
        assert {hit.chunk.id for hit in index.search("text")} == {"old", "held-0", "held-1", "held-2"}
        index.add([Chunk("x", "x.md", "x")])
        assert len(index) == 5


def test_a_writer_killed_while_it_encodes_frees_the_lock(tmp_path, held_writer):
    held_writer.kill()
    held_writer.communicate()
    with Index.open(tmp_path) as index:
        assert [hit.chunk.id for hit in index.search("text")] == ["old"]
        index.add([Chunk("new", "new.md", "new text")])
        assert len(index) == 2


def test_two_writers_of_one_process_exclude_each_other(tmp_path):
    class Nested(HashingEncoder):
        def encode_documents(self, texts, *, progress=False):
            with pytest.raises(IndexLocked):
                second.add([Chunk("b", "b.md", "b")])
            with pytest.raises(IndexLocked):
                first.delete(ids=["a"])
            assert first.search("a", mode="lexical") == []
            return super().encode_documents(texts, progress=progress)

    with (
        Index.open(tmp_path, encoder=Nested(16), create=True) as first,
        Index.open(tmp_path, encoder=HashingEncoder(16)) as second,
    ):
        first.add([Chunk("a", "a.md", "a")])
        second.add([Chunk("b", "b.md", "b")])
        assert len(first) == 2


def test_an_encoder_that_fails_leaves_the_index_as_it_was(tmp_path):
    class Failing(HashingEncoder):
        def encode_documents(self, texts, *, progress=False):
            raise RuntimeError("out of memory")

    with Index.open(tmp_path, encoder=HashingEncoder(16), create=True) as index:
        index.replace_source("a.md", "1", [Chunk("a", "a.md", "a")])
    with Index.open(tmp_path, encoder=Failing(16)) as index:
        with pytest.raises(RuntimeError, match="out of memory"):
            index.replace_source("a.md", "2", [Chunk("b", "a.md", "b")])
        assert (index.sources(), index.get("b"), len(index)) == ({"a.md": "1"}, None, 1)
        index.delete(ids=["a"])
