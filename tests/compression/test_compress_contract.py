"""What `compress` promises, whatever the compressor: the matrix is `TEXT_COMPRESSORS` in conftest.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.compression.prepared import Compressed, Compression, compress
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.structure.json_tree import is_json, parse, parse_lines
from ctxkit.compression.text.pin_kinds import PATTERNS, RUNS
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text_compressor import TextCompressor, WordCompressor
from ctxkit.protocols import Counter
from ctxkit.testing import WhitespaceCounter, tiny_counter
from ctxkit.tokens import EstimatingCounter

COUNTERS: dict[str, Counter] = {"tiny": tiny_counter(), "estimate": EstimatingCounter(), "words": WhitespaceCounter()}
SHARES = (0.0, 0.1, 0.3, 0.5, 0.8, 0.95)

MARKER = regex.compile(
    r"(?:\s*(?:…|\[\.\.\.\]|\[… [\d,]+ (?:lines?|chars) omitted\]|\(×[\d,]+ similar lines\)|… \[[\d,]+ chars omitted\]"
    r'|\|? ?… [\d,]+ more rows? ?\|?|\{?"…+":"(?:[\d,]+ more (?:item|field|row)s?|rows: values of the keys above)"\}?'
    r"|\.\.\.  (?:#|//) lines? [\d-]+)\s*|[\[\]{},:\n])*"
)
"""All that may stand in an output and in no source."""

PIECES = [
    "a",
    "Ab",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    ". ",
    ", ",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "🇩🇪",
    "क्षि ",
    "ไทย",
    "漢字。",
    "שלום ",
]
PIECES += [
    "\u202e",
    "\ud800",
    "\u200d",
    "\ufeff",
    "[",
    "]",
    '"',
    "{",
    "}",
    ":",
    "\\",
    "`",
    "```\n",
    "| a | b |\n",
    "|---|---|\n",
]
PIECES += ["INV-20931 ", "17 ms ", "https://a.org/b?c=d&e ", "/srv/x_1.py:4 ", "3 May 2024 ", "$1,234.50 ", "x@y.org "]
PIECES += [
    "ERROR out of memory\n",
    "10:00:01 INFO request 4f0c9a1 took 5 ms\n",
    "id,name,note\n",
    "1,b,c d\n",
    "def f():\n",
]
PIECES += ["The server waits for the queue. ", "word " * 40, "x" * 300, "def f():\n    return 1\n"]
LEAVES = st.one_of(
    st.none(),
    st.integers(),
    st.sampled_from(PIECES),
    st.lists(st.sampled_from(PIECES), min_size=3, max_size=30).map("".join),
)
VALUES = st.recursive(
    st.dictionaries(st.sampled_from(["id", "name", "body"]), LEAVES, min_size=1),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
PLAIN = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
JSONS = st.builds(json.dumps, VALUES, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 2]))
TEXTS = st.one_of(
    PLAIN, PLAIN, JSONS, st.lists(VALUES, min_size=2, max_size=8).map(lambda v: "\n".join(map(json.dumps, v)))
)


@pytest.fixture(params=sorted(COUNTERS))
def any_counter(request: pytest.FixtureRequest) -> Counter:
    return TotalCounter(COUNTERS[request.param])


@given(
    texts=st.lists(TEXTS, max_size=3), question=st.sampled_from(["", "How long does request INV-20931 wait?", "क्षि"])
)
@settings(max_examples=12)
def test_any_texts_keep_the_contract(text_compressor: TextCompressor, texts: list[str], question: str) -> None:
    for counter in map(TotalCounter, COUNTERS.values()):
        whole = sum(counter.count_batch(texts))
        made = [shrunk(texts, text_compressor, int(share * whole), question, counter) for share in SHARES]
        for one in made:
            check_slices(one)
            check_json(one, text_compressor)
            check_pins(one, text_compressor, question)
        if len(texts) == 1:
            check_nested([one.results[0] for one in made])


def shrunk(texts: list[str], compressor: TextCompressor, tokens: int, question: str, counter: Counter) -> Compression:
    """What `compress` makes, checked for its size, and for being the same when made again and when made of itself."""
    made = compress(texts, compressor, tokens=tokens, question=question, counter=counter)
    assert counter.count_batch(made.texts) == [result.tokens for result in made.results]
    assert made.tokens <= tokens
    assert compress(texts, compressor, tokens=tokens, question=question, counter=counter) == made
    assert compress(made.texts, compressor, tokens=tokens, question=question, counter=counter).texts == made.texts
    return made


def check_slices(made: Compression) -> None:
    """Output is slices of the source in order and known markers; cut at clusters; no U+FFFD that was not there."""
    for result in made.results:
        at = 0
        clusters = {match.start() for match in regex.finditer(r"\X", result.source)} | {len(result.source)}
        is_tree = tree_of(result.source)
        for fragment in result.fragments:
            if fragment.start is None:
                assert MARKER.fullmatch(fragment.text), fragment.text
                continue
            assert result.source[fragment.start : fragment.end] == fragment.text
            assert fragment.start >= at
            at = fragment.end
            assert is_tree or {fragment.start, at} <= clusters
        assert "\ufffd" not in result.text


def tree_of(text: str) -> bool:
    return parse(text) is not None or parse_lines(text) is not None


def check_json(made: Compression, compressor: TextCompressor) -> None:
    if isinstance(compressor, WordCompressor) and not compressor.structured:
        return
    for result in made.results:
        if parse(result.source) is not None:
            assert not result.text or is_json(result.text)
        elif parse_lines(result.source) is not None and result.text:
            assert all(is_json(line) for line in result.text.splitlines() if line) or "\u2028" in result.text


def check_pins(made: Compression, compressor: TextCompressor, question: str) -> None:
    """No pin is mangled: of each, all characters are in the output, next to each other, or none is.

    Compressors that keep sentences promise it of pins without white space. In JSON a pin ends with its value.
    """
    ranks_words = isinstance(compressor, WordCompressor)
    if isinstance(compressor, WordCompressor) and compressor.pins is None:
        return
    for result in made.results:
        is_tree = tree_of(result.source)
        kinds = tuple(RUNS) if is_tree or not ranks_words else (*PATTERNS, *RUNS)
        if "\\" in result.source and is_tree:
            continue  # pins of the value are none of the literal
        kept = places(result)
        for start, end in Pins(kinds=kinds, names=False).spans(result.source):
            span = {i for i in range(start, end) if not result.source[i].isspace()}
            whole = span <= kept
            in_blob = regex.search(r"\S{200}", result.source) is not None and not ranks_words
            assert whole or not span & kept or in_blob, result.source[start:end]


def places(result: Compressed) -> set[int]:
    """Char offsets of the source that are in the output, less white space."""
    return {
        i
        for fragment in result.fragments
        if fragment.start is not None
        for i in range(fragment.start, fragment.end)
        if not result.source[i].isspace()
    }


def check_nested(made: Sequence[Compressed]) -> None:
    for smaller, larger in pairwise(made):
        assert places(smaller) <= places(larger)


@given(texts=st.lists(TEXTS, max_size=3))
@settings(max_examples=12)
def test_what_fits_is_untouched(text_compressor: TextCompressor, texts: list[str]) -> None:
    for counter in map(TotalCounter, COUNTERS.values()):
        whole = sum(counter.count_batch(texts))
        assert compress(texts, text_compressor, rate=1.0, counter=counter).texts == texts
        assert compress(texts, text_compressor, tokens=whole, counter=counter).texts == texts


@pytest.mark.parametrize(
    "text",
    ["", "a", " ", "\n", "\r\n", "\ud800", "👩‍👩‍👧‍👦", "{}", "[]", '"', "null", "\u0301", "[" * 1_200 + "]" * 1_200],
)
def test_degenerate_texts(text_compressor: TextCompressor, any_counter: Counter, text: str) -> None:
    for tokens in (0, 1, 2, 5):
        made = shrunk([text, text], text_compressor, tokens, "why?", any_counter)
        check_slices(made)
    assert compress([], text_compressor, tokens=0, counter=any_counter).texts == []


def test_the_question_of_how_much_is_asked_once(text_compressor: TextCompressor, counter: Counter) -> None:
    for wrong in ({}, {"tokens": 1, "rate": 0.5}, {"tokens": -1}, {"rate": 1.5}):
        with pytest.raises(ValueError, match="tokens|rate"):
            compress("a text", text_compressor, counter=counter, **wrong)
