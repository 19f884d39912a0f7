"""OpenAIChatCounter and its rank files: against an independent BPE, the cookbook's rule and hostile files."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ctxkit.errors import ModelError, ModelNotFound
from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Segment
from ctxkit.tokens import OpenAIChatCounter, messages_from_dicts
from ctxkit.tokens.namespace import namespace_text
from ctxkit.tokens.ranks import RankTokenizer

CORPUS = ["the quick brown fox's den, THE LAZY dogs 12345 \n\n" * 4, "def f(x):\n    return x\n", "今天天气 नमस्ते 今天"]


def _trained() -> tuple[Tokenizer, dict[bytes, int]]:
    """A small byte-level BPE that sees whole texts as one pre-token, and its ranks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    words = [word for text in CORPUS for word in text.split(" ")]
    tokenizer.train_from_iterator(words, trainer)
    byte_of = {character: byte for byte, character in _byte_characters().items()}
    singles = [bytes([byte]) for byte in range(256)]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    merged = [bytes(byte_of[character] for character in "".join(pair)) for pair in merges]
    return tokenizer, {token: rank for rank, token in enumerate([*singles, *merged])}


def _byte_characters() -> dict[int, str]:
    """GPT-2's visible character for each byte."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


REFERENCE, RANKS = _trained()


@pytest.fixture
def rank_file(tmp_path: Path) -> Path:
    lines = [b"%s %d" % (base64.b64encode(token), rank) for token, rank in RANKS.items()]
    path = tmp_path / "small.tiktoken"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.fixture
def counter(rank_file: Path) -> OpenAIChatCounter:
    return OpenAIChatCounter.from_ranks(rank_file)


@given(st.text(alphabet="abdefghinoqrtuwxz", min_size=1, max_size=80))
def test_a_pre_token_is_merged_as_an_independent_bpe_merges_it(word: str) -> None:
    assert RankTokenizer(RANKS).count(word) == len(REFERENCE.encode(word).ids)


@given(st.text(max_size=200))
def test_any_text_costs_from_one_token_to_its_bytes(text: str) -> None:
    assert min(len(text), 1) <= RankTokenizer(RANKS).count(text) <= len(text.encode())


def test_the_patterns_cut_as_their_models_do() -> None:
    only_bytes = RankTokenizer({bytes([byte]): byte for byte in range(256)} | {b"abc": 256, b"ab": 257}, "cl100k")
    assert only_bytes.count("abc") == 1
    assert only_bytes.count("abcabc") == 2 * 1
    assert only_bytes.count("ab c") == 3  # no token reaches over a cut
    assert RankTokenizer(RANKS, "o200k").count("don't") <= RankTokenizer(RANKS, "cl100k").count("don't")


def test_a_token_that_no_merge_reaches_is_still_one_token() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abcd": 256}
    assert RankTokenizer(ranks).count("abcd") == 1
    assert RankTokenizer(ranks).count("abcde") == 5


def test_lone_surrogates_and_special_tokens_are_ordinary_text(counter: OpenAIChatCounter) -> None:
    assert counter.count("\ud800") == 1  # "?" stands in for it
    assert counter.count("<|endoftext|>") > 1


def test_a_rank_file_is_read_with_or_without_a_last_line_break(rank_file: Path) -> None:
    read = RankTokenizer.from_file(rank_file)
    assert read.ranks == RANKS
    rank_file.write_bytes(rank_file.read_bytes().rstrip())
    assert RankTokenizer.from_file(rank_file).ranks == RANKS
    assert repr(read) == f"RankTokenizer('o200k', vocabulary={len(RANKS)})"


@pytest.mark.parametrize("line", [b"not base64! 7", b"YQ==", b"YQ== x", b"", b"\xff\xfe 1"])
def test_a_damaged_line_is_named(rank_file: Path, line: bytes) -> None:
    rank_file.write_bytes(b"YQ== 0\n" + line + b"\nYg== 1\n")
    with pytest.raises(ModelError, match="line 2 of"):
        RankTokenizer.from_file(rank_file)


def test_a_missing_file_missing_bytes_and_a_wrong_pattern_are_refused(rank_file: Path) -> None:
    with pytest.raises(ModelNotFound, match="no rank file at"):
        OpenAIChatCounter.from_ranks(rank_file.with_name("none"))
    with pytest.raises(ModelError, match="lack 255 single bytes"):
        RankTokenizer({b"\0": 0})
    with pytest.raises(ValueError, match="pattern.*'gpt9'"):
        OpenAIChatCounter.from_ranks(rank_file, "gpt9")  # type: ignore[arg-type]


def test_messages_are_counted_by_the_cookbook(counter: OpenAIChatCounter) -> None:
    chat = [
        {"role": "system", "content": "the quick", "name": "fox"},
        {"role": "user", "content": "brown dogs"},
    ]
    texts = ["system", "the quick", "fox", "user", "brown dogs"]
    rendering = counter.render(messages_from_dicts(chat))
    assert rendering.tokens == sum(map(counter.count, texts)) + 2 * 3 + 1 + 3
    assert rendering.ids is None
    assert counter.exact
    assert counter.render([]).tokens == 0


@given(st.lists(st.lists(st.tuples(st.text(max_size=30), st.sampled_from(["a", "b", None])), max_size=6), max_size=4))
def test_owners_add_up_and_segments_never_change_the_total(parts: list[list[tuple[str, str | None]]]) -> None:
    counter = OpenAIChatCounter(RankTokenizer(RANKS).count)
    split = counter.render([PromptMessage("user", tuple(Segment(*piece) for piece in pieces)) for pieces in parts])
    joined = ["".join(text for text, _ in pieces) for pieces in parts]
    whole = counter.render([PromptMessage("user", (Segment(text, "a"),)) for text in joined])
    assert sum(split.by_owner.values()) == split.tokens == whole.tokens
    assert min(split.by_owner.values(), default=0) >= 0


TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds places.\nFast.",
        "parameters": {
            "type": "object",
            "properties": {
                "where": {"type": "string", "description": "The city"},
                "unit": {"type": "string", "enum": ["km", "mi"]},
                "near": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
                "how": {"type": "object", "properties": {"fast": {"type": ["boolean", "null"]}}, "required": ["fast"]},
            },
            "required": ["where"],
        },
    },
}


def test_tools_are_shown_as_a_namespace() -> None:
    assert namespace_text([TOOL]).splitlines()[6:-2] == [
        "// Finds places.",
        "// Fast.",
        "type find = (_: {",
        "// The city",
        "where: string,",
        'unit?: "km" | "mi",',
        "// maxItems: 3",
        "near?: number[],",
        "how?: {",
        "fast: boolean | null,",
        "},",
        "}) => any;",
    ]


def test_tools_and_calls_are_charged_apart(counter: OpenAIChatCounter) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"where": "the den"}'}}
    message = PromptMessage("assistant", (), tool_calls=(call,), owner="call")
    rendering = counter.render([message], tools=[TOOL])
    assert rendering.by_owner["call"] >= counter.count("find") + counter.count('{"where": "the den"}')
    assert rendering.by_owner[TOOLS] > counter.count(namespace_text([TOOL]))
    assert rendering.by_owner[TEMPLATE] == 3 + 3 + counter.count("assistant")
    as_object = {**call, "function": {"name": "find", "arguments": {"where": "the den"}}}
    assert counter.render([PromptMessage("assistant", (), tool_calls=(as_object,), owner="call")]).by_owner["call"] > 8


@pytest.mark.parametrize(
    "schema",
    [{}, {"type": "object"}, {"properties": {"x": True}}, {"properties": {"x": {"$ref": "#/$defs/y"}}, "$defs": {}}],
)
def test_any_schema_is_counted(counter: OpenAIChatCounter, schema: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert counter.render([], tools=[tool]).by_owner[TOOLS] > 16


def test_an_encoding_of_tiktokens_kind_can_be_given() -> None:
    class Letters:
        name = "letters"

        def encode_ordinary(self, text: str) -> Sequence[int]:
            return [ord(letter) for letter in text]

    counter = OpenAIChatCounter.from_encoding(Letters())
    assert counter.count_batch(["abc", "", "abc"]) == [3, 0, 3]
    assert repr(counter) == "OpenAIChatCounter('openai letters')"
