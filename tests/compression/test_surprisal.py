"""Surprisal: what the model could have guessed goes first."""

from __future__ import annotations

import numpy as np
import pytest

from ctxkit.compression import compress
from ctxkit.compression.surprisal import Surprisal
from ctxkit.compression.text.words import Words
from ctxkit.models.local import LocalModel
from ctxkit.testing import tiny_model

TEXT = "The socket waits. The socket waits for server 17, they say, and nobody knows why. " * 4


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return tiny_model()


def test_a_word_scores_the_mean_surprise_of_its_tokens(model: LocalModel) -> None:
    words = Words.of(TEXT, None)
    located = model.locate(TEXT)
    own = [i for i, start in enumerate(located.starts) if 0 <= start < len(TEXT)]
    surprise = -model.score(located.ids[: own[0]], located.ids[own[0] : own[-1] + 1])
    third = [float(surprise[i - own[0]]) for i in own if words.bounds[2] <= located.starts[i] < words.bounds[3]]
    assert Surprisal(model).scores([words], "")[0][2] == pytest.approx(np.mean(third), rel=1e-4)


def test_long_texts_are_read_in_pieces_and_every_word_has_a_score(model: LocalModel) -> None:
    words = Words.of(TEXT, None)
    scores = Surprisal(model, most_tokens=64).scores([words], "")[0]
    assert len(scores) == len(words) and all(score > 0 for score in scores)


def test_it_compresses_to_the_budget(model: LocalModel) -> None:
    made = compress([TEXT, "", " ", "one"], Surprisal(model), tokens=60, counter=model.counter.as_text())
    assert 50 <= made.tokens <= 60


def test_passes_that_are_too_small_are_refused(model: LocalModel) -> None:
    with pytest.raises(ValueError, match="most_tokens"):
        Surprisal(model, most_tokens=3)
