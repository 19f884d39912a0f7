"""ToolCallReader: calls come out of the text, and nothing else does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.models.tool_calls import BARE, HERMES, LLAMA, MISTRAL, CallForm, ToolCallReader, calls_in, forms_of

ADD = '{"name": "add", "arguments": {"a": 1}}'
NOW = '{"name": "now", "arguments": {}}'
ALL = (HERMES, MISTRAL, LLAMA, BARE)


def _read(text: str, forms: tuple[CallForm, ...] = (HERMES,), cuts: tuple[int, ...] = ()) -> tuple[str, list[str]]:
    """(the text that is shown, "name arguments" of each call)."""
    reader = ToolCallReader(forms, {"add", "now"}, b"")
    edges = [0, *cuts, len(text)]
    shown = "".join(reader.feed(text[start:end]) for start, end in zip(edges, edges[1:], strict=False)) + reader.flush()
    return shown, [f"{call['function']['name']} {call['function']['arguments']}" for call in reader.calls]


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ("", "", []),
        ("Just text.", "Just text.", []),
        ("  \n", "  \n", []),
        (f"<tool_call>\n{ADD}\n</tool_call>", "", ['add {"a": 1}']),
        (f"Wait.\n<tool_call>{ADD}</tool_call>", "Wait.\n", ['add {"a": 1}']),
        (f"\n<tool_call>{ADD}</tool_call>\n<tool_call>{NOW}</tool_call>\n", "", ['add {"a": 1}', "now {}"]),
        (f"A<tool_call>{ADD}</tool_call> B", "A B", ['add {"a": 1}']),
        (f"<tool_call>{ADD}", "", ['add {"a": 1}']),
        ("<tool_call>{nonsense}</tool_call> B", "<tool_call>{nonsense}</tool_call> B", []),
        ('<tool_call>{"no": "name"}</tool_call>', '<tool_call>{"no": "name"}</tool_call>', []),
        (f"<tool_call>{ADD} and more</tool_call>", f"<tool_call>{ADD} and more</tool_call>", []),
        ("\n<tool_call>oh", "\n<tool_call>oh", []),
        ("<tool_ca", "<tool_ca", []),
        ("a < b", "a < b", []),
        (f"<tool_call>x</tool_call>\n<tool_call>{NOW}</tool_call>", "<tool_call>x</tool_call>\n", ["now {}"]),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "<tool_call>" + "[" * 100_000 + "</tool_call>", []),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", ['f {"a": 1}']),
        ('<tool_call>{"name": "f", "arguments": "one"}</tool_call>',) * 2 + ([],),
        ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>',) * 2 + ([],),
        ("<tool_call>7</tool_call>", "<tool_call>7</tool_call>", []),
        ('<tool_call>{"type": "function", "function": {"name": "f"}}</tool_call>', "", ["f {}"]),
        ('<tool_call>{"name": "f", "arguments": {"ü": "日"}}</tool_call>', "", ['f {"ü": "日"}']),
    ],
)
def test_hermes(text: str, shown: str, calls: list[str]) -> None:
    assert _read(text) == (shown, calls)


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ('{"name": "add", "parameters": {"a": 1}}', "", ['add {"a": 1}']),
        ('{"name": "add", "parameters": {"a": 1}}; {"name": "now"}', "", ['add {"a": 1}', "now {}"]),
        ('<|python_tag|>{"name": "other", "parameters": {}}', "", ["other {}"]),
        ('{"name": "other", "parameters": {}}',) * 2 + ([],),
        ('{"a": [1, 2]}',) * 2 + ([],),
        ('An object: {"name": "now"}',) * 2 + ([],),
        (f"[{ADD}, {NOW}]", "", ['add {"a": 1}', "now {}"]),
        (f"[TOOL_CALLS] [{ADD}]", "", ['add {"a": 1}']),
        (f'[{ADD}, {{"a": 1}}]',) * 2 + ([],),
        ("[1]", "[1]", []),
        ("{ broken", "{ broken", []),
        (f"{NOW} Done.", "Done.", ["now {}"]),
    ],
)
def test_json_without_hermes_markers(text: str, shown: str, calls: list[str]) -> None:
    assert _read(text, ALL) == (shown, calls)


PIECES = st.lists(
    st.sampled_from(
        ["<tool_call>", "</tool_call>", ADD, NOW, "[TOOL_CALLS]", "{", "}", " ", "\n", "a", "<", "<tool", "é"]
    ),
    max_size=8,
)


@given(PIECES, st.lists(st.integers(0, 200), max_size=6), st.sampled_from([(HERMES,), ALL, (LLAMA, BARE)]))
def test_it_does_not_matter_how_the_text_is_cut_and_nothing_but_calls_is_lost(
    pieces: list[str], cuts: list[int], forms: tuple[CallForm, ...]
) -> None:
    text = "".join(pieces)
    whole = _read(text, forms)
    assert _read(text, forms, tuple(sorted({cut for cut in cuts if cut < len(text)}))) == whole
    shown, calls = whole
    assert calls or shown == text
    assert shown.count("é") == text.count("é")


def test_what_is_no_call_is_shown_as_soon_as_it_is_certain() -> None:
    reader = ToolCallReader((HERMES,), set(), b"")
    assert [reader.feed(piece) for piece in ("Hi <to", "day ", "<tool_call>", "x</tool_call>")] == [
        "Hi ",
        "<today ",
        "",
        "<tool_call>x</tool_call>",
    ]


def test_ids_differ_within_an_answer_and_between_answers_and_are_reproduced() -> None:
    def ids(seed: bytes) -> list[str]:
        reader = ToolCallReader((HERMES,), set(), seed)
        reader.feed(f"<tool_call>{NOW}</tool_call>" * 2)
        return [call["id"] for call in reader.calls]

    assert ids(b"1") == ids(b"1")
    assert len({*ids(b"1"), *ids(b"2")}) == 4


def test_a_template_says_which_form_its_model_writes() -> None:
    assert forms_of("... <tool_call>\n ...") == (HERMES,)
    assert forms_of("{% if '[TOOL_CALLS]' %}")[0] is MISTRAL
    assert forms_of('Respond with {"name": function name, "parameters": dictionary}')[0] is LLAMA
    assert set(forms_of("{{ messages }}")) == set(ALL)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "arguments"]), inner),
    max_leaves=6,
)


@given(JSON)
def test_any_json_is_read_or_left(value: object) -> None:
    text = json.dumps(value)
    calls, rest = calls_in(text)
    assert calls or rest == text
