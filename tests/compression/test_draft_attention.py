"""Draft attention: with a draft that looks where it is told to, with a tiny Llama, and with the packaged model."""

from __future__ import annotations

import doctest
from collections.abc import Sequence

import numpy as np
import pytest

import ctxkit.compression.draft_attention
from ctxkit.compression.draft_attention import DraftAttention
from ctxkit.compression.prepared import compress
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.words import Words
from ctxkit.errors import PromptError
from ctxkit.models import DEFAULT_MODEL, LocalModel
from ctxkit.models.prepare import is_prepared, model_folder
from ctxkit.protocols import Located
from ctxkit.testing import ScriptedModel, tiny_model

QUESTION = "Where is the blue key?"
FILLER = "The weather was mild and the streets were quiet in the early hours of the day. "
NEEDLE = "The blue key is under the stone in the garden. "


class Looking:
    """A token is a character, between three tokens of a template; the last positions look at those of `seen`."""

    def __init__(self, seen: str, window_tokens: int = 10_000) -> None:
        self.seen = seen
        self.window_tokens = window_tokens
        self.prompts: list[str] = []
        self.windows: list[int] = []

    def locate(self, prompt: str) -> Located:
        self._last = prompt
        return Located((0,) * (len(prompt) + 6), (-1, -1, -1, *range(len(prompt)), *[len(prompt)] * 3))

    def window_attention(
        self, ids: Sequence[int], *, window: int, first_layer: int = 0, lookahead_tokens: int = 0
    ) -> np.ndarray:
        assert len(ids) == len(self._last) + 6 <= self.window_tokens
        self.prompts.append(self._last)
        self.windows.append(window)
        rows = np.full((window + lookahead_tokens, len(ids)), 0.01, np.float32)
        rows[:, 0] = 1.0
        at = self._last.find(self.seen)
        if at >= 0:
            rows[:, 3 + at : 3 + at + len(self.seen)] = 0.5
        return rows


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return tiny_model(window_tokens=512)


def _method(draft: object, **options: int | None) -> DraftAttention:
    return DraftAttention(draft, **{"kernel": 1, "first_layer": 0, **options})  # type: ignore[arg-type]


def _best(text: str, scores: Sequence[float]) -> list[str]:
    return [word for word, score in zip(Words.of(text, None).proper, scores, strict=True) if score > 0.4]


def test_words_are_those_that_the_draft_looks_at() -> None:
    draft = Looking("blue key")
    (scores,) = _method(draft).scores([Words.of(FILLER + NEEDLE, None)], "Where?")
    assert _best(FILLER + NEEDLE, scores) == ["blue", "key"]
    assert draft.prompts == [FILLER + NEEDLE + "\n\nWhere?"]


def test_the_window_is_what_stands_behind_the_texts() -> None:
    draft = Looking("x")
    _method(draft).scores([Words.of(FILLER, None)], "Where?")
    _method(draft, window=5).scores([Words.of(FILLER, None)], "Where?")
    _method(draft).scores([Words.of("a few words", None)], "")
    assert draft.windows == [len("\n\nWhere?") + 3, 5, len("a few words") + 6]


def test_without_a_question_the_end_of_the_text_looks_and_is_kept() -> None:
    text = NEEDLE + FILLER
    (scores,) = _method(Looking("blue key"), window=3 + len(" of the day. ")).scores([Words.of(text, None)], "")
    assert _best(text, scores) == ["blue", "key", "of", "the", "day", "."]


def test_all_texts_are_in_one_prompt_and_each_has_its_own_scores() -> None:
    draft = Looking("blue key")
    scores = _method(draft).scores([Words.of(text, None) for text in (FILLER, "", NEEDLE)], QUESTION[:5])
    assert len(draft.prompts) == 1
    assert [_best(text, own) for text, own in zip((FILLER, "", NEEDLE), scores, strict=True)] == [
        [],
        [],
        ["blue", "key"],
    ]


