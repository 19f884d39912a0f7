"""A hit says which of its words answered the query, and an index tells what it holds and how."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexMismatch, IndexNotFound
from ctxkit.protocols import Vectors
from ctxkit.retrieval import CachedEncoder, HashingEncoder, Hit, Index
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.multivector.options import BuildOptions, SearchOptions

SMALL = BuildOptions(exact_below_tokens=60, tail_tokens=30, fresh_rows=12, refine=True)


def multi(dims: int = 64) -> HashingEncoder:
    return HashingEncoder(dims, multi_vector=True)


def searched(chunk: Chunk, query: str, mode: str = "dense") -> Hit:
    with Index.in_memory(encoder=multi(), engine="exact") as index:
        index.add([chunk, Chunk("other", "b.md", "nothing to see")])
        return next(hit for hit in index.search(query, mode=mode) if hit.chunk.id == chunk.id)  # type: ignore[arg-type]


def words_of(hit: Hit) -> list[tuple[str, str]]:
    """What the query asked and what the text answers, match by match."""
    data = hit.chunk.text.encode()
    return [(match.asked, data[match.start : match.end].decode()) for match in hit.matches]


def test_each_word_of_the_query_is_matched_with_the_word_that_answers_it_best():
    hit = searched(Chunk("c", "a.md", "The fox is red. Owls are brown."), "brown FOX")
    assert words_of(hit) == [("brown", "brown"), ("FOX", "fox")]
    assert [match.similarity for match in hit.matches] == pytest.approx([1, 1], abs=1e-5)


def test_a_word_that_no_word_of_the_text_equals_is_matched_with_its_nearest():
    hit = searched(Chunk("c", "a.md", "red fox"), "owl red")
    encoder = multi()
    similar = encoder.encode_documents(["red fox"]).values @ encoder.encode_queries(["owl"]).values[0]
    assert words_of(hit) == [("owl", ["red", "fox"][int(similar.argmax())]), ("red", "red")]
    assert hit.matches[0].similarity == pytest.approx(float(similar.max()), abs=1e-5)
    assert sum(match.similarity for match in hit.matches) == pytest.approx(hit.score, abs=1e-5)


def test_spans_count_bytes_of_the_text_whatever_its_alphabet():
    hit = searched(Chunk("c", "a.md", "Größe — 🎉 naïve\n日本 fox", ("Überschrift 🎉", "B")), "fox naïve größe 日本")
    assert words_of(hit) == [("fox", "fox"), ("naïve", "naïve"), ("größe", "Größe"), ("日本", "日本")]


def test_a_word_that_a_heading_answers_has_no_match():
    hit = searched(Chunk("c", "a.md", "a red fox", ("Animals", "Owls")), "owls fox animals")
    assert words_of(hit) == [("fox", "fox")]
    assert hit.score == pytest.approx(3, abs=1e-4), "but counts"


def test_a_word_in_a_heading_and_in_the_text_is_matched_in_at_most_one_place():
    hit = searched(Chunk("c", "a.md", "the fox", ("fox",)), "fox")
    assert words_of(hit) in ([], [("fox", "fox")])


def test_a_text_without_words_has_no_matches():
    hit = searched(Chunk("c", "a.md", "… !"), "fox")
    assert (hit.matches, hit.evidence) == ((), ())


def test_the_evidence_is_the_sentences_that_hold_the_matches():
    text = "Foxes run. The größe of a fox is small! Owls fly at night.\nA line without an end"
    hit = searched(Chunk("c", "a.md", text), "größe fox night")
    assert hit.snippets() == ["The größe of a fox is small!", "Owls fly at night."]
    assert [span.score for span in hit.evidence] == pytest.approx([2 / 3, 1 / 3], abs=1e-5)
    held = [any(span.start <= match.start < match.end <= span.end for span in hit.evidence) for match in hit.matches]
    assert held == [True] * 3


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_matches_come_with_vectors_and_not_without(mode):
    chunk = Chunk("c", "a.md", "a red fox")
    assert words_of(searched(chunk, "fox", mode)) == [("fox", "fox")]
    assert searched(chunk, "fox", "lexical").matches == ()
    with Index.in_memory(encoder=HashingEncoder(64)) as index:
        index.add([chunk])
        hit = index.search("fox", mode=mode)[0]
    assert hit.matches == ()
    assert hit.snippets() == ["a red fox"]


def test_an_encoder_that_does_not_say_where_its_tokens_stand_gives_no_matches():
    class Silent(HashingEncoder):
        def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
            vectors = super().encode_documents(texts)
            return Vectors(vectors.values, vectors.offsets)

    with Index.in_memory(encoder=Silent(64, multi_vector=True)) as index:
        index.add([Chunk("c", "a.md", "a red fox")])
        hit = index.search("fox")[0]
    assert (hit.matches, hit.snippets()) == ((), ["a red fox"])


def test_matches_are_plain_values_in_the_dict_of_a_hit():
    hit = searched(Chunk("c", "a.md", "a fox"), "fox")
    (match,) = hit.to_dict()["matches"]
    assert (match["start"], match["end"], match["asked"]) == (2, 5, "fox")


WORDS = "red fox blue owl green at night river stone größe".split()


@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=8, max_size=14),
    query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join),
    coded=st.booleans(),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_match_is_a_word_of_the_text_and_as_similar_as_it_says(texts, query, coded):
    encoder = multi()
    chunks = [Chunk(f"c{n}", "a.md", text, ("Head",) * (n % 2)) for n, text in enumerate(texts)]
    with Index.in_memory(encoder=encoder, build=SMALL if coded else None) as index:
        index.add(chunks)
        hits = index.search(query, 100, mode="dense")
    asked = {word: encoder.encode_queries([word]).values[0] for word in query.split()}
    for hit in hits:
        for match, (word, answer) in zip(hit.matches, words_of(hit), strict=True):
            assert answer in hit.chunk.text.split()
            true = float(encoder.encode_documents([answer]).values[0] @ asked[word])
            assert match.similarity == pytest.approx(true, abs=0.05 if coded else 1e-5)
        words = [match.asked for match in hit.matches]
        if not hit.chunk.title_path:
            assert words == query.split()
        for word in set(query.split()) & set(hit.chunk.text.split()):
            assert (word, word) in words_of(hit)
        assert sum(span.score for span in hit.evidence) == pytest.approx(1 if hit.evidence else 0, abs=1e-5)


@pytest.mark.parametrize("multi_vector", [False, True])
def test_vectors_of_are_those_of_the_encoder_in_the_order_that_was_asked(multi_vector):
    encoder = HashingEncoder(16, multi_vector=multi_vector)
    chunks = [Chunk(f"c{n}", "a.md", " ".join(["text"] * (n % 3)), ("T",) * (n % 2)) for n in range(9)]
    with Index.in_memory(encoder=encoder, build=BuildOptions(fresh_rows=4)) as index:
        for some in (chunks[:2], chunks[2:8], chunks[8:]):
            index.add(some)
        index.delete(ids=["c1"])
        asked = [chunks[n] for n in (8, 0, 3, 0, 5)]
        vectors = index.vectors_of([chunk.id for chunk in asked])
        given = encoder.encode_documents([document_text(chunk) for chunk in asked])
        assert vectors.offsets.tolist() == given.offsets.tolist()
        assert np.array_equal(vectors.values, given.values)
        assert index.vectors_of([]).offsets.tolist() == [0]
        for unknown in (["c1"], ["c0", "c99"]):
            with pytest.raises(KeyError, match=unknown[-1]):
                index.vectors_of(unknown)
        with pytest.raises(ValueError, match="single string 'c0'"):
            index.vectors_of("c0")
        assert len(index.search("text", 100)) == 8, "a wrong id does no harm"


def test_vectors_of_an_empty_index_are_none():
    with Index.in_memory(encoder=HashingEncoder(16)) as index:
        assert len(index.vectors_of([])) == 0
        with pytest.raises(KeyError):
            index.vectors_of(["c"])


@pytest.mark.parametrize(("refine", "error"), [(True, 0.005), (False, 0.15)])
def test_vectors_that_are_coded_come_back_nearly_as_they_were(refine, error):
    encoder = multi(16)
    build = BuildOptions(exact_below_tokens=60, tail_tokens=30, fresh_rows=12, refine=refine)
    chunks = [Chunk(f"c{n}", "a.md", f"red w{n} fox w{n * 7} at w{n * 11}") for n in range(60)]
    with Index.in_memory(encoder=encoder, build=build) as index:
        for chunk in chunks:
            index.add([chunk])
        index.compact()
        assert index.stats().coded_rows == index.stats().vector_rows == 360
        kept = index.vectors_of([chunk.id for chunk in chunks])
    given = encoder.encode_documents([chunk.text for chunk in chunks])
    assert np.abs(kept.values - given.values).max() < error


def test_stats_count_what_is_there(tmp_path):
    with Index.open(tmp_path, encoder=multi(16), create=True, build=SMALL) as index:
        empty = index.stats()
        assert (empty.chunks, empty.sources, empty.vector_rows, empty.files, empty.generation) == (0, 0, 0, 0, 0)
        index.add([Chunk(f"c{n}", f"{n % 3}.md", f"w{n} x{n} y{n} z{n}") for n in range(20)])
        index.add([Chunk("late", "late.md", "w x")])
        index.delete(ids=["c0", "c1"])
        stats = index.stats()
        assert (stats.chunks, stats.sources, stats.generation, stats.format_version) == (19, 4, 3, 2)
        assert (stats.vector_rows, stats.dead_rows, stats.coded_rows, stats.files) == (82, 8, 80, 2)
        assert (stats.encoder, stats.engine, stats.multi_vector, stats.path) == (
            "hashing-16",
            "auto",
            True,
            str(tmp_path),
        )
        assert stats.disk_bytes >= sum(path.stat().st_size for path in (tmp_path / "vectors").iterdir()) > 0
        index.compact()
        stats = index.stats()
        assert (stats.vector_rows, stats.dead_rows, stats.coded_rows, stats.files) == (74, 0, 74, 2)
        index.verify()


def test_compacting_gives_the_room_of_deleted_texts_back(tmp_path):
    with Index.open(tmp_path, encoder=HashingEncoder(16), create=True, build=BuildOptions(fresh_rows=4)) as index:
        for n in range(40):
            index.add([Chunk(f"c{n}", "a.md", f"text {n} " + "x" * 20_000)])
    full = (tmp_path / "index.sqlite").stat().st_size
    with Index.open(tmp_path) as index:
        index.delete(ids=[f"c{n}" for n in range(38)])
        index.compact()
        assert index.stats().dead_rows == 0
        assert {hit.chunk.id for hit in index.search("text")} == {"c38", "c39"}
    assert (tmp_path / "index.sqlite").stat().st_size < full / 4


def test_compacting_an_index_changes_no_answer(tmp_path):
    for multi_vector, build in ((False, BuildOptions(fresh_rows=4)), (True, BuildOptions(fresh_rows=12))):
        encoder = HashingEncoder(16, multi_vector=multi_vector)
        with Index.in_memory(encoder=encoder, build=build) as index:
            for n in range(30):
                index.add([Chunk(f"c{n}", "a.md", f"text {n} of {n % 7}")])
            index.delete(ids=[f"c{n}" for n in range(0, 30, 3)])
            before = index.search("text of 5", 100)
            index.compact()
            assert index.search("text of 5", 100) == before
            index.compact()
            assert index.search("text of 5", 100) == before


@pytest.mark.parametrize("engine", ["ivf", "hnsw", "flat"])
def test_an_engine_for_single_vectors_is_refused_for_token_vectors(tmp_path, engine):
    with pytest.raises(ValueError, match=f"auto, exact, multivector for several vectors per text, got '{engine}'"):
        Index.open(tmp_path / "ix", encoder=multi(), create=True, engine=engine)
    assert not (tmp_path / "ix").exists()


def test_the_engine_for_token_vectors_is_refused_for_single_vectors(tmp_path):
    with pytest.raises(ValueError, match="auto, exact, flat, ivf, hnsw for one vector per text, got 'multivector'"):
        Index.open(tmp_path / "ix", encoder=HashingEncoder(8), create=True, engine="multivector")


def test_an_engine_that_nobody_knows_is_refused_before_anything_is_made(tmp_path):
    for create in (True, False):
        with pytest.raises(ValueError, match="`engine` must be one of auto, exact, .*, got 'annoy'"):
            Index.open(tmp_path / "ix", encoder=HashingEncoder(8), create=create, engine="annoy")  # type: ignore[arg-type]
    assert not (tmp_path / "ix").exists()


def test_an_index_keeps_the_engine_that_it_was_made_with(tmp_path):
    with Index.open(tmp_path, encoder=multi(), create=True, engine="exact", build=SMALL) as index:
        index.add([Chunk(f"c{n}", "a.md", f"w{n} x{n} y{n} z{n}") for n in range(40)])
        assert index.stats().coded_rows == 0, "exact never codes"
    for engine, build in (("auto", None), ("multivector", None), (None, BuildOptions()), ("flat", None)):
        with pytest.raises(IndexMismatch, match="was made for engine .*Open it without `engine` and `build`"):
            Index.open(tmp_path, engine=engine, build=build)  # type: ignore[arg-type]
    for engine, build in ((None, None), ("exact", None), ("exact", SMALL)):
        with Index.open(tmp_path, engine=engine, build=build) as index:  # type: ignore[arg-type]
            assert index.stats().engine == "exact"


def test_how_far_a_search_looks_may_differ_from_opening_to_opening(tmp_path):
    with Index.open(tmp_path, encoder=multi(), create=True, build=SMALL) as index:
        index.add([Chunk(f"c{n}", "a.md", f"w{n} x{n} y{n} z{n}") for n in range(40)])
    for search in (SearchOptions(1, 1, 1, 1, 0), SearchOptions(10**6, 10**9, 10**6, 10**6, 10**6)):
        with Index.open(tmp_path, search=search) as index:
            assert index.search("w7 x7", 1)[0].chunk.id == "c7"
            assert len(index.search("w7 x7", 100, mode="dense")) == 40


def test_an_index_made_through_a_cache_opens_without_it(tmp_path):
    for multi_vector in (False, True):
        folder = tmp_path / str(multi_vector)
        cached = CachedEncoder(HashingEncoder(16, multi_vector=multi_vector), tmp_path / "cache.sqlite")
        with Index.open(folder, encoder=cached, create=True) as index:
            index.add([Chunk(f"c{n}", "a.md", f"word {n}") for n in range(9)])
            before = index.search("word 3", 9)
        with Index.open(folder) as index:
            assert index.search("word 3", 9) == before
            assert isinstance(index.encoder, HashingEncoder)
        with Index.open(folder, encoder=cached) as index:
            assert index.search("word 3", 9) == before
        with Index.open(folder, encoder=HashingEncoder(16, multi_vector=multi_vector)) as index:
            assert index.search("word 3", 9) == before


def test_an_encoder_argument_must_fit_what_the_index_says(tmp_path):
    with pytest.raises(IndexNotFound):
        Index.open(tmp_path / "none", encoder=multi())
    Index.open(tmp_path, encoder=multi(), create=True).close()
    for other in (HashingEncoder(64), multi(32)):
        with pytest.raises(IndexMismatch, match="was made by encoder 'hashing-64'"):
            Index.open(tmp_path, encoder=other, create=True)


def test_equal_texts_share_their_vectors_and_are_matched_each():
    with Index.in_memory(encoder=multi()) as index:
        index.add([Chunk(f"c{n}", f"{n}.md", "a red fox") for n in range(3)])
        hits = index.search("fox", mode="dense")
        assert index.stats().vector_rows == 3
    assert [words_of(hit) for hit in hits] == [[("fox", "fox")]] * 3
    assert all(first.score == second.score for first, second in pairwise(hits))
