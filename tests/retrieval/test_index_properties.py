"""Whatever is done to an index, it holds what a plain dict would hold and finds what brute force finds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.engines.base import DECIMALS
from ctxkit.retrieval.multivector.options import BuildOptions, SearchOptions
from ctxkit.retrieval.storage.settings import EngineName
from ctxkit.retrieval.terms import terms

from .conftest import IN_MEMORY

EXACT = 3e-6
INT8 = 0.03  # of a score: queries, and rows that are refined, are rounded to int8
FARTHEST = SearchOptions(10**6, 10**9, 10**6, 10**6, 10**6)

words = st.sampled_from("red fox blue owl green at night river stone".split())
texts = st.lists(words, max_size=9).map(" ".join)
queries = st.lists(words, min_size=1, max_size=3).map(" ".join)
ids = st.sampled_from([f"c{n}" for n in range(24)])
sources = st.sampled_from(["a.md", "b/c.py", "d.txt"])
metadata = st.fixed_dictionaries({}, optional={"year": st.integers(2000, 2004), "lang": st.sampled_from(["en", "de"])})
bodies = st.dictionaries(ids, st.tuples(texts, metadata), max_size=12)
globs = st.none() | st.lists(st.sampled_from(["a.md", "b/*", "*.txt", "*", "nothing"]), max_size=2)

Keeps = Callable[[Chunk], bool]


def of_lang(lang: str) -> tuple[dict[str, Any], Keeps]:
    return {"lang": lang}, lambda chunk: chunk.metadata.get("lang") == lang


def since(year: int) -> tuple[dict[str, Any], Keeps]:
    return {"year": {">=": year}}, lambda chunk: chunk.metadata.get("year", 0) >= year


def not_of(lang: str, year: int) -> tuple[dict[str, Any], Keeps]:
    where = {"lang": {"!=": lang}, "year": [year, year + 1]}
    return (
        where,
        lambda chunk: chunk.metadata.get("lang", lang) != lang and chunk.metadata.get("year") in (year, year + 1),
    )


def asked_of(letters: str) -> tuple[Keeps, Keeps]:
    def keeps(chunk: Chunk) -> bool:
        return chunk.id[-1] in letters

    return keeps, keeps


langs, years = st.sampled_from(["en", "de", "fr"]), st.integers(1999, 2005)
filters = (
    st.just((None, lambda chunk: True))
    | st.builds(of_lang, langs)
    | st.builds(since, years)
    | st.builds(not_of, langs, years)
    | st.builds(asked_of, st.sampled_from(["0123", "7", "x"]))
)


class AgainstADict(RuleBasedStateMachine):
    """The rules; how exact the answers are is for the subclasses to say."""

    encoder = HashingEncoder(16)
    engine: EngineName | None = "exact"
    build = BuildOptions(fresh_rows=5)
    score_error = EXACT
    vector_error = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.chunks: dict[str, Chunk] = {}
        self.hashes: dict[str, str] = {}
        self.index = self.opened(create=True)
        self.other = self.opened()

    def opened(self, create: bool = False) -> Index:
        made = {"engine": self.engine, "build": self.build} if create else {}
        return Index.open(self.folder, encoder=self.encoder, create=create, search=FARTHEST, **made)

    @rule(body=bodies, source=sources)
    def add(self, body, source):
        new = {id_: Chunk(id_, source, text, metadata=known) for id_, (text, known) in body.items()}
        self.index.add(new.values())
        self.chunks |= new
        if new:
            self.hashes.setdefault(source, "")

    @rule(body=bodies, source=sources, content_hash=st.sampled_from(["h1", "h2"]))
    def replace_source(self, body, source, content_hash):
        new = {id_: Chunk(id_, source, text, metadata=known) for id_, (text, known) in body.items()}
        self.index.replace_source(source, content_hash, list(new.values()))
        self.chunks = {id_: c for id_, c in self.chunks.items() if c.source != source} | new
        self.hashes[source] = content_hash

    @rule(gone=st.sets(ids, max_size=6))
    def delete_chunks(self, gone):
        removed = self.index.delete(ids=gone).removed
        assert removed == len(gone & self.chunks.keys())
        self.chunks = {id_: c for id_, c in self.chunks.items() if id_ not in gone}

    @rule(source=sources)
    def delete_source(self, source):
        self.index.delete(sources=[source])
        self.chunks = {id_: c for id_, c in self.chunks.items() if c.source != source}
        self.hashes.pop(source, None)

    @rule()
    def compact(self):
        self.index.compact()
        assert self.index.stats().dead_rows == 0

    @rule()
    def reopen(self):
        self.index.close()
        self.index = self.opened()

    @rule(query=queries, k=st.sampled_from([1, 4, 100]), where=filters, patterns=globs, both=st.booleans())
    def a_dense_search_is_brute_force(self, query, k, where, patterns, both):
        asked, keeps = where
        allowed = [
            chunk
            for chunk in self.chunks.values()
            if keeps(chunk) and (patterns is None or any(fnmatchcase(chunk.source, glob) for glob in patterns))
        ]
        truth = self.brute_force(query, allowed)
        for index in (self.index, self.other) if both else (self.index,):
            hits = index.search(query, k, mode="dense", where=asked, sources=patterns)
            self.check([(hit.chunk.id, hit.score) for hit in hits], truth, k)
            assert all(hit.chunk == self.chunks[hit.chunk.id] for hit in hits)

    def brute_force(self, query: str, allowed: list[Chunk]) -> dict[str, float]:
        asked = self.encoder.encode_queries([query])[0]
        rows = self.vectors(allowed)
        scores = [(rows[n] @ asked.T).max(axis=0).sum() for n in range(len(allowed))]
        return {chunk.id: round(float(score), DECIMALS) for chunk, score in zip(allowed, scores, strict=True)}

    def vectors(self, chunks: list[Chunk]) -> Vectors:
        return self.encoder.encode_documents([document_text(chunk) for chunk in chunks])

    def check(self, found: list[tuple[str, float]], truth: dict[str, float], k: int) -> None:
        """The best k, each with its score, best first, equal scores in order of their ids."""
        assert len(found) == len({id_ for id_, _ in found}) == min(k, len(truth))
        assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))
        best = sorted(truth.values(), reverse=True)[:k]
        for (id_, score), as_good in zip(found, best, strict=True):
            assert score == pytest.approx(truth[id_], abs=self.score_error)
            assert truth[id_] >= as_good - 2 * self.score_error

    @precondition(lambda self: self.chunks)
    @rule(query=texts)
    def a_hybrid_search_finds_every_chunk(self, query):
        hits = self.other.search(query, 100)
        assert {hit.chunk.id: hit.chunk for hit in hits} == self.chunks
        assert len(hits) == len(self.chunks)

    @rule(word=words)
    def a_lexical_search_finds_exactly_the_chunks_with_the_word(self, word):
        hits = self.index.search(word, 100, mode="lexical")
        wanted = set(terms(word))
        assert {hit.chunk.id for hit in hits} == {i for i, c in self.chunks.items() if wanted & set(terms(c.text))}

    @invariant()
    def it_holds_what_the_dict_holds(self):
        assert len(self.index) == len(self.other) == len(self.chunks)
        assert self.index.sources() == self.hashes

    @invariant()
    def at_most_half_of_the_rows_are_dead_and_no_file_is_left_over(self):
        stats = self.index.stats()
        assert stats.dead_rows * 2 <= stats.vector_rows
        assert stats.coded_rows <= stats.vector_rows
        assert len(list((self.folder / "vectors").glob("*"))) == stats.files

    def teardown(self):
        self.index.verify()
        if self.chunks:
            self.check_vectors()
        self.index.close()
        self.other.close()
        shutil.rmtree(self.folder)

    def check_vectors(self) -> None:
        given = AgainstADict.vectors(self, list(self.chunks.values()))
        kept = self.index.vectors_of(list(self.chunks))
        assert kept.offsets.tolist() == given.offsets.tolist()
        assert np.allclose(kept.values, given.values, atol=self.vector_error)


class AgainstADictMulti(AgainstADict):
    encoder = HashingEncoder(16, multi_vector=True)
    build = BuildOptions(fresh_rows=12)


class AgainstADictCoded(AgainstADictMulti):
    """Every few writes, what is new is coded. A search is brute force over the vectors that the index has kept."""

    engine = None
    build = BuildOptions(exact_below_tokens=25, tail_tokens=12, fresh_rows=8, centroids=5, refine=True)
    score_error = INT8
    vector_error = 0.01

    def vectors(self, chunks: list[Chunk]) -> Vectors:
        return self.index.vectors_of([chunk.id for chunk in chunks])


class AgainstADictCodedOnly(AgainstADictCoded):
    """Without int8 vectors beside the codes: what is coded anew was decoded before, by few and bad centroids."""

    build = BuildOptions(exact_below_tokens=25, tail_tokens=12, fresh_rows=8, centroids=5, refine=False)
    vector_error = 0.6


def quick(max_examples: int, steps: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )


TestSingleVector = AgainstADict.TestCase
TestSingleVector.settings = quick(20, 25)
TestMultiVector = AgainstADictMulti.TestCase
TestMultiVector.settings = quick(20, 25)
TestCoded = AgainstADictCoded.TestCase
TestCoded.settings = quick(25, 30)
TestCodedOnly = AgainstADictCodedOnly.TestCase
TestCodedOnly.settings = quick(20, 30)


@given(
    order=st.permutations(range(12)),
    cuts=st.sets(st.integers(1, 11), max_size=4),
    query=queries,
    multi_vector=st.booleans(),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_the_order_of_writes_makes_no_difference(order, cuts, query, multi_vector):
    draw = np.random.default_rng(len(query))
    vocabulary = "red fox blue owl green at night river stone".split()
    chunks = [Chunk(f"c{n:02d}", "a.md", " ".join(draw.choice(vocabulary, n % 5))) for n in range(12)]
    encoder, build = HashingEncoder(16, multi_vector=multi_vector), BuildOptions(fresh_rows=6)
    with (
        Index.in_memory(encoder=encoder, engine="exact", build=build) as whole,
        Index.in_memory(encoder=encoder, engine="exact", build=build) as pieces,
    ):
        whole.add(chunks)
        for some in np.split(np.array(order), sorted(cuts)):
            pieces.add([chunks[n] for n in some])
        for mode in ("dense", "lexical", "hybrid"):
            assert whole.search(query, 12, mode=mode) == pieces.search(query, 12, mode=mode)
