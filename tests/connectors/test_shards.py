"""A shard is whole or not there; what a cluster cannot do is refused before it begins. No cluster is needed here."""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest

from ctxkit.errors import MissingExtra, StoreError
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit_connectors.ray import RayWorkers, check_importable, ingest_with_ray
from ctxkit_connectors.shards import ShardMaker, ShardSettings, number_of, sweep


class Killed(BaseException):
    pass


@pytest.fixture
def maker() -> ShardMaker:
    return ShardMaker(partial(HashingEncoder, 16))


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


def make(maker: ShardMaker, files: list[Path], place: Path):
    settings = ShardSettings(str(place.parent), 8, 50, maker.identity())
    return maker.make(3, list(map(str, files)), str(place), settings)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_a_shard_is_found_by_what_its_files_hold(maker, place, write):
    files = [write("a.md", "# A\n\nalpha\n"), write("b.md", "# B\n\nbeta\n")]
    first = make(maker, files, place)
    assert (first.number, first.sources, first.chunks, first.made) == (3, 2, 2, True)
    assert first.folder.name.startswith("00003-") and names(place) == [first.folder.name]
    again = make(maker, files[::-1], place)
    assert (again.folder, again.made) == (first.folder, False)
    write("b.md", "# B\n\ngamma\n")
    changed = make(maker, files, place)
    assert changed.made and changed.folder != first.folder
    only = make(maker, files[:1], place)
    with Index.open(only.folder, encoder=maker.encoder) as index:
        assert list(index.sources()) == ["a.md"]


def test_what_could_not_be_read_is_remembered_also_where_only_another_file_changed(maker, place, write):
    records = write("r.jsonl", '{"text": "alpha beta"}\nno json\n')
    other = write("a.md", "# A\n\nalpha\n")
    first = make(maker, [records, other], place)
    assert [skip.path for skip in first.skipped] == ["r.jsonl"]
    write("a.md", "# A\n\nbeta\n")
    assert make(maker, [records, other], place).skipped == first.skipped


@pytest.mark.parametrize("step", ["copytree", "rename"])
def test_a_death_while_a_shard_is_copied_leaves_none_of_its_name(maker, place, write, monkeypatch, step):
    files = [write("a.md", "# A\n\nalpha\n")]
    owner = shutil if step == "copytree" else os
    real = getattr(owner, step)

    def dies(source, target, *more):
        if step == "copytree":
            Path(target).mkdir()
        raise Killed

    monkeypatch.setattr(owner, step, dies)
    with pytest.raises(Killed):
        make(maker, files, place)
    (left,) = names(place)
    assert left.startswith(".making-00003-")
    monkeypatch.setattr(owner, step, real)
    shard = make(maker, files, place)
    assert shard.made
    (place / "notes.txt").write_text("of somebody else")
    sweep(place, [shard.folder])
    assert names(place) == [shard.folder.name, "notes.txt"]


def test_of_two_workers_that_make_one_shard_one_wins_and_both_have_it(maker, place, write, monkeypatch):
    files = [write("a.md", "# A\n\nalpha\n")]
    rename = os.rename

    def second(source, target):
        shutil.copytree(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", second)
    shard = make(maker, files, place)
    assert names(place) == [shard.folder.name]


def test_a_folder_that_cannot_be_written_is_named(maker, tmp_path, write):
    files = [write("a.md", "# A\n\nalpha\n")]
    write("file", "not a folder")
    with pytest.raises(StoreError, match=r"file/00003-.*: the shard cannot be written"):
        make(maker, files, tmp_path / "file")


def test_another_file_does_not_move_a_source_and_shards_are_about_equal():
    counts = [0] * 8
    for i in range(4000):
        counts[number_of(f"docs/{i}.md", 8)] += 1
    assert min(counts) > 400 and max(counts) < 600


@pytest.mark.parametrize(
    "encoder",
    [
        lambda: HashingEncoder(),
        HashingEncoder().encode_queries,
        partial(lambda: HashingEncoder()),
        partial(HashingEncoder, dims=[32]),
        HashingEncoder(),
        type("HashingEncoder", (HashingEncoder,), {"__module__": "ctxkit.retrieval.encoders.hashing"}),
        type("Own", (HashingEncoder,), {"__module__": "__main__"}),
    ],
)
def test_an_encoder_that_a_worker_cannot_import_is_refused(encoder):
    with pytest.raises(ValueError, match="`encoder` must be a"):
        check_importable(encoder)


def test_functions_classes_and_plain_partials_are_importable():
    for encoder in (HashingEncoder, partial(HashingEncoder, 64), partial(HashingEncoder, dims=64), ShardMaker):
        check_importable(encoder)


@pytest.mark.parametrize("wrong", [{"actors": 0}, {"attempts": 0}, {"num_cpus": -1}, {"num_gpus": -0.5}])
def test_workers_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be at least"):
        RayWorkers(**wrong)


def test_a_call_without_shards_or_without_ray_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="`shards` must be at least 1, got 0"):
        ingest_with_ray([tmp_path], tmp_path / "to", encoder=HashingEncoder, shards=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"'\.\[ray\]'"):
        ingest_with_ray([tmp_path], tmp_path / "to", encoder=HashingEncoder)
    assert not (tmp_path / "to").exists()
