"""A process killed at any moment of a write loses nothing that was acknowledged and leaves nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import StoreError
from ctxkit.retrieval import Index
from ctxkit.retrieval.document_text import document_text

from .killed_writer import STEPS, Kind, chunk

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")

KINDS = {"single": Kind(False), "coded": Kind(True, refine=True)}
WRITES = {"statement", "commit", "fsync", "replace", "acknowledgement", "unlink"}
QUIET = {"before statement", "after statement", "after fsync"}  # on disk, all is as it was at the point before
QUIET_PER_STEP = 6
CODEC_ERROR = 0.01


@dataclass
class Model:
    """What an index holds, as plain dicts. Understands what `STEPS` do."""

    chunks: dict[str, Chunk] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @classmethod
    def after(cls, steps: int) -> Model:
        model = cls()
        for step in STEPS[: max(steps, 0)]:
            step(model)  # type: ignore[arg-type]
        return model

    def add(self, chunks: list[Chunk]) -> None:
        self.chunks |= {chunk.id: chunk for chunk in chunks}
        self.sources = {chunk.source: "" for chunk in chunks} | self.sources

    def replace_source(self, source: str, content_hash: str, chunks: list[Chunk]) -> None:
        self.delete(sources=[source])
        self.add(chunks)
        self.sources[source] = content_hash

    def delete(self, sources: list[str], ids: list[str] | tuple[()] = ()) -> None:
        self.chunks = {
            id_: chunk for id_, chunk in self.chunks.items() if chunk.source not in sources and id_ not in ids
        }
        self.sources = {name: content for name, content in self.sources.items() if name not in sources}

    def compact(self) -> None:
        pass


@pytest.fixture(scope="module")
def killed():
    """killed(kind, folder, step, last): what a child that does the step to the index in `folder` said and did."""
    command = [sys.executable, str(Path(__file__).with_name("killed_writer.py"))]
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **quiet}
    )
    assert process.stdin is not None and process.stdout is not None

    def ask(kind: Kind, folder: Path, step: int, last: int = -1) -> dict[str, Any]:
        task = {"kind": asdict(kind), "folder": str(folder), "step": step, "last": last}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["killed"], "the writer failed before it could be killed"
        return answer

    yield ask
    process.communicate()


@dataclass(frozen=True)
class History:
    """One index through all steps. folders, points: by step, -1 for the making of the index."""

    kind: Kind
    folders: dict[int, Path]
    points: dict[int, list[str]]

    def chosen(self, step: int) -> list[int]:
        """The points at which a writer of this step is killed: all but most of the quiet ones."""
        kinds = list(enumerate(self.points[step]))
        quiet = [n for n, kind in kinds if kind in QUIET]
        return sorted({*quiet[:: -(-len(quiet) // QUIET_PER_STEP)], *(n for n, kind in kinds if kind not in QUIET)})


@pytest.fixture(scope="module", params=KINDS)
def history(request, killed, memory):
    kind, root = KINDS[request.param], memory / request.param
    root.mkdir()
    folders, points = {-1: root / "before"}, {}
    for step in range(-1, len(STEPS)):
        folder = root / f"after {step}"
        if folders[step].exists():
            shutil.copytree(folders[step], folder)
        answer = killed(kind, folder, step)
        assert answer["acknowledged"]
        folders[step + 1], points[step] = folder, answer["points"]
    return History(kind, folders, points)


def check(folder: Path, kind: Kind, model: Model) -> None:
    """The index is whole, holds what the model holds, and can be written to."""
    with kind.open(folder, create=True) as index:
        index.verify()
        check_contents(index, model)
        index.add([chunk("later", "z.md")])
        found = {hit.chunk.id for hit in index.search("red", 1000, mode="dense")}
        assert found == {*model.chunks, "later"}
        assert len(list((folder / "vectors").glob("*"))) == index.stats().files, "what was left behind is swept"
    assert {path.name for path in folder.iterdir()} <= {"acknowledged", "index.sqlite", "vectors"}


def check_contents(index: Index, model: Model) -> None:
    assert index.sources() == model.sources
    assert {hit.chunk.id: hit.chunk for hit in index.search("red", 1000, mode="dense")} == model.chunks
    for id_, own in model.chunks.items():
        assert [hit.chunk.id for hit in index.search(own.text.split()[0], 1, mode="lexical")] == [id_]
    if model.chunks:
        given = index.encoder.encode_documents([document_text(own) for own in model.chunks.values()])
        kept = index.vectors_of(list(model.chunks))
        assert kept.offsets.tolist() == given.offsets.tolist()
        assert np.allclose(kept.values, given.values, atol=CODEC_ERROR if index.stats().coded_rows else 0)


@pytest.mark.parametrize("step", range(-1, len(STEPS)))
def test_a_killed_writer_leaves_whole_steps_only(history, killed, memory, step):
    for last in history.chosen(step):
        folder = memory / "killed"
        if history.folders[step].exists():
            shutil.copytree(history.folders[step], folder)
        answer = killed(history.kind, folder, step, last)
        assert not answer["acknowledged"]
        committed = "after commit" in history.points[step][: last + 1]
        try:
            check(folder, history.kind, Model.after(step + committed))
        except (AssertionError, StoreError) as error:
            raise AssertionError(f"killed {history.points[step][last]} (point {last}) of step {step}") from error
        shutil.rmtree(folder)


def test_writers_are_killed_at_more_than_200_points_of_every_kind(history):
    chosen = Counter(history.points[step][last] for step in history.points for last in history.chosen(step))
    assert chosen.total() > 200
    assert set(chosen) == {f"{moment} {write}" for moment in ("before", "after") for write in WRITES}


def test_the_steps_pass_through_every_way_of_keeping_vectors(history, memory):
    stats = []
    for step in range(len(STEPS) + 1):
        folder = shutil.copytree(history.folders[step], memory / f"copy of {history.kind} {step}")
        with history.kind.open(folder) as index:
            stats.append(index.stats())
            check_contents(index, Model.after(step))
    assert stats[2].vector_rows and not stats[2].files, "in the database"
    assert stats[3].files and not stats[3].coded_rows, "in a file"
    assert max(one.dead_rows for one in stats) and not stats[11].dead_rows, "dead, and given back"
    if history.kind.multi_vector:
        assert 0 < stats[5].coded_rows < stats[7].coded_rows, "coded, by one codebook and then in its parts"
        assert stats[6].vector_rows > stats[6].coded_rows, "behind what is coded"


@pytest.mark.parametrize("step", [2, 4, 8])
def test_a_commit_that_was_cut_short_in_the_log_is_none(history, killed, memory, step):
    whole = memory / "whole"
    shutil.copytree(history.folders[step], whole)
    killed(history.kind, whole, step, history.points[step].index("after commit"))
    before = (history.folders[step] / "index.sqlite-wal").stat().st_size
    log = (whole / "index.sqlite-wal").read_bytes()
    assert len(log) > before
    for cut in [*range(before, len(log), 1501), len(log) - 1, len(log)]:
        folder = memory / "cut"
        shutil.copytree(whole, folder)
        (folder / "index.sqlite-wal").write_bytes(log[:cut])
        check(folder, history.kind, Model.after(step + (cut == len(log))))
        shutil.rmtree(folder)
    shutil.rmtree(whole)
