"""`where` keeps the chunks that a loop over them in Python would keep."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.retrieval import snapshot as snapshot_module
from ctxkit.retrieval.filters import predicate

OPERATORS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt}
OPERATORS[">="] = operator.ge

ODD_NAMES = ["a.b", 'a"b', "a'b", "größe", "名前", "", " ", "$", "a\\b", "a\nb", "x[0]", '"', "*", "a b", "\\", "?"]


def keeps(chunk: Chunk, where: Mapping[str, Any]) -> bool:
    """The reference. A chunk that has no such value meets None, and no operator but that."""
    own = {**chunk.metadata, "id": chunk.id, "source": chunk.source, "page": chunk.page}
    return all(meets(own.get(name), condition) for name, condition in where.items())


def meets(value: Any, condition: Any) -> bool:
    if isinstance(condition, Mapping):
        return all(compared(value, name, other) for name, other in condition.items())
    return compared(value, "in" if isinstance(condition, list | tuple) else "==", condition)


def compared(value: Any, name: str, other: Any) -> bool:
    if name == "in":
        return any(compared(value, "==", one) for one in other)
    if other is None:
        return (value is None) == (name == "==")
    if value is None:
        return False
    if isinstance(value, str) != isinstance(other, str) or isinstance(value, list | dict):
        return name == "!="  # values of different kinds have no order
    return OPERATORS[name](value, other)


def found(index: Index, where: Any, sources: list[str] | None = None) -> set[str]:
    hits = index.search("word", 1000, mode="dense", where=where, sources=sources)
    assert {hit.chunk.id for hit in index.search("word", 1000, mode="lexical", where=where, sources=sources)} == {
        hit.chunk.id for hit in hits
    }
    return {hit.chunk.id for hit in hits}


def reference(chunks: list[Chunk], where: Mapping[str, Any], sources: list[str] | None = None) -> set[str]:
    return {
        chunk.id
        for chunk in chunks
        if keeps(chunk, where) and (sources is None or any(fnmatchcase(chunk.source, pattern) for pattern in sources))
    }


METADATA: list[dict[str, Any]] = [
    {},
    {"lang": "en", "year": 2020, "open": True},
    {"lang": "de", "year": 2021, "open": False},
    {"lang": "en", "year": 2021.5},
    {"lang": None, "year": None, "open": None},
    {"lang": "", "year": 0, "open": 1},
    {"lang": "EN", "year": "2020", "open": "true"},
    {"lang": ["en"], "year": [2020], "open": {"lang": "en"}},
    {"lang": '["en"]', "year": -3, "open": 0},
    {"lang": "größe 🎉", "year": 1e300, "open": 1.0},
    {name: number for number, name in enumerate(ODD_NAMES)},
    {name: name for name in ODD_NAMES},
    {"a": {"b": 5}, "x": [7]},
]
CHUNKS = [
    Chunk(f"c{number}", f"{'ab'[number % 2]}/{number}.md", f"word {number}", page=number or None, metadata=known)
    for number, known in enumerate(METADATA)
]


@pytest.fixture(scope="module")
def index():
    with Index.in_memory(encoder=HashingEncoder(8)) as index:
        index.add(CHUNKS)
        yield index


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"lang": "en"},
        {"lang": ""},
        {"lang": "größe 🎉"},
        {"lang": '["en"]'},
        {"lang": None},
        {"lang": {"!=": None}},
        {"lang": {"!=": "en"}},
        {"lang": ["en", "de", "fr"]},
        {"lang": ("en", None)},
        {"lang": []},
        {"lang": {"in": ["de"]}},
        {"lang": {">": "a"}},
        {"lang": {">=": "de", "<": "f"}},
        {"lang": {}},
        {"year": 2020},
        {"year": "2020"},
        {"year": 2021.5},
        {"year": [2020, "2020", 0]},
        {"year": {">": 2020}},
        {"year": {">=": 2020, "<=": 2021}},
        {"year": {"<": 0}},
        {"year": {"<": "3"}},
        {"year": {"!=": 2020}},
        {"year": {">": float("-inf")}},
        {"open": True},
        {"open": False},
        {"open": 1},
        {"open": {"!=": True}},
        {"open": {">=": True}},
        {"nothing": None},
        {"nothing": 1},
        {"nothing": {"!=": 1}},
        {"lang": "en", "year": {">": 2020}},
        {"lang": "en", "open": None},
        {"id": "c3"},
        {"id": ["c3", "c4", "c99"]},
        {"id": 3},
        {"source": "a/2.md"},
        {"source": {">": "b"}},
        {"page": 3},
        {"page": "3"},
        {"page": None},
        {"page": {">=": 3, "<": 7}},
        {"page": {"<": "x"}},
        {"a": 5},
        {"a.b": 5},
        {"x[0]": 7},
        MappingProxyType({"lang": MappingProxyType({"in": ("en",)})}),
    ],
    ids=str,
)
def test_a_mapping_keeps_what_the_reference_keeps(index, where):
    assert found(index, where) == reference(CHUNKS, where) == {one.id for one in CHUNKS if predicate(where)(one)}
    assert found(index, where, ["a/*", "b/3*"]) == reference(CHUNKS, where, ["a/*", "b/3*"])


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_can_be_asked_for(index, name):
    number = ODD_NAMES.index(name)
    for where in ({name: number}, {name: name}, {name: [name, number]}, {name: {"!=": name}}, {name: None}):
        assert found(index, where) == reference(CHUNKS, where)
    assert found(index, {name: number}) == {"c10"}
    assert found(index, {name: name}) == {"c11"}


@pytest.mark.parametrize(
    "where",
    [
        {"lang": {"~": "e"}},
        {"lang": {"like": "e"}},
        {"lang": {"in": "en"}},
        {"lang": {"in": 5}},
        {"lang": {"in": None}},
        {"lang": {"<": None}},
        {"lang": {"<": [1]}},
        {"lang": {"==": {"a": 1}}},
        {"lang": [["en"]]},
        {"lang": object()},
        {"lang": b"en"},
        {"lang": {"en"}},
        {"year": float("nan")},
        {"year": 1 << 63},
        {"year": -(1 << 63) - 1},
        {3: "three"},
    ],
    ids=lambda where: re.sub(" at 0x[0-9a-f]+", "", str(where)),
)
def test_a_malformed_mapping_is_refused(index, where):
    for mode in ("dense", "lexical", "hybrid"):
        with pytest.raises(ValueError, match="`where`"):
            index.search("word", where=where, mode=mode)
    assert len(found(index, {})) == len(CHUNKS), "and does no harm"


def test_metadata_that_sqlite_cannot_read_are_refused(index):
    for value in (float("nan"), float("inf"), object(), {1, 2}):
        with pytest.raises(ValueError, match="`metadata` of chunk 'bad' must be JSON"):
            index.add([Chunk("bad", "a.md", "word", metadata={"x": value})])
    assert found(index, {"lang": "en"}) == {"c1", "c3"}


def test_a_function_is_asked_for_every_chunk_and_may_fail(index):
    seen = []
    assert found(index, lambda chunk: not seen.append(chunk.id) and chunk.metadata.get("year") == 2020) == {"c1"}
    assert set(seen) == {chunk.id for chunk in CHUNKS}
    for error in (KeyError("year"), ValueError("year"), TypeError("year")):

        def fails(chunk: Chunk, error: Exception = error) -> bool:
            raise error

        with pytest.raises(type(error), match="year"):
            index.search("word", where=fails)
    assert len(found(index, {})) == len(CHUNKS)


def test_a_function_may_ask_the_index(index):
    assert found(index, lambda chunk: index.get(chunk.id) == chunk and len(index) == len(CHUNKS)) == {
        chunk.id for chunk in CHUNKS
    }


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-5, 5).map(lambda value: round(value, 1))
    | st.text("aé\"'\\ \n", max_size=3)
)
names = st.sampled_from(["k", "a.b", 'q"', "é", "b\\", ""])
values = scalars | st.lists(st.integers(0, 2), max_size=2)
not_none = scalars.filter(lambda value: value is not None)
conditions = (
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(st.sampled_from(sorted(OPERATORS)), not_none, max_size=2)
    | st.builds(lambda some: {"in": some}, st.lists(scalars, max_size=3))
)


@given(
    known=st.lists(st.dictionaries(names, values, max_size=3), min_size=1, max_size=6),
    wheres=st.lists(st.dictionaries(names, conditions, max_size=2), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_mapping_keeps_what_the_reference_keeps(known, wheres):
    chunks = [Chunk(f"c{number}", "a.md", "word", metadata=one) for number, one in enumerate(known)]
    with Index.in_memory(encoder=HashingEncoder(8)) as index:
        index.add(chunks)
        for where in wheres:
            assert found(index, where) == reference(chunks, where), where
            assert reference(chunks, where) == {chunk.id for chunk in chunks if predicate(where)(chunk)}, where


@pytest.mark.parametrize("multi_vector", [False, True])
def test_filters_used_before_stay_right_after_every_write(multi_vector, monkeypatch):
    monkeypatch.setattr(snapshot_module, "_CROWDED", 8)  # so that positions are given anew on the way
    wheres: list[tuple[Any, list[str] | None]] = [
        ({"n": {"<": 20}}, None),
        ({"parity": "odd"}, ["b/*"]),
        ({}, ["a/*"]),
        ({"n": [3, 17, 40]}, None),
    ]
    chunks: dict[str, Chunk] = {}

    def of(numbers: range) -> list[Chunk]:
        return [
            Chunk(f"c{n}", f"{'ab'[n % 3 == 0]}/x.md", f"word {n}", metadata={"n": n, "parity": ["even", "odd"][n % 2]})
            for n in numbers
        ]

    with Index.in_memory(encoder=HashingEncoder(8, multi_vector=multi_vector)) as index:
        for first in range(0, 60, 6):
            new = of(range(first, first + 6))
            index.add(new)
            chunks |= {chunk.id: chunk for chunk in new}
            gone = [f"c{first - 4}", f"c{first + 1}", f"c{first // 2}"]
            index.delete(ids=gone)
            chunks = {id_: chunk for id_, chunk in chunks.items() if id_ not in gone}
            if first == 30:
                index.delete(sources=["b/x.md"])
                chunks = {id_: chunk for id_, chunk in chunks.items() if chunk.source != "b/x.md"}
            for where, sources in wheres:
                assert found(index, where, sources) == reference(list(chunks.values()), where, sources)
                assert found(index, lambda chunk, where=where: keeps(chunk, where), sources) == found(
                    index, where, sources
                )


def test_a_list_may_be_long(index):
    everything = [f"c{number}" for number in range(40_000)]
    assert found(index, {"id": everything}) == {chunk.id for chunk in CHUNKS}
    assert found(index, {"year": [*range(10_000), 2021.5, float("inf"), None, "2020"]}) == reference(
        CHUNKS, {"year": [2020, 2021, 2021.5, 0, None, "2020"]}
    )


def test_more_filters_than_are_kept_are_all_right(index):
    for _ in range(2):
        for number in range(50):
            where = {"year": {"<": number * 60}}
            assert found(index, where) == reference(CHUNKS, where)


@pytest.mark.parametrize("multi_vector", [False, True])
def test_a_filter_that_keeps_less_than_one_in_a_hundred_finds_all_it_keeps(multi_vector):
    chunks = [Chunk(f"c{n:04d}", "a.md", f"word w{n}", metadata={"n": n, "m": n % 7}) for n in range(1200)]
    with Index.in_memory(encoder=HashingEncoder(8, multi_vector=multi_vector)) as index:
        index.add(chunks)
        everything = [hit.chunk.id for hit in index.search("word w700", 1200, mode="dense")]
        for where in ({"n": [5, 700, 1199]}, {"n": {">=": 1190}}, {"n": {"<": 50}, "m": 3}, {"n": -1}):
            allowed = reference(chunks, where)
            assert len(allowed) < 12
            hits = index.search("word w700", 5, mode="dense", where=where)
            assert [hit.chunk.id for hit in hits] == [id_ for id_ in everything if id_ in allowed][:5]
