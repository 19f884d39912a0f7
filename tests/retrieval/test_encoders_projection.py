"""Projections, pieces of texts, and vectors that know their tokens: each by itself, without a model."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ctxkit.errors import ModelNotFound
from ctxkit.protocols import Vectors
from ctxkit.retrieval.encoders.pieces import Cutter, punctuation_ids
from ctxkit.retrieval.encoders.projection import Projection
from ctxkit.retrieval.encoders.token_vectors import Rows, TokenVectors, byte_spans, joined, merged, rows_of


def unit_rows(rows: int, dims: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, dims)) * np.linspace(2, 0.1, dims)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def characters(specials: bool = True) -> Tokenizer:
    """One token per character: id 2 + its place below; spaces part words."""
    vocabulary = {"[C]": 0, "[S]": 1, **{c: i + 2 for i, c in enumerate(string.printable[:94])}, "?!": 200}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="[C]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if specials:
        tokenizer.post_processor = processors.TemplateProcessing("[C] $A [S]", None, [("[C]", 0), ("[S]", 1)])
    return tokenizer


def test_a_projection_keeps_inner_products_as_well_as_svd_does():
    rows = unit_rows(400, 24)
    projection = Projection.fit([rows[:150], rows[150:]], 8)
    assert projection.matrix.T @ projection.matrix == pytest.approx(np.eye(8), abs=1e-5)
    least = np.linalg.svd(rows.astype(np.float64), compute_uv=False)[8:]
    lost = rows - (rows @ projection.matrix) @ projection.matrix.T
    assert (lost**2).sum() == pytest.approx((least**2).sum(), rel=1e-4)


def test_all_dims_lose_nothing():
    rows = unit_rows(300, 16)
    projected = rows @ Projection.fit([rows], 16).matrix
    assert projected @ projected.T == pytest.approx(rows @ rows.T, abs=1e-5)


@given(order=st.permutations(range(6)))
def test_the_order_of_the_sample_does_not_matter(order):
    blocks = [unit_rows(40, 12, seed) for seed in range(6)]
    fitted = Projection.fit([blocks[i] for i in order], 4)
    assert fitted.matrix == pytest.approx(Projection.fit(blocks, 4).matrix, abs=1e-5)
    assert Projection.fit(blocks, 4).digest == Projection.fit(blocks, 4).digest


@pytest.mark.parametrize(
    ("rows", "dims"), [(np.zeros((0, 8), np.float32), 2), (unit_rows(3, 8), 4), (unit_rows(50, 8), 9)]
)
def test_too_small_a_sample_is_refused(rows, dims):
    with pytest.raises(ValueError, match=r"Give more|must be in 1\.\.8, got 9"):
        Projection.fit([rows], dims)
    with pytest.raises(ValueError, match="`dims`"):
        Projection.fit([], 1000)


def test_a_projection_comes_back_from_its_file_and_a_damaged_file_is_named(tmp_path):
    projection = Projection.fit([unit_rows(60, 8)], 3)
    projection.write(tmp_path / "p.npy")
    assert Projection.read(tmp_path / "p.npy").digest == projection.digest
    for damage in (b"", b"not numpy", (tmp_path / "p.npy").read_bytes()[:-9]):
        (tmp_path / "p.npy").write_bytes(damage)
        with pytest.raises(ModelNotFound, match=r"p\.npy: not a projection"):
            Projection.read(tmp_path / "p.npy")
    np.save(tmp_path / "p.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ModelNotFound):
        Projection.read(tmp_path / "p.npy")
    with pytest.raises(ValueError, match="finite float32"):
        Projection(np.full((3, 2), np.nan, np.float32))


@settings(max_examples=200)
@given(text=st.text(string.ascii_letters + "  .,!", max_size=60), length=st.integers(3, 30), specials=st.booleans())
def test_whatever_the_window_every_word_token_is_kept_once_and_in_order(text, length, specials):
    whole = list(Cutter(characters(specials), None).pieces([text]))
    pieces = list(Cutter(characters(specials), length).pieces([text]))
    assert len(whole) == 1
    for name in ("ids", "spans"):
        kept = np.concatenate([getattr(piece, name)[piece.kept] for piece in pieces])
        assert np.array_equal(kept, getattr(whole[0], name)[whole[0].kept])
    assert all(1 <= piece.kept.sum() <= len(piece.ids) <= length for piece in pieces)
    kept = [text[start:end] for start, end in whole[0].spans[whole[0].kept]]
    expected = [c for c in text if c.isalpha()] or [c for c in text if c != " "] or [""]
    assert kept == expected


def test_windows_give_both_sides_of_a_cut_context():
    pieces = list(Cutter(characters(), 10).pieces(["abcdefghijklmnopqrstuvwxyz"]))
    read = ["".join(string.printable[id_ - 2] for id_ in piece.ids[1:-1]) for piece in pieces]
    kept = ["".join(string.printable[id_ - 2] for id_ in piece.ids[piece.kept]) for piece in pieces]
    assert read == ["abcdefgh", "ghijklmn", "mnopqrst", "stuvwxyz"]
    assert kept == ["abcdefg", "hijklm", "nopqrs", "tuvwxyz"]


def test_punctuation_is_what_has_no_letter_digit_or_meaning_of_its_own():
    vocabulary = {
        "a": 0,
        ",": 1,
        "##'": 2,
        "。": 3,
        "Ġ—": 4,
        "▁": 5,
        "a.": 6,
        "[SEP]": 7,
        "3": 8,
        "$": 9,
        "🎉": 10,
        "..": 11,
    }
    assert punctuation_ids(vocabulary) == {1, 2, 3, 4, 9, 11}


def row_lists(tokens: bool):
    def made(counts: list[int]) -> list[Rows]:
        draw = np.random.default_rng(len(counts))
        known = [(draw.integers(0, 99, n, np.int32), draw.integers(0, 9, (n, 2), np.int32)) for n in counts]
        values = [draw.standard_normal((n, 3)).astype(np.float32) for n in counts]
        return [Rows(v, *k) if tokens else Rows(v) for v, k in zip(values, known, strict=True)]

    return st.lists(st.integers(0, 4), max_size=5).map(made)


@given(rows=st.booleans().flatmap(row_lists))
def test_joining_is_undone_by_taking_apart(rows):
    vectors = joined(rows, 3)
    assert len(vectors) == len(rows)
    for text, (before, after) in enumerate(zip(rows, rows_of(vectors), strict=True)):
        assert np.array_equal(vectors[text], before.values)
        for name in ("values", "token_ids", "spans"):
            assert np.array_equal(getattr(before, name), getattr(after, name))
    if rows:
        assert np.array_equal(merged(rows).values, vectors.values)


def test_one_text_without_known_tokens_makes_plain_vectors():
    known = Rows(np.ones((1, 2), np.float32), np.ones(1, np.int32), np.zeros((1, 2), np.int32))
    assert isinstance(joined([known, known], 2), TokenVectors)
    assert type(joined([known, Rows(known.values)], 2)) is Vectors


@given(text=st.text(max_size=30), data=st.data())
def test_byte_spans_cut_the_same_text(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    ((first, last),) = byte_spans(text, np.array([[start, end]])).tolist()
    assert text.encode()[first:last].decode() == text[start:end]
