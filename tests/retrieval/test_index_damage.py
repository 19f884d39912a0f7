"""What is wrong with an index is said with a typed error that names the place and the remedy."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, IndexNotFound, StoreError
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval.multivector.options import BuildOptions
from ctxkit.retrieval.storage.tables import META, crc_of

WORDS = "red green blue amber ochre violet umber cyan teal olive ivory plum".split()


@pytest.fixture
def folder(tmp_path):
    with Index.open(tmp_path / "ix", encoder=HashingEncoder(16), create=True) as index:
        index.add([Chunk(f"c{n}", "a.md", f"word {n}") for n in range(9)])
    return tmp_path / "ix"


def meta(folder, key, value):
    """Changes the metadata, checksums and all, as another version of ctxkit would."""
    with sqlite3.connect(folder / "index.sqlite") as connection:
        row = (value, crc_of((key, value)), key)
        connection.execute(f"UPDATE {META.name} SET value = ?, crc = ? WHERE key = ?", row)
    connection.close()


def test_no_index_names_the_path_and_the_command(tmp_path):
    with pytest.raises(IndexNotFound, match=r"there is no index at .*nowhere.*ctxkit index FOLDER --to .*nowhere"):
        Index.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_index_whose_making_was_cut_short_is_no_index_and_can_be_made(tmp_path):
    (tmp_path / "index.sqlite").touch()
    with pytest.raises(IndexNotFound):
        Index.open(tmp_path)
    Index.open(tmp_path, encoder=HashingEncoder(16), create=True).close()


def test_create_opens_what_is_there(folder):
    with Index.open(folder, create=True) as index:
        assert len(index) == 9


def test_an_index_made_anew_where_the_database_was_deleted_owes_nothing_to_the_old_one(folder):
    (folder / "index.sqlite").unlink()
    with Index.open(folder, encoder=HashingEncoder(16), create=True) as index:
        assert index.search("word") == []
        index.add([Chunk("new", "a.md", "word")])
        index.verify()
    with Index.open(folder) as index:
        assert [hit.chunk.id for hit in index.search("word")] == ["new"]


@pytest.mark.parametrize("other", [HashingEncoder(8), HashingEncoder(16, multi_vector=True)])
def test_another_encoder_is_refused(folder, other):
    with pytest.raises(IndexMismatch, match="was made by encoder 'hashing-16'.*index the folder again"):
        Index.open(folder, encoder=other)


def test_an_encoder_that_has_changed_since_is_refused_when_it_is_needed(folder):
    identity = {"class_name": "HashingEncoder", "name": "hashing-16", "fingerprint": "older", "multi_vector": False}
    meta(folder, "encoder", json.dumps(identity))
    with Index.open(folder) as index:
        assert len(index.search("word", mode="lexical")) == 9
        with pytest.raises(IndexMismatch, match="older"):
            index.search("word")


def test_an_encoder_of_the_callers_own_must_be_given(folder):
    identity = {"class_name": "Mine", "name": "m", "fingerprint": "f", "multi_vector": False}
    meta(folder, "encoder", json.dumps(identity))
    with Index.open(folder) as index, pytest.raises(IndexMismatch, match=r"Index.open\(path, encoder="):
        index.search("word")


def test_another_format_is_refused(folder):
    meta(folder, "format_version", "99")
    with pytest.raises(IndexMismatch, match="format version '99'; this ctxkit reads 2"):
        Index.open(folder)


def test_a_format_that_had_no_checksums_is_refused(folder):
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("DROP TABLE meta")
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        connection.execute("INSERT INTO meta VALUES ('format_version', '1')")
    connection.close()
    with pytest.raises(IndexMismatch, match="format version '1'; this ctxkit reads 2"):
        Index.open(folder)


def test_a_damaged_format_version_is_damage_and_no_other_version(folder):
    with sqlite3.connect(folder / "index.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'format_version'")
    connection.close()
    with pytest.raises(StoreError, match=r"index\.sqlite: damaged") as raised:
        Index.open(folder)
    assert not isinstance(raised.value, IndexMismatch)


def test_a_file_that_is_no_database_is_refused(folder):
    (folder / "index.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"index\.sqlite: cannot be read"):
        Index.open(folder)


def test_metadata_that_makes_no_sense_is_refused(folder):
    meta(folder, "encoder", "{")
    with pytest.raises(StoreError, match="does not say which encoder"):
        Index.open(folder)


def test_a_closed_index_says_so(folder):
    index = Index.open(folder)
    index.close()
    index.close()
    for call in (index.sources, lambda: index.search("word", mode="lexical"), lambda: index.add([]), index.stats):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_an_index_in_memory_leaves_nothing(chunk):
    with Index.in_memory(encoder=HashingEncoder(8)) as index:
        path = index.path
        index.add([chunk("a")])
        assert path.exists()
    assert not path.exists()


def test_a_disk_that_is_full_leaves_the_index_as_it_was(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    build = BuildOptions(fresh_rows=4)
    with Index.open(tmp_path, encoder=HashingEncoder(16), create=True, build=build) as index:
        index.add([Chunk("old", "a.md", "old text")])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(StoreError, match=r"vectors.*cannot be written: .*No space left"):
                index.add([Chunk(f"c{n}", "a.md", f"word {n}") for n in range(9)])
        assert [hit.chunk.id for hit in index.search("text")] == ["old"]
        index.add([Chunk("new", "a.md", "new text")])
        assert list((tmp_path / "vectors").iterdir()) == []
        index.verify()


def chunks(name: str, size: int) -> list[Chunk]:
    draw = random.Random(name)
    return [
        Chunk(f"{name}{n}", f"{name}.md", " ".join(draw.choices(WORDS, k=5)), ("Title", name), metadata={"n": n})
        for n in range(size)
    ]


def written(folder: Path, kind: str) -> Index:
    """An index with fresh rows, and with files of rows or with a codebook and parts; half of it still in the log."""
    multi_vector = kind == "coded"
    build = BuildOptions(exact_below_tokens=60, tail_tokens=30, fresh_rows=12, refine=True)
    encoder = HashingEncoder(16, multi_vector=multi_vector)
    index = Index.open(
        folder, encoder=encoder, create=True, build=build if multi_vector else BuildOptions(fresh_rows=4)
    )
    index.add(chunks("a", 18))
    index.replace_source("b.md", "hash", chunks("b", 7))
    index.delete(ids=["a3", "b2"])
    index.close()  # which moves the log into the database
    index = Index.open(folder)
    index.add(chunks("c", 4))
    index.add(chunks("d", 1))
    return index


@pytest.fixture(scope="module", params=["rows, closed", "rows, killed", "coded, closed", "coded, killed"])
def whole(request, memory):
    """A folder with an index, and all that can be read from it. A killed writer leaves the log behind."""
    kind, end = request.param.split(", ")
    folder = memory / request.param
    index = written(memory / "written", kind)
    if end == "killed":
        shutil.copytree(memory / "written", folder)
        (folder / "index.sqlite-shm").unlink()  # made anew from the log by whoever opens first
    index.close()
    if end == "closed":
        shutil.copytree(memory / "written", folder)
    shutil.rmtree(memory / "written")
    answers = all_that_is_read(shutil.copytree(folder, memory / "read"))
    shutil.rmtree(memory / "read")
    return folder, answers


def all_that_is_read(folder: Path, *, verify: bool = True) -> list[object]:
    """Chunks, sources, vectors, and what searches find."""
    with Index.open(folder) as index:
        if verify:
            index.verify()
        found = [index.search(query, 100, mode=mode) for query in ("red ochre", "plum") for mode in ("dense", "hybrid")]
        ids = sorted(hit.chunk.id for hit in found[0])
        vectors = index.vectors_of(ids)
        filtered = index.search("teal", 100, where={"n": [1, 2]}, sources=["a*"])
        return [found, filtered, index.sources(), [index.get(id_) for id_ in ids], vectors.values.tobytes()]


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """A copy that may be damaged."""
    try:
        yield shutil.copytree(folder, folder.with_name("copy"))
    finally:
        shutil.rmtree(folder.with_name("copy"))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def positions(path: Path, count: int) -> list[int]:
    """Where to flip: at the first and the last byte, in the header, and in all parts of the file; always the same.

    Most bytes of a small database are zeros between its rows: of these are few.
    """
    data, draw = path.read_bytes(), random.Random(path.name)
    filled = [at for at, byte in enumerate(data) if byte]
    spread = [filled[len(filled) * n // count] for n in range(count)]
    return sorted({0, len(data) - 1, *spread, *(draw.randrange(min(len(data), at)) for at in (128, 512, 1 << 30) * 8)})


def flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


def outcome(folder: Path, answers: list[object], named: Path) -> str:
    """What comes of damage to the file `named`: "detected", or "unharmed" where nothing readable has changed."""
    try:
        read = all_that_is_read(folder)
    except IndexNotFound:
        return "detected"
    except StoreError as error:
        message = str(error)
        expected = {"index.sqlite-wal": "index.sqlite"}.get(named.name, named.name)
        assert expected in message, message
        return "detected"
    assert read == answers
    return "unharmed"


PER_FILE = 100


def test_any_flipped_bit_is_detected_or_changes_nothing_that_can_be_read(whole):
    folder, answers = whole
    outcomes: Counter[tuple[str, str]] = Counter()
    for path in files_of(folder):
        name = str(path.relative_to(folder))
        for position in positions(path, PER_FILE):
            with copied(folder) as copy:
                flip(copy / name, position, position % 8)
                result = outcome(copy, answers, copy / name)
            outcomes[name, result] += 1
            assert result == "detected" or name == "index.sqlite", f"byte {position} of {name}"
    assert outcomes.total() >= 300
    assert {name for name, result in outcomes if result == "detected"} == {
        str(path.relative_to(folder)) for path in files_of(folder)
    }


@pytest.mark.parametrize("size", [0, 0.5, -1])
def test_a_file_that_was_cut_short_is_detected(whole, size):
    folder, answers = whole
    for path in files_of(folder):
        with copied(folder) as copy:
            damaged = copy / path.relative_to(folder)
            data = damaged.read_bytes()
            damaged.write_bytes(data[: int(len(data) * size) if size >= 0 else -1])
            superseded = path.name == "index.sqlite" and (copy / "index.sqlite-wal").exists()
            assert outcome(copy, answers, damaged) == "detected" or superseded, path.name


def test_a_file_that_is_missing_is_detected(whole):
    folder, answers = whole
    for path in files_of(folder):
        with copied(folder) as copy:
            missing = copy / path.relative_to(folder)
            missing.unlink()
            assert outcome(copy, answers, missing) == "detected", path.name


def test_a_file_that_holds_another_file_s_bytes_is_detected(whole):
    folder, answers = whole
    arrays = sorted((folder / "vectors").iterdir())
    for one, other in zip(arrays, arrays[1:], strict=False):
        with copied(folder) as copy:
            shutil.copyfile(other, copy / "vectors" / one.name)
            with pytest.raises(StoreError):
                all_that_is_read(copy)


def test_no_changed_text_is_ever_read_without_an_error(whole):
    folder, answers = whole
    flipped = 0
    for path in files_of(folder):
        if not path.name.startswith("index.sqlite"):
            continue
        data = path.read_bytes()
        for word in WORDS[:6]:
            at = data.rfind(word.encode())
            if at < 0:
                continue
            with copied(folder) as copy:
                flip(copy / path.name, at + 1, 0)  # another letter
                try:
                    read = all_that_is_read(copy, verify=False)
                except StoreError as error:
                    assert "index.sqlite" in str(error)
                else:
                    assert read == answers
            flipped += 1
    assert flipped >= 6


def test_the_loss_of_an_acknowledged_write_in_the_log_is_detected_at_opening(memory):
    index = written(memory / "log", "coded")
    folder = shutil.copytree(memory / "log", memory / "killed")
    index.close()
    shutil.rmtree(memory / "log")
    log = folder / "index.sqlite-wal"
    data = log.read_bytes()
    for position in range(0, len(data), len(data) // 120):
        (folder / "index.sqlite-shm").unlink(missing_ok=True)
        with copied(folder) as copy:
            flip(copy / log.name, position, position % 8)
            with pytest.raises(StoreError, match=r"index\.sqlite-wal: damaged or missing: write 5 was acknowledged"):
                Index.open(copy)
