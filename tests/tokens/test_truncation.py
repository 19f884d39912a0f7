"""truncate: the longest beginning or end that fits, recounted, whole graphemes only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ctxkit.errors import BudgetError
from ctxkit.protocols import Counter, PromptMessage, Rendering
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter, TemplateCounter, truncate
from ctxkit.tokens.graphemes import cluster_interiors, cluster_starts

Keep = Literal["start", "end"]
both_sides = pytest.mark.parametrize("keep", ["start", "end"])

SCRIPTS = "नमस्ते 👩‍👩‍👧‍👦 今天𠜎天气"
TEXTS = [
    SCRIPTS,
    "antidisestablishmentarianism floccinaucinihilipilification",
    "one\r\n\r\ntwo 🇩🇪🇫🇷🇬🇧 e\u0301te\u0301 \u1112\u1161\u11ab",
    "    def f(x):\n        return f'{x!r}'\n\n\n",
    "\u0301\u0301\u200d",
    " \n ",
]


def byte_level() -> TemplateCounter:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "the quick brown fox jumps over the lazy dog " * 3], trainer)
    return TemplateCounter(tokenizer, name="byte-level")


@pytest.fixture(scope="session")
def smollm2() -> TemplateCounter:
    folder = Path(platformdirs.user_cache_dir("ctxkit")) / "models" / "smollm2-135m-instruct"
    if not folder.is_dir():
        pytest.skip("SmolLM2 is not prepared: run `ctxkit models prepare`")
    return TemplateCounter.from_folder(folder)


COUNTERS: dict[str, Counter] = {
    "byte-level": byte_level(),
    "estimate": EstimatingCounter(),
    "whitespace": WhitespaceCounter(),
}


@pytest.fixture(params=[*COUNTERS, "smollm2"])
def counter(request: pytest.FixtureRequest) -> Counter:
    return COUNTERS.get(request.param) or request.getfixturevalue("smollm2")


def _pieces(text: str, keep: Keep) -> list[str]:
    inside = cluster_interiors(text)
    cuts = [cut for cut in range(len(text) + 1) if cut not in inside]
    return [text[:cut] if keep == "start" else text[cut:] for cut in cuts]


def _longest(text: str, k: int, counter: Counter, keep: Keep) -> str:
    """By trying every cut."""
    return max((piece for piece in _pieces(text, keep) if k and counter.count(piece) <= k), key=len, default="")


@both_sides
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_it_is_the_longest_piece_that_fits_at_every_size(counter: Counter, text: str, keep: Keep) -> None:
    for k in range(counter.count(text) + 3):
        assert truncate(text, k, counter, keep=keep) == _longest(text, k, counter, keep)


@given(
    text=st.text(alphabet=st.sampled_from([*SCRIPTS, *"abc the\r\n\t", "🇩", "\u0301", "\u1161"]), max_size=120),
    k=st.integers(0, 40),
    keep=st.sampled_from(["start", "end"]),
    name=st.sampled_from(sorted(COUNTERS)),
)
@settings(deadline=None)
def test_what_is_kept_fits_and_no_longer_cut_does(text: str, k: int, keep: Keep, name: str) -> None:
    kept = truncate(text, k, COUNTERS[name], keep=keep)
    assert kept == _longest(text, k, COUNTERS[name], keep)
    assert "\ufffd" not in kept


@both_sides
@pytest.mark.parametrize(
    "unit", ["the quick brown fox. ", "今天天气很好", "नमस्ते ", "👩‍👩‍👧‍👦", "x", "a\r\n"], ids=ascii
)
@pytest.mark.parametrize("k", [1, 77, 3_000, 9_000])
def test_a_long_text_is_cut_as_a_short_one(unit: str, k: int, keep: Keep) -> None:
    counter, text = COUNTERS["byte-level"], unit * (24_000 // len(unit))
    kept = truncate(text, k, counter, keep=keep)
    inside, size = cluster_interiors(text), len(text)
    cuts = [(cut, text[:cut]) if keep == "start" else (size - cut, text[size - cut :]) for cut in _next(kept, size)]
    assert counter.count(kept) <= k
    assert all(counter.count(longer) > k for at, longer in cuts if at not in inside)
    assert kept == (text[: len(kept)] if keep == "start" else text[len(text) - len(kept) :])


def _next(kept: str, size: int) -> range:
    return range(len(kept) + 1, min(len(kept) + 40, size) + 1)


@both_sides
def test_a_long_run_without_words_is_cut_a_little_short_at_most(keep: Keep) -> None:
    kept = truncate("\n" * 60_000, 20_000, COUNTERS["byte-level"], keep=keep)
    assert 19_990 <= COUNTERS["byte-level"].count(kept) <= 20_000


class Spying(WhitespaceCounter):
    def __init__(self, inner: Counter) -> None:
        super().__init__()
        self.inner = inner
        self.counts = self.chars = 0

    def count(self, text: str) -> int:
        self.counts += 1
        self.chars += len(text)
        return self.inner.count(text)


@both_sides
@pytest.mark.parametrize("k", [10, 1_000, 100_000, 10_000_000])
def test_a_text_of_5_mb_is_read_no_further_than_twice_what_is_kept(k: int, keep: Keep) -> None:
    text = "The quick brown fox jumps over the lazy dog, 今天天气.\n" * 100_000
    spy = Spying(WhitespaceCounter())
    kept = truncate(text, k, spy, keep=keep)
    assert spy.count(kept) == min(k, WhitespaceCounter().count(text))
    assert spy.counts < 80
    assert spy.chars < 3 * len(kept) + 400_000


class Joining(WhitespaceCounter):
    """Words, and one token more for every ten thousand characters: pieces never add up to the whole."""

    def count(self, text: str) -> int:
        return super().count(text) + len(text) // 10_000

    def render(self, messages: Sequence[PromptMessage], *, tools: Any = ()) -> Rendering:
        raise NotImplementedError


@both_sides
def test_pieces_that_do_not_add_up_are_recounted(keep: Keep) -> None:
    text = "word " * 40_000
    for k in (3_001, 7_000, 20_000):
        kept = truncate(text, k, Joining(), keep=keep)
        assert k - 1 <= Joining().count(kept) <= k


def test_a_replacement_character_of_the_input_is_kept() -> None:
    assert truncate("a\ufffdb", 9, COUNTERS["byte-level"]) == "a\ufffdb"


def test_nothing_fits_into_no_tokens_and_an_empty_text_into_any(counter: Counter) -> None:
    assert truncate("   ", 0, counter) == truncate("", 3, counter) == ""


def test_a_grapheme_that_does_not_fit_is_left_out_whole() -> None:
    assert truncate("👩‍👩‍👧‍👦", 3, EstimatingCounter()) == ""


def test_a_wrong_size_or_side_is_refused() -> None:
    with pytest.raises(BudgetError, match="max_tokens.*-1"):
        truncate("x", -1, WhitespaceCounter())
    with pytest.raises(ValueError, match="keep.*'middle'"):
        truncate("x", 1, WhitespaceCounter(), keep="middle")  # type: ignore[arg-type]


@given(
    text=st.text(alphabet=st.sampled_from([*SCRIPTS, *"ab \r\n", "🇩", "\u0301"]), max_size=600),
    start=st.integers(0, 600),
    size=st.integers(0, 300),
)
def test_the_cuts_of_a_range_are_those_of_the_whole_text(text: str, start: int, size: int) -> None:
    start = min(start, len(text))
    end = min(start + size, len(text))
    inside = cluster_interiors(text)
    assert cluster_starts(text, start, end) == [cut for cut in range(start, end + 1) if cut not in inside]
