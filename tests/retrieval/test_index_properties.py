"""Whatever is done to an index in whatever order, it holds what a plain dict would hold."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index

texts = st.sampled_from(["red fox", "blue fox", "green owl at night", "red", "", "night night"])
ids = st.sampled_from([f"c{n}" for n in range(8)])
sources = st.sampled_from(["a.md", "b/c.py", "d.txt"])
bodies = st.dictionaries(ids, texts, max_size=5)


class AgainstADict(RuleBasedStateMachine):
    multi_vector = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.chunks: dict[str, Chunk] = {}
        self.hashes: dict[str, str] = {}
        self.index = self.opened(create=True)
        self.other = self.opened()

    def opened(self, create: bool = False) -> Index:
        return Index.open(self.folder, encoder=HashingEncoder(8, multi_vector=self.multi_vector), create=create)

    @rule(body=bodies, source=sources)
    def add(self, body, source):
        new = {id_: Chunk(id_, source, text) for id_, text in body.items()}
        self.index.add(new.values())
        self.chunks |= new
        if new:
            self.hashes.setdefault(source, "")

    @rule(body=bodies, source=sources, content_hash=st.sampled_from(["h1", "h2"]))
    def replace_source(self, body, source, content_hash):
        new = {id_: Chunk(id_, source, text) for id_, text in body.items()}
        self.index.replace_source(source, content_hash, list(new.values()))
        self.chunks = {id_: c for id_, c in self.chunks.items() if c.source != source} | new
        self.hashes[source] = content_hash

    @rule(gone=st.sets(ids, max_size=4))
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
    def reopen(self):
        self.index.close()
        self.index = self.opened()

    @precondition(lambda self: self.chunks)
    @rule(query=texts, mode=st.sampled_from(["dense", "hybrid"]))
    def every_chunk_is_found(self, query, mode):
        for index in (self.index, self.other):
            hits = index.search(query, 100, mode=mode)
            assert {hit.chunk.id: hit.chunk for hit in hits} == self.chunks
            assert len(hits) == len(self.chunks)

    @rule(word=st.sampled_from(["fox", "owl", "night", "red"]))
    def exactly_the_chunks_with_the_word_are_found(self, word):
        hits = self.index.search(word, 100, mode="lexical")
        assert {hit.chunk.id for hit in hits} == {id_ for id_, c in self.chunks.items() if word in c.text}

    @invariant()
    def it_holds_what_the_dict_holds(self):
        assert len(self.index) == len(self.other) == len(self.chunks)
        assert self.index.sources() == self.hashes

    @invariant()
    def at_most_half_of_the_rows_are_dead_and_no_file_is_left_over(self):
        stats = self.index.stats()
        assert stats.dead_rows * 2 <= stats.vector_rows
        assert len(list((self.folder / "vectors").glob("*"))) == stats.files

    def teardown(self):
        self.index.close()
        self.other.close()
        shutil.rmtree(self.folder)


class AgainstADictMulti(AgainstADict):
    multi_vector = True


quick = settings(max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestSingleVector = AgainstADict.TestCase
TestSingleVector.settings = quick
TestMultiVector = AgainstADictMulti.TestCase
TestMultiVector.settings = quick
