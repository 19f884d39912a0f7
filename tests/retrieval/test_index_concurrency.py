"""Many may read an index while one writes; every result is that of one committed write."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexLocked
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit.retrieval.storage.acknowledged import acknowledged

PRELUDE = """
import sys
from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index

folder = sys.argv[1]

def say(word):
    sys.stdout.write(word + "\\n")
    sys.stdout.flush()
"""

HELD_WRITER = (
    PRELUDE
    + """
class Held(HashingEncoder):
    def encode_documents(self, texts, *, progress=False):
        say("writing")
        sys.stdin.readline()
        return super().encode_documents(texts, progress=progress)

index = Index.open(folder, encoder=Held(16))
index.add([Chunk(f"held-{n}", "held.md", f"held text {n} of 3") for n in range(3)])
say("written")
"""
)

READER = (
    PRELUDE
    + """
with Index.open(folder) as index:
    say("reading")
    while True:
        hits = index.search("common", 1000, mode=sys.argv[2])
        say(" ".join(sorted(f"{hit.chunk.id}={hit.chunk.text.split()[1]}" for hit in hits)))
        if any(hit.chunk.id == "end" for hit in hits):
            break
"""
)

WRITES = 24
SMALL = BuildOptions(exact_below_tokens=60, tail_tokens=30, fresh_rows=12, refine=True)


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture
def held_writer(tmp_path):
    """A process that is in the middle of a write to an index of one chunk, and waits there for a line."""
    with Index.open(tmp_path, encoder=HashingEncoder(16), create=True) as index:
        index.add([Chunk("old", "old.md", "old text")])
    writer = started(HELD_WRITER, tmp_path)
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
            index.compact,
        ):
            with pytest.raises(IndexLocked, match="another writer is at work"):
                write()
        index.verify()
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


def open_small(folder: Path, multi_vector: bool, *, create: bool = False) -> Index:
    build = SMALL if create else None
    return Index.open(folder, encoder=HashingEncoder(16, multi_vector=multi_vector), create=create, build=build)


def write(index: Index, number: int) -> None:
    """Write `number` of `WRITES`: some chunks, all of which carry the number, a deletion now and then, the end."""
    text = f"common {number} of words that differ {number * 7} {number * 11}"
    if number % 5 == 3:
        index.delete(ids=[f"a{n}" for n in range(0, 6, 2)])
    elif number % 7 == 6:
        index.compact()
    elif number % 2:
        index.add([Chunk(f"b{number}", "b.md", text)])
    else:
        index.replace_source("a.md", f"{number}", [Chunk(f"a{n}", "a.md", f"{text} {n}") for n in range(6)])
    if number == WRITES - 1:
        index.add([Chunk("end", "end.md", text)])


def seen(index: Index, mode: str) -> str:
    """What a search finds: ids, and the write that each text is of."""
    hits = index.search("common", 1000, mode=mode)  # type: ignore[arg-type]
    return " ".join(sorted(f"{hit.chunk.id}={hit.chunk.text.split()[1]}" for hit in hits))


@pytest.fixture(scope="module", params=["single", "coded"])
def committed(request, tmp_path_factory):
    """Whether the index is of token vectors, and what a search finds after each of the writes, in order."""
    multi_vector = request.param == "coded"
    states = [""]
    with open_small(tmp_path_factory.mktemp("committed") / "ix", multi_vector, create=True) as index:
        for number in range(WRITES):
            write(index, number)
            states.append(seen(index, "dense"))
        assert bool(index.stats().coded_rows) == multi_vector
    last = states[-1].split()  # the end comes in a write of its own
    return multi_vector, [*states[:-1], " ".join(word for word in last if not word.startswith("end=")), states[-1]]


def in_order(found: list[str], states: list[str]) -> bool:
    """Whether each result is a committed state, and none is older than the one before."""
    at = 0
    for one in found:
        if one not in states[at:]:
            return False
        at += states[at:].index(one)
    return True


def in_threads(*works: Callable[[], None]) -> None:
    """Runs all at once; raises the first error of any."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
def test_threads_find_one_committed_state_after_the_other(committed, tmp_path, mode):
    multi_vector, states = committed
    finished = threading.Event()
    found: list[list[str]] = [[], [], []]

    def writing() -> None:
        try:
            for number in range(WRITES):
                write(writer, number)
        finally:
            finished.set()

    def reading(index: Index, results: list[str]) -> None:
        last = False
        while not last:
            last = finished.is_set()
            results.append(seen(index, mode))
            index.stats()

    def verifying() -> None:
        while not finished.is_set():
            reader.verify()

    with (
        open_small(tmp_path / "ix", multi_vector, create=True) as writer,
        open_small(tmp_path / "ix", multi_vector) as reader,
        open_small(tmp_path / "ix", multi_vector) as other,
    ):
        readers = [lambda n=n, index=index: reading(index, found[n]) for n, index in enumerate([writer, reader, other])]
        in_threads(writing, verifying, *readers)
    for results in found:
        assert in_order(results, states)
        assert results[-1] == states[-1], "a search sees what was acknowledged before it began"


def test_a_process_finds_one_committed_state_after_the_other(committed, tmp_path):
    multi_vector, states = committed
    with open_small(tmp_path, multi_vector, create=True) as index:
        readers = [started(READER, tmp_path, mode) for mode in ("dense", "hybrid")]
        assert [reader.stdout.readline() for reader in readers if reader.stdout] == ["reading\n"] * 2
        for number in range(WRITES):
            write(index, number)
    for reader in readers:
        results = reader.communicate()[0].splitlines()
        assert reader.returncode == 0
        assert in_order(results, states)
        assert results[-1] == states[-1]


def test_writers_that_take_turns_lose_nothing(tmp_path):
    def writing(name: str) -> None:
        with open_small(tmp_path, True) as index:
            for number in range(12):
                while True:
                    try:
                        index.replace_source(f"{name}.md", f"{number}", [Chunk(name, f"{name}.md", f"{name} {number}")])
                        break
                    except IndexLocked:
                        continue
                assert acknowledged(tmp_path) >= index.stats().generation - 2, "of the others, one may be on its way"
                assert index.search(name, 1, mode="lexical")[0].chunk.text == f"{name} {number}"

    open_small(tmp_path, True, create=True).close()
    in_threads(*(lambda name=name: writing(name) for name in ("one", "two", "three")))
    with open_small(tmp_path, True) as index:
        index.verify()
        assert {id_: index.get(id_).text for id_ in ("one", "two", "three")} == {  # type: ignore[union-attr]
            id_: f"{id_} 11" for id_ in ("one", "two", "three")
        }
        assert index.stats().generation == acknowledged(tmp_path) == 36
        assert len(list((tmp_path / "vectors").glob("*"))) == index.stats().files
