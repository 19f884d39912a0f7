"""Only what changed is encoded, and space that nothing uses is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import Change, Index
from ctxkit.retrieval.document_text import document_text


def test_only_new_texts_are_encoded(counting, chunk):
    with Index.in_memory(encoder=counting) as index:
        first = [chunk("one"), chunk("two"), chunk("three")]
        assert index.replace_source("a.md", "1", first) == Change(added=3, removed=0, encoded=3)
        assert index.replace_source("a.md", "2", first) == Change(added=3, removed=0, encoded=0)
        assert index.replace_source("a.md", "3", [chunk("two"), chunk("four")]) == Change(2, 2, 1)
        assert counting.seen == ["one", "two", "three", "four"]
        assert index.sources() == {"a.md": "3"}


def test_equal_texts_are_encoded_once_and_found_each(counting, chunk):
    with Index.in_memory(encoder=counting) as index:
        index.add([chunk("same", id="x"), chunk("same", id="y", source="b.md"), chunk("same", id="z")])
        assert counting.seen == ["same"]
        assert [hit.chunk.id for hit in index.search("same")] == ["x", "y", "z"]
        index.delete(ids=["x"])
        assert [hit.chunk.id for hit in index.search("same")] == ["y", "z"]


def test_the_headings_are_part_of_what_is_encoded(counting, chunk):
    with Index.in_memory(encoder=counting) as index:
        index.add([chunk("text", id="x")])
        index.add([chunk("text", id="x", title_path=("Top", "Sub"))])
        assert counting.seen == ["text", "Top > Sub\ntext"]
        assert [hit.chunk.title for hit in index.search("sub", mode="lexical")] == ["Top > Sub"]


def test_a_moved_chunk_is_not_encoded_again(counting, chunk):
    with Index.in_memory(encoder=counting) as index:
        index.replace_source("old.md", "1", [chunk("text", source="old.md", title_path=("T",))])
        index.delete(sources=["old.md"])
        index.replace_source("new.md", "1", [chunk("text", source="new.md", start_line=7, title_path=("T",))])
        assert len(counting.seen) <= 2  # once, and again only if the vectors were given back in between
        assert index.sources() == {"new.md": "1"}


def test_vectors_of_deleted_chunks_are_given_back_and_the_rest_is_kept(counting):
    chunks = [Chunk(f"c{n:02d}", "a.md", f"text {n}") for n in range(40)]
    with Index.in_memory(encoder=counting) as index:
        index.add(chunks)
        index.delete(ids=[chunk.id for chunk in chunks[:20]])
        assert (index.stats().vector_rows, index.stats().dead_rows) == (40, 20)
        index.delete(ids=["c20"])
        assert (index.stats().vector_rows, index.stats().dead_rows) == (19, 0)
        index.add(chunks[21:])
        assert len(counting.seen) == 40
        assert [hit.chunk.id for hit in index.search("30", 1, mode="lexical")] == ["c30"]
        best = index.search(document_text(chunks[33]), 1, mode="dense")[0]
        assert (best.chunk.id, round(best.score, 5)) == ("c33", 1.0)


def test_a_reader_follows_compaction(tmp_path, counting):
    chunks = [Chunk(f"c{n}", "a.md", f"text {n}") for n in range(9)]
    with Index.open(tmp_path, encoder=counting, create=True) as writer:
        writer.add(chunks)
    with Index.open(tmp_path, encoder=counting) as writer, Index.open(tmp_path, encoder=counting) as reader:
        assert len(reader.search("text", 50)) == 9
        writer.delete(ids=[f"c{n}" for n in range(7)])
        assert [hit.chunk.id for hit in reader.search("text", 50)] == ["c7", "c8"]
        writer.delete(sources=["a.md"])
        assert reader.search("text") == []
        assert list((tmp_path / "vectors").iterdir()) == []


def test_listing_and_lexical_search_load_no_model(tmp_path):
    script = """
import sys
from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index, SentenceTransformerEncoder
with Index.open(sys.argv[1], create=True) as index:
    pass
with Index.open(sys.argv[1]) as index:
    index.sources(), len(index), index.stats(), index.search("x", mode="lexical"), index.search("x")
heavy = {"torch", "faiss", "sentence_transformers", "transformers"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert result.returncode == 0, result.stderr
