"""What every compressor promises, over every kind of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.compression import (
    CentroidCompressor,
    ContentCompressor,
    ExtractiveCompressor,
    FactWords,
    SentenceSelector,
    StructuralCompressor,
    StubCompressor,
    extract,
    standard,
)
from ctxkit.context import Compressor, Level, Part, passage, turn
from ctxkit.context.expand import shows
from ctxkit.context.group import Group
from ctxkit.context.level import LevelRequest
from ctxkit.context.part import Attachment

Requests = Callable[..., LevelRequest]
Groups = Callable[..., Group]
Size = Callable[[Sequence[Part]], int]

COMPRESSORS: dict[str, Compressor] = {
    "structural": StructuralCompressor(),
    "extractive": ExtractiveCompressor(),
    "centroid": CentroidCompressor(),
    "stub": StubCompressor(),
    "facts": FactWords(),
    "question": SentenceSelector(),
}

PROSE = "\n\n".join(
    f"Paragraph {i} opens here. The socket of server {i} waits {i * 7} seconds before it gives up. Nobody reads "
    f"/srv/data/{i}/log.txt any more. A retry helps in most cases, and the cache stays warm."
    for i in range(40)
)
ROWS = json.dumps(
    [
        {"id": f"u-{i}", "path": f"/srv/data/{i}/file.py", "score": i * 1.5, "bio": f"User {i} likes long walks. " * 12}
        for i in range(60)
    ],
    indent=2,
)
LOG = "\n".join(
    f"2024-05-01 10:{i // 60:02d}:{i % 60:02d} "
    + (f"ERROR disk /dev/sd{i % 3} failed" if i % 53 == 0 else f"INFO request {i * 31} served in {i % 40} ms")
    for i in range(300)
)
TABLE = "id,name,town\n" + "".join(f"{i},user {i},Town{i % 7}\n" for i in range(200))
CODE = "import os\n\n\n" + "\n\n".join(
    f'def step_{i}(value: int) -> int:\n    """Do step {i}.\n\n    More words.\n    """\n'
    + "".join(f"    value += {j}  # add {j}\n" for j in range(12))
    + "    return value"
    for i in range(20)
)
MARKDOWN = "# Users\n\n| id | name |\n|---|---|\n" + "".join(f"| {i} | user {i} |\n" for i in range(120))
JSON_LINES = "\n".join(json.dumps({"id": i, "event": f"click {i}"}) for i in range(120))
ONE_LINE = "word and another one, then 42 more " * 400
HINDI = "हिन्दी में एक वाक्य है। यह क्षेत्र बहुत बड़ा है। " * 60
THAI = "ภาษาไทยไม่มีช่องว่างระหว่างคำ" * 60
EMOJI = "👩‍👩‍👧‍👦 🇩🇪 👍🏽 e\u0301 " * 150

TEXTS = {
    "prose": PROSE,
    "json": ROWS,
    "log": LOG,
    "table": TABLE,
    "code": CODE,
    "markdown": MARKDOWN,
    "json lines": JSON_LINES,
    "one line": ONE_LINE,
    "hindi": HINDI,
    "thai": THAI,
    "emoji": EMOJI,
}

DEGENERATE = [
    "",
    " ",
    "\n",
    "\r\n",
    "a",
    "\u0301",
    "👩‍👩‍👧‍👦",
    "\ud800",
    "[",
    '"',
    "{}",
    "[]",
    "null",
    "[" * 5_000 + "]" * 5_000,
]


RESIZABLE = ["structural", "extractive", "centroid"]


@pytest.fixture(params=sorted(TEXTS))
def text(request: pytest.FixtureRequest) -> str:
    return TEXTS[request.param]


@pytest.fixture(params=sorted(COMPRESSORS))
def compressor(request: pytest.FixtureRequest) -> Compressor:
    return COMPRESSORS[request.param]


def check(group: Group, levels: Sequence[Level], size: Size) -> None:
    """What holds for the levels of any group."""
    tokens, utility = size(group.parts), 1.0
    for level in levels:
        assert size(level.parts) < tokens
        assert 0 < level.utility < utility
        assert len(level.parts) == len(group.parts)
        tokens, utility = size(level.parts), level.utility
        changed = {old.id for old, new in zip(group.parts, level.parts, strict=True) if old != new}
        assert changed == {handle.part_id for handle in level.handles}
        for old, new in zip(group.parts, level.parts, strict=True):
            check_part(old, new)


def check_part(old: Part, new: Part) -> None:
    assert (old.id, old.kind, old.role, old.tool_call_id) == (new.id, new.kind, new.role, new.tool_call_id)
    assert not old.verbatim or old is new
    assert "\ufffd" not in new.content or "\ufffd" in old.content
    for before, after in zip(old.tool_calls, new.tool_calls, strict=True):
        assert {**before, "function": 0} == {**after, "function": 0}
        whole, kept = before["function"]["arguments"], after["function"]["arguments"]
        assert whole == kept or json.loads(whole).keys() == json.loads(kept).keys()


def test_levels_are_cheaper_and_cheaper(
    compressor: Compressor, text: str, request_of: Requests, tool_group: Groups, size: Size
) -> None:
    group = tool_group(text)
    levels = list(compressor.levels(group, request_of()))
    assert levels
    check(group, levels, size)


@pytest.mark.parametrize("name", RESIZABLE)
def test_a_long_text_reaches_small_sizes_by_halving(
    name: str, text: str, request_of: Requests, group_of: Groups, size: Size
) -> None:
    sizes = [size(level.parts) for level in COMPRESSORS[name].levels(group_of(passage(text)), request_of())]
    assert sizes[-1] <= 240  # bytes, about: a token of this tokenizer
    assert all(smaller >= 0.25 * larger for larger, smaller in zip(sizes[1:], sizes[2:], strict=False) if smaller > 200)


@pytest.mark.parametrize("name", RESIZABLE)
def test_resize_keeps_to_the_size_and_fills_it(
    name: str, text: str, request_of: Requests, tool_group: Groups, size: Size
) -> None:
    group = tool_group(text)
    level = next(COMPRESSORS[name].levels(group, request_of()))
    assert level.resize is not None
    previous = 0
    for tokens in (1, 20, 150, 400, 900, 1_500, 3_000, 10**9):
        made = level.resize(tokens)
        if made is None:
            assert tokens <= 400
            continue
        check(group, [made], size)
        assert previous <= size(made.parts) <= tokens
        previous = size(made.parts)
        if 1_500 <= tokens < 0.5 * size(group.parts):
            assert previous >= 0.7 * tokens


ROWS = json.dumps([{"id": i, "name": f"server-{i}", "state": "up"} for i in range(300)])
EXPANDABLE = {
    "prose": PROSE,
    "array": ROWS,
    "object": json.dumps({"rows": json.loads(ROWS), "next": None}),
    "lines": "\n".join(json.dumps({"id": i, "text": "word " * 10}) for i in range(200)),
    "table": "id,name,state\n" + "\n".join(f"{i},server-{i},up" for i in range(400)),
}


@pytest.mark.parametrize("compressor", [*COMPRESSORS.values(), ContentCompressor()], ids=str)
@pytest.mark.parametrize("kind", EXPANDABLE)
def test_what_leaves_something_out_says_how_to_get_it(
    kind: str, compressor: Compressor, request_of: Requests, tool_group: Groups, size: Size
) -> None:
    group = tool_group(EXPANDABLE[kind])
    request = request_of(expandable=True)
    levels = list(compressor.levels(group, request))
    assert levels
    for level in levels:
        texts = [level, *(made for made in [level.resize(600)] if made)] if level.resize else [level]
        for made in texts:
            content = made.parts[1].content
            if made.utility < 0.98 and content != group.parts[1].content:
                assert shows(content, group.parts[1].id)
            if kind in ("array", "object") and level.name != "stub":
                json.loads(content)
            if kind == "lines" and level.name != "stub":
                assert all(json.loads(line) for line in content.splitlines())
    resized = next((level.resize(600) for level in levels if level.resize), None)
    assert resized is None or size(resized.parts) <= 600


@pytest.mark.parametrize("name", RESIZABLE)
def test_one_long_line_fills_a_size(name: str, request_of: Requests, group_of: Groups, size: Size) -> None:
    for text in (ONE_LINE, HINDI, THAI, PROSE.replace("\n", " ")):
        level = next(COMPRESSORS[name].levels(group_of(passage(text)), request_of()))
        assert level.resize is not None
        made = level.resize(2_000)
        assert made is not None
        assert 0.9 * 2_000 <= size(made.parts) <= 2_000


def test_the_same_input_gives_the_same_levels(
    compressor: Compressor, text: str, request_of: Requests, tool_group: Groups
) -> None:
    group = tool_group(text)
    assert list(compressor.levels(group, request_of())) == list(compressor.levels(group, request_of()))


@pytest.mark.parametrize("degenerate", DEGENERATE)
def test_degenerate_texts_are_no_error(
    compressor: Compressor, degenerate: str, request_of: Requests, tool_group: Groups, size: Size
) -> None:
    for question in ("", "why?", "\ud800"):
        group = tool_group(degenerate, degenerate)
        levels = list(compressor.levels(group, request_of(question)))
        assert all(size(level.parts) < size(group.parts) for level in levels)


PIECES = [
    "a",
    " ",
    "\n",
    "\r\n",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "क्षि",
    "ไทย",
    "{",
    "}",
    "[",
    "]",
    '"',
    ",",
    ":",
    "1.50",
    "```\n",
]
PIECES += ["\ud800", "End. ", "def f():\n", "    return 1\n", "| a | b |\n", "|---|---|\n", "ERROR x\n", "word " * 60]


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
@given(
    contents=st.lists(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), min_size=1, max_size=3),
    question=st.sampled_from(["", "word", "क्षि ไทย 1.50"]),
    verbatim=st.booleans(),
    tokens=st.integers(1, 400),
)
@settings(max_examples=40)
def test_any_group_keeps_the_contract(
    name: str,
    contents: list[str],
    question: str,
    verbatim: bool,
    tokens: int,
    request_of: Requests,
    group_of: Groups,
    size: Size,
) -> None:
    parts = [turn("user", text, verbatim=verbatim and place == 0) for place, text in enumerate(contents)]
    group = group_of(*parts)
    levels = list(COMPRESSORS[name].levels(group, request_of(question)))
    check(group, levels, size)
    made = levels[0].resize(tokens) if levels and levels[0].resize else None
    if made is not None:
        check(group, [made], size)
        assert size(made.parts) <= tokens


def test_verbatim_parts_stay(compressor: Compressor, request_of: Requests, tool_group: Groups) -> None:
    group = tool_group(PROSE, verbatim=True)
    for level in compressor.levels(group, request_of()):
        assert level.parts[1] is group.parts[1]
    small = tool_group(PROSE, "{}", verbatim=True)
    assert all(level.parts[1] is small.parts[1] for level in compressor.levels(small, request_of()))


def test_small_texts_of_a_group_stay_whole(request_of: Requests, group_of: Groups, size: Size) -> None:
    group = group_of(passage("A short one that matters."), passage(PROSE), passage(PROSE.upper()))
    for name in RESIZABLE:
        level = next(COMPRESSORS[name].levels(group, request_of()))
        assert level.resize is not None
        made = level.resize(2_000)
        assert made is not None
        assert made.parts[0] is group.parts[0]
        first, second = size(made.parts[1:2]), size(made.parts[2:])
        assert 0.7 < first / second < 1.4


def output_map(text: str, request: LevelRequest, tokens: int) -> Iterator[tuple[str, int | None]]:
    source = extract(text, request)
    cut = source.at(tokens) if source is not None else None
    if cut is not None:
        assert "".join(fragment.text for fragment in cut.fragments) == cut.text
        yield from ((fragment.text, fragment.start) for fragment in cut.fragments)


@pytest.mark.parametrize("question", ["", "Why does the socket of server 17 wait?"])
def test_extracts_are_slices_that_nest(text: str, question: str, request_of: Requests) -> None:
    kept: set[int] = set()
    for tokens in (100, 200, 400, 900, 2_000):
        now: set[int] = set()
        last = 0
        for piece, start in output_map(text, request_of(question), tokens):
            if start is None:
                assert piece.strip() == "[...]"
                continue
            assert text[start : start + len(piece)] == piece
            assert start >= last
            last = start + len(piece)
            now.update(range(start, last))
        assert kept <= now
        kept = now


def test_no_cut_inside_a_grapheme_cluster(request_of: Requests) -> None:
    for text in (HINDI, THAI, EMOJI, "e\u0301" * 900, "👩‍👩‍👧‍👦" * 200, "a\r\nb" * 300):
        starts = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
        for tokens in (90, 150, 700):
            for piece, start in output_map(text, request_of(), tokens):
                assert start is None or {start, start + len(piece)} <= starts


def test_an_extract_holds_the_sentence_that_is_asked_for(request_of: Requests, group_of: Groups) -> None:
    group = group_of(passage(PROSE))
    *_, smallest = ExtractiveCompressor().levels(group, request_of("How long does the socket of server 17 wait?"))
    assert "The socket of server 17 waits 119 seconds before it gives up." in smallest.parts[0].content


def test_code_fences_are_whole_or_absent(request_of: Requests) -> None:
    fence = "```python\nx = 1\ny = 2\n```\n"
    text = PROSE + "\n\n" + fence + "\n" + PROSE
    for tokens in (150, 600, 1_500, 6_000):
        cut = extract(text, request_of("x y python"))
        made = None if cut is None else cut.at(tokens)
        assert made is not None
        assert ("x = 1" in made.text) == (fence in made.text)


def test_attachments_stand_where_they_stood(request_of: Requests, group_of: Groups) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    part = passage(PROSE, attachments=(Attachment(0, image), Attachment(len(PROSE), image)))
    for name in RESIZABLE:
        for level in COMPRESSORS[name].levels(group_of(part), request_of()):
            (reduced,) = level.parts
            assert [one.offset for one in reduced.attachments] == [0, len(reduced.content)]
    (stub,) = StubCompressor().levels(group_of(part), request_of())
    assert stub.parts[0].attachments == ()
    assert stub.parts[0].content.endswith("[2 images omitted]")


def test_stubs_say_how_much_and_how_to_get_it_back(request_of: Requests, tool_group: Groups) -> None:
    group = tool_group(LOG, json.dumps({"path": "/a/b.py", "body": PROSE, "limit": 1.5, "rows": list(range(99))}))
    (level,) = StubCompressor().levels(group, request_of(expandable=True))
    content = level.parts[1].content
    assert regex.fullmatch(r'\[tool result omitted: 300 lines, [\d,]+ tokens; expand\("tool_result-1"\)\]', content)
    arguments = json.loads(level.parts[0].tool_calls[0]["function"]["arguments"])
    body = f"[{len(PROSE):,} chars omitted]"
    assert arguments == {"path": "/a/b.py", "body": body, "limit": 1.5, "rows": "[99 items omitted]"}
    (plain,) = StubCompressor().levels(group, request_of())
    assert "expand" not in plain.parts[1].content
    assert not list(StubCompressor().levels(Group(0, (0, 1), level.parts), request_of(expandable=True)))


def test_handles_name_the_missing_lines(request_of: Requests, group_of: Groups) -> None:
    text = "".join(f"line {i} of the text\n" for i in range(1, 101))
    level = next(StructuralCompressor().levels(group_of(passage(text)), request_of("")))
    for handle in level.handles:
        for number in range(1, 101):
            missing = any(one.start_line <= number <= one.end_line for one in level.handles)
            assert missing or f"line {number} of" in level.parts[0].content
        assert handle.total_lines == 101


def test_the_standard_compressors_need_no_model() -> None:
    assert standard() == (ContentCompressor(), StubCompressor())


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="least_tokens"):
        ExtractiveCompressor(least_tokens=0)
    with pytest.raises(ValueError, match="lean"):
        StructuralCompressor(lean=2)
    with pytest.raises(ValueError, match="utility"):
        StubCompressor(utility=1.0)