def test_a_kernel_and_neighbours_spread_a_score() -> None:
    text = "aa bb cc dd ee ff gg"
    spread = [
        _best(text, _method(Looking("dd"), kernel=kernel, neighbours=near).scores([Words.of(text, None)], "?")[0])
        for kernel, near in ((1, None), (1, 1), (7, 1), (7, None), (1, 7))
    ]
    assert spread == [["dd"], ["dd"], ["cc", "dd", "ee"], ["bb", "cc", "dd", "ee", "ff"], ["cc", "dd", "ee"]]


def test_a_text_too_long_for_the_draft_is_read_in_pieces_with_the_question_behind_each() -> None:
    text = FILLER * 6 + NEEDLE + FILLER * 5
    draft = Looking("blue key", window_tokens=320)
    (scores,) = _method(draft).scores([Words.of(text, None)], "Where?")
    assert _best(text, scores) == ["blue", "key"]
    assert all(prompt.endswith("\n\nWhere?") for prompt in draft.prompts)
    pieces = [prompt.removesuffix("\n\nWhere?") for prompt in draft.prompts]
    assert "".join(pieces) == text
    assert len(pieces) == 4
    assert max(map(len, pieces)) < 1.5 * min(map(len, pieces))
    assert all(piece.strip().endswith(".") for piece in pieces)


def test_a_word_longer_than_the_draft_reads_has_the_best_score_of_its_pieces() -> None:
    text = "short " + "x" * 700 + "blue" + "y" * 300 + " end"
    (scores,) = _method(Looking("blue", window_tokens=200)).scores([Words.of(text, None)], "?")
    assert [score > 0.4 for score in scores] == [False, True, False]


@pytest.mark.parametrize("question", ["", QUESTION])
@pytest.mark.parametrize("text", ["", " \n", "word", "!", "https://example.org/a?b=1", "1.5 2.5 3.5", "🎉 日本語"])
def test_degenerate_texts_have_a_finite_score_for_each_word(tiny: LocalModel, text: str, question: str) -> None:
    words = Words.of(text, Pins(), question)
    (scores,) = _method(tiny).scores([words], question)
    assert len(scores) == len(words)
    assert np.isfinite(scores).all()
    assert _method(tiny).scores([], question) == []


def test_the_same_texts_have_the_same_scores_however_the_draft_reads_them(tiny: LocalModel) -> None:
    words = [Words.of(FILLER * 2 + NEEDLE), Words.of(NEEDLE[::-1])]
    first = _method(tiny, lookahead_tokens=2).scores(words, QUESTION)
    assert _method(tiny, lookahead_tokens=2).scores(words, QUESTION) == first
    slow = LocalModel(tiny.model, tiny.counter, prefill_tokens=13)
    for one, other in zip(first, _method(slow, lookahead_tokens=2).scores(words, QUESTION), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_long_text_is_compressed_to_the_budget(tiny: LocalModel) -> None:
    result = compress([FILLER * 12, NEEDLE], _method(tiny), rate=0.4, question=QUESTION, counter=tiny)
    assert 0 < result.tokens <= 0.4 * result.source_tokens
    assert result.method == "draft attention"


def test_a_question_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(
        PromptError, match="take 108 tokens, more than half of the 200 of a prompt. Shorten the question"
    ):
        _method(Looking("", window_tokens=200)).scores([Words.of(FILLER)], "q" * 100)


def test_what_is_no_draft_is_refused() -> None:
    with pytest.raises(ValueError, match='`draft` must be a model of the capability "attention_evidence"'):
        _method(ScriptedModel([]))


@pytest.mark.parametrize("name", ["window", "kernel", "neighbours", "most_tokens"])
def test_sizes_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        _method(Looking(""), **{name: 0})


def test_doctests() -> None:
    assert doctest.testmod(ctxkit.compression.draft_attention).failed == 0


def test_the_packaged_model_finds_the_answer() -> None:
    if not is_prepared(model_folder(DEFAULT_MODEL)):
        pytest.skip(f"{DEFAULT_MODEL} is not prepared; run: ctxkit models prepare {DEFAULT_MODEL}")
    model = LocalModel.load()
    text = FILLER * 3 + NEEDLE + FILLER * 3
    result = compress(text, DraftAttention(model, kernel=8), rate=0.3, question=QUESTION, counter=model)
    assert "under the stone" in result.text
