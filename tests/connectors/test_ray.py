"""An ingestion on a cluster gives what an ingestion here gives, whoever dies on the way."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ctxkit.documents import Chunker
from ctxkit.errors import IndexMismatch, StoreError
from ctxkit.pipeline import ingest
from ctxkit.retrieval import HashingEncoder, Index, merge
from ctxkit_connectors.ray import RayWorkers, ingest_with_ray
from tests.connectors.ray_encoders import DyingEncoder, LoggingEncoder, differing, failing
from tests.connectors.test_vector_databases import WORDS


@pytest.fixture(scope="module")
def cluster(repository: Path) -> Iterator[Any]:
    """Two machines, as far as Ray knows, of one processor each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(str(repository / part) for part in ("", "connectors", "kernels")))
        ray = pytest.importorskip("ray", reason="the extra ray is not installed")
        utils = pytest.importorskip("ray.cluster_utils")
        node = {"num_cpus": 1, "object_store_memory": 80 << 20}
        both = utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        both.add_node(**node)
        ray.init(address=both.address, logging_level="ERROR", log_to_driver=False)
        yield both
        ray.shutdown()
        both.shutdown()


@pytest.fixture
def documents(write, tmp_path) -> Path:
    draw = random.Random(0)
    for i in range(12):
        body = "\n\n".join(" ".join(draw.choices(WORDS, k=30)) for _ in range(3))
        write(f"docs/{i}.md", f"# {WORDS[i]}\n\n{body}\n")
    write("docs/empty.md", "")
    write("docs/picture.png", b"\x89PNG\0")
    return tmp_path / "docs"


@pytest.fixture
def log(tmp_path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


def here(documents: Path, encoder: Any, place: Path) -> Index:
    index = Index.open(place, encoder=encoder, create=True, engine="exact")
    ingest(index, [documents], chunker=Chunker(encoder.count_batch), root=documents)
    return index


def refuses(**_: object) -> None:
    raise ConnectionError("nobody there")


def noted(log: Path) -> list[str]:
    return [line for file in log.iterdir() for line in file.read_text().splitlines()]


def test_a_cluster_must_be_joined(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match="no Ray cluster is joined"):
        ingest_with_ray([tmp_path], tmp_path / "shards", encoder=HashingEncoder)
    with pytest.raises(StoreError, match="the Ray cluster at 'auto' cannot be joined"):
        monkeypatch.setattr(ray, "init", refuses)
        ingest_with_ray([tmp_path], tmp_path / "shards", encoder=HashingEncoder, address="auto")
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("multi_vector", [False, True], ids=["single", "multi"])
def test_a_merged_ingestion_answers_as_one_that_was_made_here(cluster, documents, log, tmp_path, multi_vector):
    make = partial(LoggingEncoder, str(log), multi_vector)
    done = ingest_with_ray([documents], tmp_path / "shards", encoder=make, shards=5, root=documents)
    assert 1 < len(done.shards) <= 5 and all(shard.made for shard in done.shards)
    assert {Path(skip.path).name for skip in done.skipped} == {"empty.md", "picture.png"}
    processes = len(list(log.iterdir()))
    assert noted(log).count("made") == processes <= 2, "once on each worker"

    encoder = HashingEncoder(32, multi_vector=multi_vector)
    merged = merge(
        done.folders,
        lambda stored: Index.open(tmp_path / "whole", encoder=stored, create=True, engine="exact"),
        encoder=encoder,
    )
    assert (merged.written, merged.chunks) == (12, sum(shard.chunks for shard in done.shards))
    with here(documents, encoder, tmp_path / "here") as own, Index.open(tmp_path / "whole", encoder=encoder) as whole:
        assert whole.sources() == own.sources()
        for mode in ("hybrid", "dense", "lexical"):
            assert whole.search("alpha kappa mu", 50, mode=mode) == own.search("alpha kappa mu", 50, mode=mode)


def test_a_second_run_makes_only_what_changed(cluster, documents, log, tmp_path):
    run = partial(ingest_with_ray, [documents], tmp_path / "shards", shards=4, root=documents)
    first = run(encoder=partial(LoggingEncoder, str(log)))
    assert run(encoder=partial(LoggingEncoder, str(log))).folders == first.folders
    before = [line for line in noted(log) if line != "made"]
    (documents / "3.md").write_text("# New\n\nomega psi\n")
    (documents / "4.md").unlink()
    again = run(encoder=partial(LoggingEncoder, str(log)))
    assert 1 <= sum(shard.made for shard in again.shards) <= 2
    assert len([line for line in noted(log) if line != "made"]) == len(before) + 1 and "encoded 1" in noted(log)
    assert sorted(place.name for place in (tmp_path / "shards").iterdir()) == [f.name for f in again.folders]
    encoder = HashingEncoder(32)
    merge(again.folders, lambda stored: Index.open(tmp_path / "whole", encoder=stored, create=True), encoder=encoder)
    with Index.open(tmp_path / "whole", encoder=encoder) as whole:
        assert len(whole.sources()) == 11 and whole.search("omega psi", 1)[0].chunk.source == "3.md"


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_worker_that_dies_is_replaced_and_the_index_is_whole(cluster, documents, log, tmp_path, deaths):
    make = partial(DyingEncoder, str(log), deaths)
    done = ingest_with_ray([documents], tmp_path / "shards", encoder=make, shards=3, root=documents)
    assert len(list(log.iterdir())) == deaths
    encoder = HashingEncoder(32)
    with here(documents, encoder, tmp_path / "here") as own:
        held: dict[str, str] = {}
        for folder in done.folders:
            with Index.open(folder, encoder=encoder) as shard:
                shard.verify()
                held |= shard.sources()
        assert held == own.sources()


def test_a_shard_whose_workers_all_die_is_named_and_leaves_nothing_half_made(cluster, documents, log, tmp_path):
    run = partial(ingest_with_ray, [documents], tmp_path / "shards", shards=1, root=documents)
    with pytest.raises(StoreError, match="shard 0 could not be made on the cluster"):
        run(encoder=partial(DyingEncoder, str(log), 99), workers=RayWorkers(attempts=2))
    assert len(list(log.iterdir())) == 2 and not list((tmp_path / "shards").iterdir())
    assert run(encoder=partial(HashingEncoder, 32)).shards[0].sources == 12


def test_no_files_make_no_shards(cluster, tmp_path):
    (tmp_path / "docs").mkdir()
    done = ingest_with_ray([tmp_path / "docs"], tmp_path / "shards", encoder=HashingEncoder)
    assert (done.shards, done.skipped) == ((), ())
    assert str(done) == "0 shards, 0 of them made now; 0 sources, 0 chunks, 0 skipped"


def test_workers_with_different_models_are_refused(cluster, documents, tmp_path):
    with pytest.raises(IndexMismatch, match="one worker's encoder is"):
        ingest_with_ray([documents], tmp_path / "shards", encoder=differing, shards=6, root=documents)


def test_an_error_of_a_worker_comes_through(cluster, documents, tmp_path):
    with pytest.raises(ValueError, match="`max_tokens` must be at least 1"):
        ingest_with_ray([documents], tmp_path / "shards", encoder=HashingEncoder, max_tokens=0)
    with pytest.raises(StoreError, match="the encoder could not be made on the cluster .*no such model"):
        ingest_with_ray([documents], tmp_path / "shards", encoder=failing)
