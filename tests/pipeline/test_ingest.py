"""ingest: what changed is read, what is gone is removed, what cannot be read is named, and nothing stops it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxkit.documents import Chunker
from ctxkit.pipeline import IngestReport, ingest
from ctxkit.retrieval import HashingEncoder, Index

Write = Callable[[str, str | bytes], Path]
Run = Callable[..., IngestReport]


def _texts(index: Index, query: str = "words") -> dict[str, str]:
    return {hit.chunk.location: hit.chunk.text for hit in index.search(query, k=1000)}


def test_a_first_run_adds_every_file(write: Write, run: Run, index: Index) -> None:
    write("docs/a.md", "# Penguins\n\nThey eat krill.\n")
    write("docs/deep/b.txt", "Trains run on rails.\n")
    report = run("docs")
    assert sorted(report.added) == ["docs/a.md", "docs/deep/b.txt"]
    assert (report.changed, report.unchanged, report.removed, report.skipped) == ([], [], [], [])
    assert report.chunks == len(index) == 2


def test_a_second_run_encodes_nothing(write: Write, run: Run, encoder: Any) -> None:
    for n in range(5):
        write(f"docs/{n}.txt", f"File number {n} is about topic {n}.")
    run("docs")
    encoder.calls.clear()
    report = run("docs")
    assert encoder.calls == []
    assert (len(report.unchanged), report.chunks, report.added, report.changed) == (5, 0, [], [])


def test_only_the_changed_file_is_encoded_again(write: Write, run: Run, index: Index, encoder: Any) -> None:
    write("docs/a.txt", "The old text of a.")
    write("docs/b.txt", "The text of b.")
    run("docs")
    encoder.calls.clear()
    write("docs/a.txt", "The new text of a.")
    report = run("docs")
    assert (report.changed, report.unchanged, encoder.calls) == (["docs/a.txt"], ["docs/b.txt"], [1])
    assert sorted(_texts(index).values()) == ["The new text of a.", "The text of b."]


def test_another_chunk_size_counts_as_a_change(write: Write, run: Run) -> None:
    write("docs/a.txt", "one two three four five six.\n\nseven eight nine ten eleven twelve.")
    run("docs", max_tokens=60)
    assert run("docs", max_tokens=8).changed == ["docs/a.txt"]
    assert run("docs", max_tokens=8).unchanged == ["docs/a.txt"]


def test_a_removed_file_leaves_the_index(write: Write, run: Run, index: Index) -> None:
    write("docs/a.txt", "The text of a.")
    write("docs/b.txt", "The text of b.")
    run("docs")
    os.remove("docs/a.txt")
    assert run("docs").removed == ["docs/a.txt"]
    assert list(index.sources()) == ["docs/b.txt"]
    assert list(_texts(index)) == ["docs/b.txt:1"]


def test_a_removed_file_that_is_named_leaves_the_index(write: Write, run: Run, index: Index) -> None:
    write("docs/a.txt", "The text of a.")
    write("docs/b.txt", "The text of b.")
    run("docs")
    os.remove("docs/a.txt")
    report = run("docs/a.txt")
    assert report.removed == ["docs/a.txt"]
    assert [(skip.path, skip.reason) for skip in report.skipped] == [("docs/a.txt", "no such file or folder")]
    assert list(index.sources()) == ["docs/b.txt"]


def test_another_folder_is_added_to_the_same_index(write: Write, run: Run, index: Index) -> None:
    write("docs/a.md", "# A\n\ntext")
    write("src/b.py", "def b():\n    return 1\n")
    run("docs")
    report = run("src")
    assert (report.added, report.removed) == (["src/b.py"], [])
    assert list(index.sources()) == ["docs/a.md", "src/b.py"]


def test_a_folder_whose_name_begins_like_another_is_not_below_it(write: Write, run: Run, index: Index) -> None:
    write("doc/a.txt", "text a")
    write("docs/b.txt", "text b")
    run("docs")
    run("doc")
    assert list(index.sources()) == ["doc/a.txt", "docs/b.txt"]


@pytest.mark.parametrize("content", [b"caf\xe9", b"", b"\0\1\2"], ids=["latin-1", "empty", "binary"])
def test_a_file_that_became_unreadable_loses_its_chunks_and_is_named(
    content: bytes, write: Write, run: Run, index: Index
) -> None:
    write("docs/a.txt", "The text of a.")
    write("docs/b.txt", "The text of b.")
    run("docs")
    write("docs/a.txt", content)
    report = run("docs")
    assert [skip.path for skip in report.skipped] == ["docs/a.txt"]
    assert report.removed == ["docs/a.txt"]
    assert list(index.sources()) == ["docs/b.txt"]
    assert list(_texts(index)) == ["docs/b.txt:1"]
    write("docs/a.txt", "The text of a is back.")
    assert run("docs").added == ["docs/a.txt"]


def test_a_file_without_permission_is_skipped(
    write: Write, run: Run, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("docs/a.txt", "The text of a.")
    write("docs/b.txt", "The text of b.")
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "a.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    report = run("docs")
    assert [(skip.path, skip.reason) for skip in report.skipped] == [
        ("docs/a.txt", "cannot be read: permission denied")
    ]
    assert report.added == ["docs/b.txt"]


def test_sources_are_named_from_the_working_directory_and_open_from_there(
    write: Write, run: Run, index: Index, home: Path
) -> None:
    write("docs/deep/a.md", "# Title\n\nfirst paragraph\n\n## Fact\n\nThe zorblax has 4321 wheels.\n")
    run(str(home / "docs"), max_tokens=8)  # an absolute path names the same sources
    (hit,) = index.search("zorblax wheels", k=1)
    assert hit.chunk.source == "docs/deep/a.md"
    lines = Path(hit.chunk.source).read_text().splitlines()[hit.chunk.start_line - 1 : hit.chunk.end_line]
    assert any("zorblax has 4321" in line for line in lines)
    assert hit.as_part().source == f"docs/deep/a.md:{hit.chunk.start_line}-{hit.chunk.end_line}"


def test_root_names_sources_from_elsewhere(write: Write, run: Run, index: Index, home: Path) -> None:
    write("docs/deep/a.txt", "text")
    run("docs", root=home / "docs")
    assert list(index.sources()) == ["deep/a.txt"]
    os.remove("docs/deep/a.txt")
    assert run("docs", root=home / "docs").removed == ["deep/a.txt"]


def test_a_folder_outside_of_the_working_directory_keeps_its_whole_path(
    write: Write, run: Run, index: Index, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("docs/a.txt", "text")
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    run("../docs")
    assert list(index.sources()) == [path.as_posix()]
    assert run("../docs").unchanged == [path.as_posix()]


def test_every_bad_file_gets_one_line_and_the_run_goes_on(write: Write, run: Run, index: Index, home: Path) -> None:
    write("docs/binary.dat", b"\0\1\2\3")
    write("docs/broken.pdf", b"%PDF-1.7 and then nothing")
    write("docs/empty.md", b"")
    write("docs/latin.txt", "café".encode("latin-1"))
    write("docs/records.jsonl", '{"text": \n')
    (home / "docs/here").symlink_to("here")
    (home / "docs/up").symlink_to("..")
    with (home / "docs/big.txt").open("wb") as file:
        file.truncate(200_000_000)
    write("docs/good.txt", "The only good file.")
    report = run("docs")
    assert report.added == ["docs/good.txt"]
    assert sorted(skip.path for skip in report.skipped) == [
        "docs/big.txt",
        "docs/binary.dat",
        "docs/broken.pdf",
        "docs/empty.md",
        "docs/here",
        "docs/latin.txt",
        "docs/records.jsonl",
        "docs/up",
    ]
    assert all(skip.reason and "\n" not in skip.reason for skip in report.skipped)
    assert list(_texts(index)) == ["docs/good.txt:1"]


def test_many_small_files_are_encoded_in_large_batches(write: Write, run: Run, index: Index, encoder: Any) -> None:
    for n in range(700):
        write(f"docs/{n // 100}/{n}.txt", f"note {n}")
    report = run("docs")
    assert (len(report.added), report.chunks, len(index)) == (700, 700, 700)
    assert encoder.calls == [512, 188]


def test_a_file_with_very_many_chunks_is_whole(write: Write, run: Run, index: Index) -> None:
    write("docs/long.txt", "\n\n".join(f"paragraph {n} says {n}" for n in range(1200)))
    report = run("docs", max_tokens=4)
    assert report.chunks == len(index) == 1200


def test_each_json_line_is_a_document(write: Write, run: Run, index: Index) -> None:
    records = [{"id": f"r{n}", "text": f"record {n} speaks of topic{n}"} for n in range(20)]
    write("data/all.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    report = run("data")
    assert (report.added, report.chunks) == (["data/all.jsonl"], 20)
    (hit,) = index.search("topic7", k=1)
    assert (hit.chunk.text, hit.chunk.location, hit.chunk.metadata["id"]) == (
        "record 7 speaks of topic7",
        "data/all.jsonl:8",
        "r7",
    )


def test_an_index_among_the_documents_is_none_of_them(write: Write, home: Path) -> None:
    write("docs/a.txt", "text")
    with Index.open(home / "docs" / "index", encoder=HashingEncoder(), create=True) as index:
        for _ in range(2):
            report = ingest(index, ["docs"], chunker=Chunker(index.encoder.count_batch))
            assert report.skipped == []
        assert list(index.sources()) == ["docs/a.txt"]


def test_a_report_reads_as_one_line_and_as_json(write: Write, run: Run) -> None:
    write("docs/a.txt", "text")
    write("docs/b.txt", b"")
    report = run("docs")
    assert str(report) == "1 added, 0 changed, 0 unchanged, 0 removed, 1 skipped; 1 chunks written"
    assert json.loads(json.dumps(report.to_dict())) == {
        "added": ["docs/a.txt"],
        "changed": [],
        "unchanged": [],
        "removed": [],
        "skipped": [{"path": "docs/b.txt", "reason": "empty file"}],
        "chunks": 1,
    }


def test_progress_goes_to_stderr(write: Write, index: Index, encoder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    write("docs/a.txt", "text")
    ingest(index, ["docs"], chunker=Chunker(encoder.count_batch), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "1/1" in shown.err
