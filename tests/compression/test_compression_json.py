"""JSON in, JSON out: valid, marked where something is missing, and no key or number changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.compression import ExtractiveCompressor, StructuralCompressor, StubCompressor
from ctxkit.context import Compressor, Level
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest

Requests = Callable[..., LevelRequest]
Groups = Callable[..., Group]

SAMPLERS: list[Compressor] = [StructuralCompressor(), ExtractiveCompressor()]
COMPRESSORS: list[Compressor] = [*SAMPLERS, StubCompressor()]


def pairs(text: str) -> Any:
    """The value with objects as lists of pairs, so that equal keys count, and numbers as they are spelled."""
    return json.loads(text, object_pairs_hook=lambda found: ("object", found), parse_int=Spelled, parse_float=Spelled)


class Spelled(str):
    pass


def check(whole: Any, kept: Any) -> None:
    """`kept` is `whole` less what its markers count."""
    if isinstance(whole, Spelled) or not isinstance(whole, str | list | tuple):
        assert kept == whole
        assert type(kept) is type(whole)
    elif isinstance(whole, str):
        check_string(whole, kept)
    elif isinstance(whole, list):
        check_array(whole, kept)
    else:
        check_object(whole[1], kept[1])


def check_string(whole: str, kept: str) -> None:
    """Either clipped, saying by how much, or with some of its words, in order."""
    if kept == whole:
        return
    assert len(whole) > 60
    head, _, tail = kept.rpartition("… [")
    if tail.endswith(" chars omitted]"):
        assert whole.startswith(head)
        assert int(tail.split()[0].replace(",", "")) == len(whole) - len(head)
    else:
        left = iter(whole)
        assert all(char in left for char in kept if char != "…")


def check_array(whole: list[Any], kept: list[Any]) -> None:
    at = 0
    for item in kept:
        if isinstance(item, tuple) and item[1] and str(item[1][0][1]).startswith("rows: "):
            continue
        if missing := marked(item):
            at += missing
        elif isinstance(item, list) and isinstance(whole[at], tuple):
            check_row(whole[at], item)
            at += 1
        else:
            check(whole[at], item)
            at += 1
    assert at == len(whole)


def check_row(whole: Any, kept: list[Any]) -> None:
    """An object without its keys."""
    values = [value for _, value in whole[1]]
    at = 0
    for item in kept:
        if isinstance(item, tuple) and item[1] and "more field" in str(item[1][0][1]):
            at += int(item[1][0][1].split()[0].replace(",", ""))
        elif isinstance(item, list) and isinstance(values[at], tuple):
            check_row(values[at], item)
            at += 1
        else:
            check(values[at], item)
            at += 1
    assert at == len(values)


def check_object(whole: list[tuple[str, Any]], kept: list[tuple[str, Any]]) -> None:
    at = missing = 0
    for key, value in kept:
        if set(key) == {"…"} and isinstance(value, str) and "more field" in value:
            missing += int(value.split()[0].replace(",", ""))
            continue
        while whole[at][0] != key:
            at += 1
        check(whole[at][1], value)
        at += 1
    assert len(kept) - (missing > 0) + missing == len(whole)


def marked(item: Any) -> int:
    if isinstance(item, tuple) and len(item[1]) == 1 and set(item[1][0][0]) == {"…"}:
        value = item[1][0][1]
        return int(value.split()[0].replace(",", "")) if "more item" in value else 0
    return 0


def levels_and_sizes(compressor: Compressor, group: Group, request: LevelRequest) -> list[Level]:
    levels = list(compressor.levels(group, request))
    resize = levels[0].resize if levels else None
    more = [resize(tokens) for tokens in (30, 90, 300, 1_000)] if resize else []
    return [*levels, *(level for level in more if level is not None)]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["many words " * 30, "/srv/" + "x" * 200, "क्षि 👩‍👩‍👧 " * 40, "\ud800 " * 90]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=6),
)


@pytest.mark.parametrize("compressor", SAMPLERS, ids=str)
@given(value=VALUES, ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
@settings(max_examples=40)
def test_samples_of_any_json_are_json(
    compressor: Compressor, value: Any, ascii_only: bool, indent: int | None, request_of: Requests, tool_group: Groups
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    if text[0] not in '{["':
        return
    for level in levels_and_sizes(compressor, tool_group(text), request_of("words 7")):
        check(pairs(text), pairs(level.parts[1].content))


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=str)
@given(arguments=st.dictionaries(st.text(max_size=8), VALUES, max_size=6))
@settings(max_examples=40)
def test_arguments_stay_json_of_the_same_keys(
    compressor: Compressor, arguments: dict[str, Any], request_of: Requests, tool_group: Groups
) -> None:
    group = tool_group("ok", json.dumps(arguments))
    for level in levels_and_sizes(compressor, group, request_of()):
        kept = json.loads(level.parts[0].tool_calls[0]["function"]["arguments"])
        assert list(kept) == list(json.loads(json.dumps(arguments)))
        for key, value in arguments.items():
            if isinstance(value, int | float) or isinstance(value, str) and len(json.dumps(value)) <= 22:
                assert kept[key] == value


def test_numbers_and_equal_keys_stay_as_they_are_spelled(request_of: Requests, tool_group: Groups) -> None:
    text = '{ "a": 1.50e+3, "a": 0.10, "big": 123456789012345678901234567890, "esc\\u0041": "\\u00e9" }'
    level = next(StructuralCompressor().levels(tool_group(text), request_of()))
    minified = '{"a":1.50e+3,"a":0.10,"big":123456789012345678901234567890,"esc\\u0041":"\\u00e9"}'
    assert level.parts[1].content == minified
    assert level.utility > 0.98
    again = StructuralCompressor().levels(tool_group(minified, '{"path":"/a/b.py"}'), request_of())
    assert all(one.utility < 0.98 for one in again)


def test_the_row_that_is_asked_for_is_kept(request_of: Requests, tool_group: Groups) -> None:
    rows = [{"id": i, "name": f"server-{i}", "state": "up" if i != 77 else "burning"} for i in range(200)]
    for compressor in SAMPLERS:
        level = next(compressor.levels(tool_group(json.dumps(rows)), request_of("Which server is burning?")))
        assert level.resize is not None
        made = level.resize(500)
        assert made is not None
        assert list(rows[77].values()) in json.loads(made.parts[1].content)


def test_paths_and_ids_are_never_clipped(request_of: Requests, tool_group: Groups) -> None:
    path = "/srv/" + "deep/" * 60
    text = json.dumps({"path": path, "log": "words and words " * 200})
    for level in levels_and_sizes(StructuralCompressor(), tool_group(text), request_of()):
        assert json.loads(level.parts[1].content).get("path", path) == path


def test_a_key_that_looks_like_a_marker_is_no_marker(request_of: Requests, tool_group: Groups) -> None:
    text = json.dumps({"…": "mine", **{f"k{i}": "value of it" for i in range(60)}})
    made = list(StructuralCompressor().levels(tool_group(text), request_of("")))[-1]
    kept = json.loads(made.parts[1].content)
    assert kept.get("…", "mine") == "mine"
    assert "more fields" in kept["……"]


@pytest.mark.parametrize("depth", [60, 700, 3_000])
def test_deep_nesting_is_no_error(depth: int, request_of: Requests, tool_group: Groups) -> None:
    text = '{"a": [' * depth + "1, 2" + "]}" * depth
    levels = list(StructuralCompressor().levels(tool_group(text), request_of()))
    assert levels
    if depth < 300:
        check(pairs(text), pairs(levels[-1].parts[1].content))
