"""Originals: one matrix for both stores, and what only the file has to promise."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctxkit.errors import StoreError
from ctxkit.session import MemoryOriginals, Originals, SqliteOriginals
from ctxkit.session.store import Shelf, digest_of

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=20)


@pytest.fixture(params=["memory", "sqlite"])
def originals(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Originals]:
    if request.param == "memory":
        yield MemoryOriginals()
    else:
        with SqliteOriginals(tmp_path / "originals.sqlite") as store:
            yield store


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=5))
def test_any_text_comes_back_as_it_was(originals: Originals, entries: dict[str, str]) -> None:
    for key, text in entries.items():
        originals.put(key, text)
    assert {key: originals.get(key) for key in entries} == entries


def test_lone_surrogates_nulls_and_line_ends_survive(originals: Originals) -> None:
    text = "a\ud800\x00\r\n\udfff b"
    originals.put("k\udc00", text)
    assert originals.get("k\udc00") == text


def test_an_unknown_key_is_none_and_a_second_put_replaces_the_first(originals: Originals) -> None:
    assert originals.get("a") is None
    originals.put("a", "one")
    originals.put("a", "two")
    assert originals.get("a") == "two"


def test_keys_are_those_that_begin_so_in_order(originals: Originals) -> None:
    for key in ("b/2", "b/10", "a/1", "b", "c/\U0010ffff"):
        originals.put(key, "")
    assert originals.keys("b/") == ("b/10", "b/2")
    assert originals.keys("c/") == ("c/\U0010ffff",)
    assert len(originals.keys()) == 5


def test_a_shelf_keeps_a_text_once_and_sessions_apart(originals: Originals) -> None:
    one, two = Shelf(originals, "one"), Shelf(originals, "two")
    for part_id in ("m10", "m2"):
        one.keep(part_id, "the same text")
    assert one.known() == ("m2", "m10")
    assert two.known() == ()
    assert two.original("m2") is None
    assert one.original("m2") == "the same text"
    assert len(originals.keys()) == 3, "two names and one text"


def test_a_text_that_is_not_the_one_that_was_stored_is_noticed(originals: Originals) -> None:
    shelf = Shelf(originals, "s")
    shelf.keep("m1", "right")
    originals.put(digest_of("right"), "wrong")
    with pytest.raises(StoreError, match="'m1' is damaged"):
        shelf.original("m1")


def test_a_reopened_file_has_everything_and_a_closed_one_says_that_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    store = SqliteOriginals(path)
    store.put("a", "text")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.get("a")
    with SqliteOriginals(str(path)) as again:
        assert again.get("a") == "text"
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_several_processes_write_at_once_and_all_of_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    code = (
        "import sys\nfrom ctxkit.session import SqliteOriginals\n"
        "with SqliteOriginals(sys.argv[1]) as store:\n"
        "    for i in range(40): store.put(f'{sys.argv[2]}/{i}', sys.argv[2] * i)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "xyz"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    with SqliteOriginals(path) as store:
        assert len(store.keys()) == 120
        assert store.get("y/39") == "y" * 39


def test_a_file_that_is_no_database_is_refused(write: Callable[[str, str | bytes], Path]) -> None:
    path = write("o.sqlite", "some notes, long enough to be taken for a header of a database " * 4)
    with pytest.raises(StoreError, match="not a database"):
        SqliteOriginals(path)
    assert path.read_text().startswith("some notes"), "and it is left alone"


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreError, match="something else"):
        SqliteOriginals(path)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "o.sqlite"):
        with pytest.raises(StoreError, match="cannot be read or written"):
            SqliteOriginals(path)


def test_damage_is_a_typed_error_and_never_another_text(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    with SqliteOriginals(path) as store:
        shelf = Shelf(store, "s")
        for i in range(60):
            shelf.keep(f"m{i}", f"text {i} " * 200)
    content = path.read_bytes()
    for start in range(4096, len(content), 8192):
        path.write_bytes(content[:start] + b"\xff" * 512 + content[start + 512 :])
        assert_damaged_or_right(path)
    path.write_bytes(content[: len(content) // 2])
    assert_damaged_or_right(path)


def assert_damaged_or_right(path: Path) -> None:
    wrong = 0
    try:
        with SqliteOriginals(path) as store:
            shelf = Shelf(store, "s")
            for i in range(60):
                try:
                    assert shelf.original(f"m{i}") in (f"text {i} " * 200, None)
                except StoreError:
                    wrong += 1
    except StoreError:
        wrong += 1
    assert wrong


def test_a_writer_that_waits_too_long_is_told_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxkit.session.store._WAIT_SECONDS", 0.0)
    path = tmp_path / "o.sqlite"
    with SqliteOriginals(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process") as refusal:
            store.put("a", "b")
        assert refusal.value.retryable
        other.execute("ROLLBACK")
        other.close()
        store.put("a", "b")
        assert store.get("a") == "b"
