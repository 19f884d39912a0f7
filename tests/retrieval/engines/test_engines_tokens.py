"""XTR's imputation, and the engine around any index of tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines.imputation import imputed
from ctxkit.retrieval.engines.token_ann import TokenAnnEngine, TokenAnnOptions
from ctxkit.retrieval.engines.tokens import FaissTokens, TokenIndex


def slow_imputed(similar: np.ndarray, owners: np.ndarray) -> dict[int, float]:
    """The definition, one document and one query token at a time."""
    scores = {}
    for document in sorted(set(owners[owners >= 0].tolist())):
        scores[document] = 0.0
        for lane, retrieved in enumerate(owners):
            own = similar[lane][retrieved == document]
            known = similar[lane][retrieved >= 0]
            scores[document] += own.max() if len(own) else known.min() if len(known) else 0.0
    return scores


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(1, 12), st.sampled_from([0.0, 0.2, 0.9, 1.0]))
def test_imputation_is_what_its_definition_says(seed, lanes, depth, missing):
    rng = np.random.default_rng(seed)
    similar = rng.uniform(-1, 1, (lanes, depth)).astype(np.float32)  # in no order: a database may not sort
    owners = np.where(rng.random((lanes, depth)) < missing, -1, rng.integers(0, 5, (lanes, depth)))
    documents, scores = imputed(similar, owners)
    wanted = slow_imputed(similar, owners)
    assert documents.tolist() == list(wanted)
    assert np.allclose(scores, list(wanted.values()))


class Database:
    """An external index of tokens: plain lists of rows, and a record of what it was asked."""

    def __init__(self) -> None:
        self.rows = np.zeros((0, 8), np.float32)
        self.asked: list[int] = []

    def add(self, rows: np.ndarray) -> None:
        self.rows = np.concatenate([self.rows, rows])

    def search(
        self, query: np.ndarray, depth: int, allowed_rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(depth)
        similar = query @ self.rows.T
        if allowed_rows is not None:
            similar[:, ~allowed_rows] = -np.inf
        rows = np.argsort(-similar, axis=1)[:, :depth]
        best = np.take_along_axis(similar, rows, axis=1)
        return best, np.where(np.isfinite(best), rows, -1)


@pytest.fixture
def database() -> TokenIndex:
    return Database()


def test_any_index_of_rows_will_do(database, clustered, brute):
    vectors = clustered(400, rows_each=4, dims=8)
    engine = TokenAnnEngine(database, TokenAnnOptions(depth_tokens=100, rerank_documents=60))
    engine.add(vectors)
    query = vectors[5]
    truth = np.argsort(-brute(vectors, query), kind="stable")[:5]
    found = engine.search(query, 5)
    assert len(set(found.positions) & set(truth)) >= 4  # int8 rows may swap what is nearly alike
    assert np.allclose(found.scores, brute(vectors, query)[found.positions], atol=0.05)
    assert database.asked == [100]


def test_a_search_that_leads_to_too_few_documents_looks_further(database):
    """The first 90 rows, all of one document, are nearer than those of the others."""
    rows = np.zeros((150, 8), np.float32)
    rows[:90, 0], rows[90:, 0] = 1.0, 0.5
    engine = TokenAnnEngine(database, TokenAnnOptions(depth_tokens=10, rerank_documents=1))
    engine.add(Vectors(rows, np.concatenate([[0], np.arange(90, 151)])))
    query = np.eye(8, dtype=np.float32)[:1]
    assert engine.search(query, 1).positions.tolist() == [0] and database.asked == [10]
    assert engine.search(query, 3).positions.tolist() == [0, 1, 2] and database.asked[1:] == [10, 40, 150]


def test_where_even_that_is_too_little_every_allowed_document_is_scored(database):
    rows = np.full((2000, 8), 0.5, np.float32)
    rows[:1900] = 1.0
    engine = TokenAnnEngine(database, TokenAnnOptions(depth_tokens=1, rerank_documents=1))
    engine.add(Vectors(rows, np.concatenate([[0], np.arange(1900, 2001)])))
    assert len(engine.search(np.ones((1, 8), np.float32), 30)) == 30
    assert database.asked == [1, 4, 16]


def test_few_allowed_documents_do_not_ask_the_index(database, clustered):
    engine = TokenAnnEngine(database)
    vectors = clustered(300, rows_each=3, dims=8)
    engine.add(vectors)
    allowed = np.zeros(300, bool)
    allowed[[3, 50, 299]] = True
    assert sorted(engine.search(vectors[3], 10, allowed).positions) == [3, 50, 299]
    assert not database.asked


def test_an_index_that_refuses_rows_leaves_the_engine_as_it_was(clustered):
    engine = TokenAnnEngine(FaissTokens())
    with pytest.raises(ValueError, match="64 divides"):
        engine.add(clustered(3, dims=8))
    assert len(engine) == 0


def test_tokens_answer_in_the_shape_that_was_asked(clustered):
    tokens = FaissTokens()
    query = clustered(3).values
    similar, rows = tokens.search(query, 4)
    assert similar.shape == rows.shape == (3, 4) and (rows == -1).all()
    tokens.add(clustered(2).values)
    similar, rows = tokens.search(query, 4)
    assert rows.shape == (3, 4) and (rows[:, 2:] == -1).all() and (rows[:, :2] >= 0).all()
    _, rows = tokens.search(query, 1, np.array([False, True]))
    assert rows.tolist() == [[1]] * 3
    with pytest.raises(ValueError, match=r"`allowed_rows` must be bool \[2\]"):
        tokens.search(query, 1, np.ones(3, bool))
