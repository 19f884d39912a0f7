"""The diff of two JSON texts: JSON itself, and either exact to the byte or not made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.compression.diffs import diff_json

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 1e30, float("inf")]),
    st.text("aé\ud800/~", max_size=3),
)
KEYS = st.sampled_from(["a", "b", "", "c/d", "~", "~1", "0", "é"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
STYLES = st.sampled_from(
    [
        {},
        {"indent": 2},
        {"indent": "\t"},
        {"separators": (",", ":")},
        {"ensure_ascii": False},
        {"indent": 1, "sort_keys": True},
    ]
)


@given(VALUES, VALUES, STYLES, STYLES, st.sampled_from(["", "\n", "\r\n "]))
def test_a_diff_gives_the_text_back_or_is_not_made(
    old: Any, new: Any, style: dict[str, Any], other: dict[str, Any], tail: str
) -> None:
    for options in (style, other):
        base, text = json.dumps(old, **style) + tail, json.dumps(new, **options) + tail
        made = diff_json.diff(base, text)
        if made is not None:
            json.loads(made)
            assert diff_json.apply(base, made) == text


@given(st.lists(VALUES, min_size=2, max_size=4), st.lists(VALUES, min_size=2, max_size=4), STYLES)
def test_texts_of_one_style_have_a_diff(old: list[Any], new: list[Any], style: dict[str, Any]) -> None:
    document = {"text": "é", "values": [1, 2]}  # shows its style, whatever the rest is
    base, text = json.dumps([document, old], **style), json.dumps([document, new], **style)
    made = diff_json.diff(base, text)
    assert made is not None
    assert diff_json.apply(base, made) == text
    assert (made == "{}") == (base == text)


@pytest.mark.parametrize(
    ("base", "text"),
    [
        ('{"a": 1}', '{"a": 1.50}'),
        ('{"a": 1}', '{"a": 1, "a": 2}'),
        ('{"a": 1}', '{"a":1}'),
        ('{"a" : 1}', '{"a" : 2}'),
        ('{"a": 1}', '{"a": "\\u0041"}'),
        ('{"a": 1}', "no JSON"),
        ("", ""),
        ("[" * 100_000, "[" * 100_001),
        ("1" * 5_000, "2" * 5_000),
    ],
)
def test_what_json_dumps_does_not_write_so_has_no_diff(base: str, text: str) -> None:
    assert diff_json.diff(base, text) is None


def test_only_what_changed_is_said() -> None:
    rows = [{"id": n, "state": "open"} for n in range(40)]
    changed = [dict(row) for row in rows if row["id"] != 20]
    changed[3]["state"] = "late"
    changed.append({"id": 40, "state": "open"})
    base, text = json.dumps({"rows": rows, "at": "12:00"}), json.dumps({"rows": changed, "at": "12:05", "next": None})
    assert json.loads(diff_json.diff(base, text) or "") == {
        "set": {"/rows/3/state": "late", "/at": "12:05", "/next": None},
        "splice": {"/rows": [[20, 1, []], [40, 0, [{"id": 40, "state": "open"}]]]},
    }


def test_zero_true_and_one_are_told_apart() -> None:
    base, text = "[0, 0.0, 1, true]", "[0.0, -0.0, true, 1]"
    made = diff_json.diff(base, text)
    assert made is not None
    assert diff_json.apply(base, made) == text


@pytest.mark.parametrize(
    "made",
    [
        '{"set":{"/x/y":1}}',
        '{"remove":["/x"]}',
        '{"splice":{"/a":[[0,9,[]]]}}',
        '{"other":1}',
        "[]",
        "{",
        '{"set":{"/a/7":1}}',
    ],
)
def test_a_diff_of_another_base_is_refused(made: str) -> None:
    with pytest.raises(ValueError):
        diff_json.apply('{"a": [1, 2]}', made)
