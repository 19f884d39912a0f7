"""The bench: measures are trec_eval's, collections are read as they are, every method is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.errors import DocumentError
from ctxkit.retrieval import HashingEncoder
from ctxkit.retrieval.bench import METHODS, ndcg, overlap, read_collection, recall, trial
from ctxkit.retrieval.bench.measures import percentile

RIVERS = [
    "The Rhine reaches the sea.",
    "The Moselle joins the Rhine.",
    "Ice closes the Danube in January of many years.",
]


@pytest.fixture
def beir(tmp_path: Path):
    def write(rows: list[dict], queries: list[dict] | None = None, **qrels: str) -> Path:
        folder = tmp_path / "rivers"
        (folder / "qrels").mkdir(parents=True, exist_ok=True)
        (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        if queries is not None:
            (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries), encoding="utf-8")
        for name, text in qrels.items():
            (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + text, encoding="utf-8")
        return folder

    return write


def passages(texts: list[str]) -> list[dict]:
    return [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]


IDS = [f"d{i}" for i in range(20)]


@given(
    st.permutations(IDS).flatmap(lambda order: st.integers(0, 20).map(lambda n: order[:n])),
    st.dictionaries(st.sampled_from(IDS), st.integers(0, 4), min_size=1),
)
def test_measures_are_those_of_trec_eval(found: list[str], grades: dict[str, int]) -> None:
    ir_measures = pytest.importorskip("ir_measures", exc_type=ImportError)
    run = {"q": {id_: float(-rank) for rank, id_ in enumerate(found)}}
    judged = ir_measures.calc_aggregate([ir_measures.nDCG @ 10, ir_measures.R @ 10], {"q": grades}, run)
    expected = judged if found else dict.fromkeys(judged, 0.0)
    assert ndcg(found, grades) == pytest.approx(expected[ir_measures.nDCG @ 10], abs=1e-9)
    assert recall(found, grades) == pytest.approx(expected[ir_measures.R @ 10], abs=1e-9)


def test_measures_by_hand() -> None:
    assert ndcg(["b", "a"], {"a": 2, "b": 1}) == pytest.approx((1 + 2 / 1.5849625) / (2 + 1 / 1.5849625))
    assert ndcg(["a"], {"a": -1, "b": 0}) == ndcg([], {"a": 1}) == ndcg(["a"], {}) == 0.0
    assert recall(["a", "x"], {"a": 1, "b": 3, "x": 0}) == 0.5
    assert overlap(["a", "c"], ["a", "b"]) == 0.5 and overlap(["a"], []) == 1.0
    assert (
        percentile([5.0, 1.0, 3.0], 0.5) == 3.0
        and percentile([5.0, 1.0], 0.95) == 5.0
        and percentile([2.0], 0.5) == 2.0
    )


def test_the_test_split_counts_and_only_judged_queries(beir) -> None:
    queries = [{"_id": "q1", "text": "sea"}, {"_id": "q2", "text": "ice"}, {"_id": "q3", "text": "nobody judged"}]
    folder = beir(passages(RIVERS), queries, test="q1\td0\t2\nq2\td0\t0\n", train="q2\td2\t1\n")
    collection = read_collection(folder)
    assert dict(collection.queries) == {"q1": "sea"} and collection.grades["q1"] == {"d0": 2}
    (folder / "qrels" / "test.tsv").unlink()
    assert dict(read_collection(folder).queries) == {"q2": "ice"}


def test_without_queries_sentences_of_the_passages_are_asked(beir) -> None:
    folder = beir(passages(RIVERS * 4))
    collection = read_collection(folder, most_queries=3)
    assert collection.sampled and len(collection.queries) == 3 and not collection.grades
    assert set(collection.queries.values()) <= {text for text in RIVERS if len(text.split()) >= 5}
    assert read_collection(folder, most_queries=3) == collection, "the same every time"
    assert len(read_collection(beir(passages(["short", "too"]))).queries) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("corpus.jsonl", None, "BEIR form has corpus.jsonl"),
        ("corpus.jsonl", "", "no passages"),
        ("corpus.jsonl", "{", "line 1 is not JSON"),
        ("corpus.jsonl", '{"_id": "a"}', "'_id' and 'text'"),
        ("corpus.jsonl", "[]", "'_id' and 'text'"),
        ("queries.jsonl", "", "no queries"),
        ("qrels/test.tsv", "head\nq1 d1 1\n", "line 2 is not query, passage and grade"),
        ("qrels/test.tsv", "q1\tnone\t0\n", "no query is judged"),
    ],
)
def test_what_is_no_collection_is_one_error_that_names_the_file(
    beir, name: str, content: str | None, said: str
) -> None:
    folder = beir(passages(RIVERS), [{"_id": "q1", "text": "sea"}])
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(DocumentError, match=said):
        read_collection(folder)


def hashing(multi_vector: bool):
    return lambda: HashingEncoder(32, multi_vector=multi_vector)


def test_every_method_is_measured_and_exact_ones_find_what_shares_words(beir) -> None:
    queries = [{"_id": "q1", "text": "Moselle"}, {"_id": "q2", "text": "Danube ice"}]
    folder = beir(
        passages([*RIVERS, *(f"filler number {i}" for i in range(40))]), queries, test="q1\td1\t1\nq2\td2\t1\n"
    )
    said: list[str] = []
    report = trial(read_collection(folder), single=hashing(False), by_token=hashing(True), said=said.append)
    assert [one.method for one in report.methods] == list(METHODS)
    by_name = {one.method: one for one in report.methods}
    assert by_name["lexical"].ndcg == by_name["hybrid"].ndcg == by_name["multivector-exact"].ndcg == 1.0
    assert {name for name, one in by_name.items() if one.of_exact is not None} == {"ivf", "hnsw", "multivector-coded"}
    assert all(one.bytes_per_passage > 0 < one.median_ms <= one.p95_ms for one in report.methods)
    assert [(one.vectors, one.rows) for one in report.encodings][0] == ("one vector per text", 43)
    assert report.encodings[1].rows > 43 and any("rivers" in line for line in said)


def test_without_judgements_only_agreement_with_exact_search_is_measured(beir) -> None:
    collection = read_collection(beir(passages(RIVERS)))
    report = trial(collection, ["multivector-coded"], single=hashing(False), by_token=hashing(True))
    (one,) = report.methods
    assert (one.ndcg, one.recall, one.of_exact) == (None, None, 1.0)
    assert [encoding.vectors for encoding in report.encodings] == ["one vector per token"], "no other is encoded"
    assert json.dumps(report.to_dict())


def test_an_unknown_method_is_named_with_those_there_are(beir) -> None:
    with pytest.raises(ValueError, match="lexical, flat, .*got 'faster'"):
        trial(read_collection(beir(passages(RIVERS))), ["faster"], single=hashing(False), by_token=hashing(True))
