"""What PostgreSQL is asked beyond what every vector database is: its graph, its locks, its refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Barrier
from typing import Any

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import IndexLocked, IndexNotFound, StoreError
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit_connectors.databases.postgres_link import array_text
from ctxkit_connectors.pgvector import PgvectorIndex
from tests.connectors.test_vector_databases import WORDS, PiecesEncoder, collection, same

ENCODERS = [HashingEncoder(32), HashingEncoder(32, multi_vector=True), PiecesEncoder()]


def execute(url: str, statement: str) -> list[Any]:
    with import_module("psycopg").connect(url) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("encoder", ENCODERS, ids=["single", "multi", "pieces"])
def test_a_graph_answers_as_all_vectors_do_and_finds_what_is_new(pgvector_url, encoder):
    chunks = collection(400)
    filters = {"sources": ["a/1.md", "c/*"], "where": lambda chunk: "eta" in chunk.text}
    with (
        Index.in_memory(engine="exact", encoder=encoder) as own,
        PgvectorIndex.open(pgvector_url, encoder=encoder, create=True) as index,
        PgvectorIndex.open(pgvector_url, encoder=encoder, exact=True) as exactly,
    ):
        index.add(chunks)
        assert not index._database.approximate()
        index.optimise(vector_index=True)
        assert index._database.approximate()
        for one in (own, index):
            one.add([*chunks, Chunk("new", "new.md", "omega psi")])
            one.delete(ids=["c007"])
        for query in ("alpha", "beta gamma gamma", "omega psi"):
            truth = own.search(query, 30, mode="dense")
            found = {hit.chunk.id for hit in index.search(query, 30, mode="dense")}
            assert len(found & {hit.chunk.id for hit in truth}) >= 27
            same(exactly.search(query, 30, mode="dense"), truth)
            same(index.search(query, 400, mode="dense", **filters), own.search(query, 400, mode="dense", **filters))


def test_the_graph_is_what_is_asked_once_it_is_there(pgvector_url):
    """Many rows, so that the planner does not compare all of them for once."""
    with PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8), create=True) as index:
        index.add(Chunk(f"{i}", "a.md", f"{WORDS[i % 14]} {WORDS[i % 13]} {WORDS[i % 11]} {i}") for i in range(3000))
        index.optimise(vector_index=True)
        query = index.encoder.encode_queries(["alpha beta"])[0]
        near = index._database.nearest(query, 5, None, exact=False)
        with index._database._link.transaction() as cursor:
            index._database._widen(cursor, 10)
            statement = index._database._names.nearest(graph=True, filtered=False)
            asked = {"query": array_text(query), "limit": 5, "candidates": 10}
            plan = " ".join(row[0] for row in cursor.execute("EXPLAIN " + statement.as_string(cursor), asked))
        assert "Index Scan using chunks_graph" in plan
        exact = index._database.nearest(query, 5, None, exact=True)
        assert {round(one.score, 5) for one in near} == {round(one.score, 5) for one in exact}


def test_half_a_graph_is_not_asked_and_made_anew(pgvector_url):
    with PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8), create=True) as index:
        index.add(collection(20))
        index.optimise()
        assert not index._database.approximate(), "few chunks need none"
        index.optimise(vector_index=True)
        execute(pgvector_url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'chunks_graph'::regclass")
        assert not index._database.approximate() and len(index.search("alpha", 20, mode="dense")) == 20
        index.optimise(vector_index=True)
        assert index._database.approximate()


def test_lexical_scores_are_those_of_the_exact_index_also_where_chunks_are_empty(pgvector_url):
    encoder, chunks = HashingEncoder(8), collection(150)
    assert any(not chunk.text and not chunk.title_path for chunk in chunks)
    with (
        Index.in_memory(encoder=encoder) as own,
        PgvectorIndex.open(pgvector_url, encoder=encoder, create=True) as index,
    ):
        own.add(chunks)
        index.add(chunks)
        for asked in ({}, {"sources": ["b/*"]}):
            same(
                index.search("eta theta", 150, mode="lexical", **asked),
                own.search("eta theta", 150, mode="lexical", **asked),
            )


@pytest.mark.parametrize("verb", ["add", "replace"])
def test_writers_at_once_leave_each_chunk_once_and_no_mixture(pgvector_url, verb):
    rounds, writers = 6, 3
    encoder = HashingEncoder(8)
    PgvectorIndex.open(pgvector_url, encoder=encoder, create=True).close()
    together = Barrier(writers)

    def write(writer: int) -> None:
        with PgvectorIndex.open(pgvector_url, encoder=encoder, connections=1) as own:
            for i in range(rounds):
                together.wait(60)
                if verb == "add":
                    own.add(Chunk(f"{i}/{j}", f"{j}.md", f"alpha {j}") for j in range(4))
                else:
                    own.replace_source("a.md", str(writer), [Chunk(f"{writer}/{j}", "a.md", f"{j}") for j in range(4)])

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    with PgvectorIndex.open(pgvector_url) as index:
        if verb == "add":
            assert (len(index), len(index.sources())) == (4 * rounds, 4)
        else:
            last = index.sources()["a.md"]
            assert len(index) == 4 and all(index.get(f"{last}/{j}") for j in range(4)), "of one writer, the last"
    assert execute(pgvector_url, "SELECT count(*) FROM chunks_vectors") == [(4 * rounds if verb == "add" else 4,)]


def test_many_creators_make_one_index(pgvector_url):
    def create(_: int) -> None:
        PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8), create=True, connections=1).close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    with PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8)) as index:
        assert len(index) == 0


def test_a_write_that_fails_leaves_nothing_and_waits_no_longer_than_it_is_told(pgvector_url):
    with PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8), create=True) as index:
        index.replace_source("a.md", "1", [Chunk("a", "a.md", "alpha")])
    url = pgvector_url + "%20-clock_timeout%3D50"
    with (
        import_module("psycopg").connect(pgvector_url) as other,
        PgvectorIndex.open(url, encoder=HashingEncoder(8)) as index,
    ):
        other.execute("SELECT FROM chunks WHERE id = 'a' FOR UPDATE")
        with pytest.raises(IndexLocked, match="another writer") as caught:
            index.replace_sources([("a.md", "2", [Chunk("a", "a.md", "beta")]), ("b.md", "2", [])])
        assert caught.value.retryable and index.sources() == {"a.md": "1"} and index.get("a").text == "alpha"


def test_names_are_quoted_and_indexes_live_beside_each_other(pgvector_url):
    encoder, strange = HashingEncoder(8), 'ü "; DROP TABLE chunks; --'
    with (
        PgvectorIndex.open(pgvector_url, encoder=encoder, create=True) as first,
        PgvectorIndex.open(pgvector_url, strange, encoder=encoder, create=True) as second,
    ):
        first.add([Chunk("a", "a.md", "alpha")])
        second.add([Chunk("b", "'; DROP TABLE chunks; --", "beta %s %(x)s {chunks}")])
        second.optimise(vector_index=True)
        found = second.search("beta", sources=["'; DROP*"])[0].chunk
        assert (len(first), found.id, found.text) == (1, "b", "beta %s %(x)s {chunks}")


def test_tables_of_somebody_else_are_refused_and_left_alone(pgvector_url):
    execute(pgvector_url, "CREATE TABLE theirs (id int)")
    for comment in ("NULL", "'our customers'", "'[1]'"):
        execute(pgvector_url, f"COMMENT ON TABLE theirs IS {comment}")
        with pytest.raises(StoreError, match=r"\(theirs\) was not made by ctxkit"):
            PgvectorIndex.open(pgvector_url, "theirs", encoder=HashingEncoder(8), create=True)
    with pytest.raises(IndexNotFound, match="create=True"):
        PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8))


def test_what_a_text_of_postgres_cannot_hold_is_named(pgvector_url):
    with PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8), create=True) as index:
        with pytest.raises(ValueError, match="chunk 'a' holds NUL"):
            index.add([Chunk("b", "a.md", "beta"), Chunk("a", "a.md", "alpha\0")])
        assert len(index) == 0
        index.add([Chunk("long", "a.md", "w" * 9000, metadata={"nul": "\0"})])
        assert index.search("w" * 9000, mode="lexical")[0].chunk.metadata == {"nul": "\0"}


def test_a_server_that_was_restarted_is_found_again(postgres, pgvector_url):
    with PgvectorIndex.open(pgvector_url, encoder=HashingEncoder(8), create=True) as index:
        index.add([Chunk("a", "a.md", "alpha")])
        postgres.stop()
        postgres.start()
        assert index.search("alpha")[0].chunk.id == "a"


def test_a_database_without_the_extension_says_what_to_run(postgres):
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    with pytest.raises(StoreError, match="run CREATE EXTENSION vector"):
        PgvectorIndex.open(postgres.url.replace("/postgres", "/template1"), encoder=HashingEncoder(8), create=True)


def test_a_server_that_does_not_answer_is_named_without_its_password():
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    with pytest.raises(StoreError, match=r"postgresql://127.0.0.1:9/db: PostgreSQL failed .* try again") as caught:
        PgvectorIndex.open("postgresql://me:secret@127.0.0.1:9/db", encoder=HashingEncoder(8))
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match="neither") as caught:
        PgvectorIndex.open("secret", encoder=HashingEncoder(8))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"table": ""}, {"table": "ü" * 21}, {"table": "a\0"}, {"connections": 0}])
def test_arguments_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        PgvectorIndex.open("postgresql://127.0.0.1:9/db", **wrong)
