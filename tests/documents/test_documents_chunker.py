from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.documents import Chunker, Document
from ctxkit.documents.loaders import LOADERS

PIECES = st.sampled_from(
    [
        *("# Head\n", "## Sub part\n", "Title\n===\n", "---\n", "\n", "\n\n", " ", "\r\n", "\t", "> quote\n"),
        *(
            "- item\n",
            "  - nested item\n",
            "1. first\n",
            "```\n",
            "~~~py\n",
            "| a | b |\n",
            "|---|---|\n",
            "<!-- x -->",
        ),
        *("A sentence of words. ", "Another one? ", "wordwithoutend" * 4, "e.g. this, and (that)", "    indented\n"),
        *(
            "👨\u200d👩\u200d👧\u200d👦",
            "🇩🇪🇫🇷",
            "क्षि",
            "नमस्ते दुनिया। ",
            "e\u0301",
            "\u0301",
            "각",
            "日本語の文。次の文、",
            "\u0600",
            "\u200d",
        ),
    ]
)
TEXTS = st.one_of(st.lists(PIECES, max_size=60).map("".join), st.text(max_size=200)).filter(
    lambda text: text.strip() and "\0" not in text and not text.startswith("\ufeff")
)


def words(texts):
    return [len(text.split()) for text in texts]


def chars(texts):
    return [len(text) for text in texts]


def greedy_pairs(texts):
    """Not additive: neighbouring chars join to one token, so joined pieces count less or more than their sum."""
    return [len(regex.findall(r"\s*\w{1,3}|\s*[^\w\s]|\s+", text)) for text in texts]


def assert_sound(document: Document, data: bytes, chunks, count, limit: int) -> None:
    boundaries = {0, *(match.end() for match in regex.finditer(r"\X", document.text))}
    covered = 0
    for chunk in chunks:
        assert data[chunk.start_byte : chunk.end_byte].decode() == chunk.text
        start = len(data[: chunk.start_byte].decode())
        end = start + len(chunk.text)
        assert start in boundaries and end in boundaries
        assert not document.text[covered:start].strip()
        assert chunk.text.strip()
        assert count([chunk.text])[0] <= limit or len(regex.findall(r"\X", chunk.text)) == 1
        assert chunk.start_line == data[: chunk.start_byte].count(b"\n") + 1
        assert chunk.end_line == data[: chunk.end_byte].count(b"\n") + 1 - chunk.text.endswith("\n")
        covered = end
    assert not document.text[covered:].strip()
    assert len({chunk.id for chunk in chunks}) == len(chunks)


@pytest.mark.parametrize("suffix", [".md", ".txt", ".py", ".js", ".log"])
@pytest.mark.parametrize("count", [words, chars, greedy_pairs])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, limit=st.integers(1, 40))
def test_chunks_are_exact_slices_that_cover_the_text_within_the_limit(suffix, count, text, limit):
    data = text.encode()
    (document,) = LOADERS[suffix](data, "file" + suffix)
    chunks = Chunker(count, limit).chunks(document)
    assert_sound(document, data, chunks, count, limit)
    assert chunks == Chunker(count, limit).chunks(document)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_a_text_that_fits_under_no_heading_is_one_chunk(text):
    (document,) = LOADERS[".txt"](text.encode(), "file.txt")
    assert len(Chunker(words, 10_000).chunks(document)) == 1


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level BPE trained on the spot: joins across blanks, many tokens for an emoji."""
    tokenizers = pytest.importorskip("tokenizers")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["A sentence of words. Another one? wordwithoutend ## Sub part\n\n- item\n" * 20], trainer)
    return bpe


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, limit=st.integers(12, 60))
def test_no_chunk_is_over_the_limit_of_a_real_tokenizer(tokenizer, text, limit):
    def count(texts):
        return [len(encoding) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    data = text.encode()
    (document,) = LOADERS[".md"](data, "file.md")
    assert_sound(document, data, Chunker(count, limit).chunks(document), count, limit)


def test_each_text_is_counted_once_and_in_few_calls():
    calls = []

    def count(texts):
        calls.append(list(texts))
        return words(texts)

    text = "".join(f"# Head {i}\n\n" + f"Sentence {i} of some words. " * 30 + "\n\n" for i in range(40))
    (document,) = LOADERS[".md"](text.encode(), "file.md")
    Chunker(count, 50).chunks(document)
    counted = [text for call in calls for text in call]
    assert len(counted) == len(set(counted))
    assert len(calls) <= 12


def test_many_documents_are_counted_together():
    calls = []

    def count(texts):
        calls.append(len(texts))
        return words(texts)

    lines = "".join(f'{{"_id": "{i}", "text": "record number {i}"}}\n' for i in range(100))
    documents = LOADERS[".jsonl"](lines.encode(), "file.jsonl")
    chunker = Chunker(count, 50)
    together = list(chunker.chunk_all(documents))
    assert calls == [100]
    assert together == [chunk for document in documents for chunk in chunker.chunks(document)]


def test_an_id_depends_on_source_place_and_text_alone():
    first = Chunker(words).chunks(LOADERS[".md"](b"# A\n\ntext\n", "a.md")[0])
    again = Chunker(words).chunks(LOADERS[".md"](b"# A\n\ntext\n\n# B\n\nmore\n", "a.md")[0])
    other = Chunker(words).chunks(LOADERS[".md"](b"# A\n\ntext\n", "b.md")[0])
    assert first[0].id == again[0].id
    assert first[0].id.startswith("a.md#")
    assert first[0].id.split("#")[1] != other[0].id.split("#")[1]


def test_a_wall_of_emoji_is_cut_between_families():
    family = "👨\u200d👩\u200d👧\u200d👦"
    (document,) = LOADERS[".txt"]((family * 50).encode(), "x.txt")
    chunks = Chunker(chars, 24).chunks(document)
    assert {chunk.text.replace(family, "") for chunk in chunks} == {""}


def test_the_limit_must_be_positive():
    with pytest.raises(ValueError, match="`max_tokens` must be at least 1, got 0"):
        Chunker(words, 0)


def test_long_lines_and_hostile_repeats_take_linear_work():
    for unit in ("    ```\n", "<pre\n", "- ~~~\n", "a.  ", "> ", "| a\n", "x" * 50, "é" * 50):
        (document,) = LOADERS[".md"]((unit * 4000 + "end").encode(), "x.md")
        assert Chunker(words, 50).chunks(document)
