"""An engine as bytes: the same engine comes back, or an error that says what to do."""

from __future__ import annotations

import numpy as np
import pytest

from ctxkit.errors import IndexMismatch, StoreError
from ctxkit.protocols import Vectors
from ctxkit.retrieval.engines import saved
from ctxkit.retrieval.engines.faiss_ann import HnswEngine, IvfEngine
from ctxkit.retrieval.engines.faiss_flat import FlatEngine
from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions
from ctxkit.retrieval.engines.token_ann import TokenAnnEngine
from ctxkit.retrieval.engines.tokens import FaissTokens

ENGINES = {
    "flat": FlatEngine,
    "ivf": lambda: IvfEngine(IvfOptions(probes=3, lists=10, flat_below_rows=0)),
    "ivf sq8": lambda: IvfEngine(IvfOptions(probes=3, code="sq8", flat_below_rows=0)),
    "ivf, still flat": IvfEngine,
    "hnsw": lambda: HnswEngine(HnswOptions(links=4, flat_below_rows=0)),
}


@pytest.fixture(params=ENGINES)
def engine(request, clustered):
    made = ENGINES[request.param]()
    made.add(clustered(600, rows_each=2))
    return made


def test_the_engine_that_comes_back_answers_alike_and_can_be_added_to(engine, clustered):
    state = engine.state()
    assert state.dtype == np.uint8
    queries = clustered(10, seed=1).values[:, None]
    for given in (state, state.tobytes()):
        again = type(engine).restore(given)
        assert repr(again) == repr(engine) and again.trained_rows == engine.trained_rows
        for query in queries:
            assert again.search(query, 9).positions.tolist() == engine.search(query, 9).positions.tolist()
    new = clustered(50, seed=2)
    again.add(new)
    assert again.search(new[4], 1).positions.tolist() == [604]


def test_an_empty_engine_comes_back(clustered):
    for engine in (FlatEngine(), IvfEngine(IvfOptions(probes=2))):
        again = type(engine).restore(engine.state())
        assert len(again) == 0 and repr(again) == repr(engine)
        again.add(clustered(3))
        assert len(again) == 3


def test_other_options_may_be_given(engine):
    if type(engine) is IvfEngine:
        again = IvfEngine.restore(engine.state(), IvfOptions(probes=7))
        assert "probes=7" in repr(again) and len(again) == 600


def test_every_damaged_byte_is_noticed(clustered):
    engine = IvfEngine(IvfOptions(flat_below_rows=0))
    engine.add(clustered(80))
    state = engine.state()
    for place in range(0, len(state), 97):
        damaged = state.copy()
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(StoreError, match="Build the engine anew"):
            IvfEngine.restore(damaged)


@pytest.mark.parametrize("length", [0, 5, 16, 200, -1])
def test_a_truncated_state_is_noticed(engine, length):
    with pytest.raises(StoreError, match="Build the engine anew"):
        type(engine).restore(engine.state()[:length])


def test_another_engines_state_is_refused():
    with pytest.raises(IndexMismatch, match="a HnswEngine of format 1 was saved, a IvfEngine of format 1 was asked"):
        IvfEngine.restore(HnswEngine().state())
    with pytest.raises(IndexMismatch, match="a FlatEngine of format 1 was saved, a FaissTokens"):
        FaissTokens.restore(FlatEngine().state())


def test_what_faiss_cannot_read_is_a_store_error():
    facts = {"trained_rows": 0, "recipe": "flat", "options": {}}
    arrays = {"index": np.arange(90, dtype=np.uint8), "offsets": np.zeros(1, np.int64)}
    with pytest.raises(StoreError, match="faiss cannot read the saved index"):
        FlatEngine.restore(saved.pack("FlatEngine", facts, arrays))


def test_rows_without_documents_are_a_store_error(clustered):
    engine = FlatEngine()
    engine.add(clustered(4))
    facts, arrays = saved.unpack(engine.state(), "FlatEngine")
    arrays["offsets"] = np.arange(4)
    with pytest.raises(StoreError, match="has 4 rows, its documents have 3"):
        FlatEngine.restore(saved.pack("FlatEngine", facts, arrays))


def test_arrays_come_back_aligned_whatever_their_sizes():
    arrays = {"a": np.arange(3, dtype=np.uint8), "b": np.zeros((0, 4), np.float32), "c": np.arange(5.0).reshape(5, 1)}
    facts, again = saved.unpack(saved.pack("X", {"n": 1}, arrays), "X")
    assert facts == {"n": 1}
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype and np.array_equal(again[name], array)


def test_a_token_engine_comes_back_with_its_index(clustered):
    vectors = clustered(300, rows_each=5)
    tokens = FaissTokens(IvfOptions(flat_below_rows=0))
    engine = TokenAnnEngine(tokens)
    engine.add(vectors)
    again = TokenAnnEngine.restore(engine.state(), FaissTokens.restore(tokens.state()))
    query = clustered(1, seed=4).values
    assert again.search(query, 7).positions.tolist() == engine.search(query, 7).positions.tolist()
    again.add(Vectors(query, np.array([0, 1])))
    assert again.search(query, 1).positions.tolist() == [300]
    damaged = engine.state()
    damaged[-1] ^= 1
    with pytest.raises(StoreError, match="damaged"):
        TokenAnnEngine.restore(damaged, tokens)
    with pytest.raises(IndexMismatch):
        TokenAnnEngine.restore(FlatEngine().state(), tokens)
