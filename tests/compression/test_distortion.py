"""Distortion is measured: metrics with numbers that can be checked by hand, and curves of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxkit.compression import Compression, Head, NoStopWords, RandomWords, compress
from ctxkit.compression.distortion.curves import Curve, curve
from ctxkit.compression.distortion.metrics import (
    AnswerLikelihood,
    AnswerSurvival,
    GoldRecall,
    IdentifierSurvival,
    JsonValidity,
    Sample,
)
from ctxkit.testing import WhitespaceCounter, tiny_model

COUNTER = WhitespaceCounter()
TEXT = "one two three 4,000 five six seven INV-8 nine ten"


def head(text: str, tokens: int) -> Compression:
    return compress(text, Head(pins=None), tokens=tokens, counter=COUNTER)


def test_an_answer_survives_letter_by_letter() -> None:
    sample = Sample((TEXT,), answers=("two three", "nine"))
    assert AnswerSurvival()(sample, head(TEXT, 3)) == 1.0
    assert AnswerSurvival()(sample, head(TEXT, 2)) == 0.0
    assert AnswerSurvival()(Sample((TEXT,)), head(TEXT, 2)) is None


def test_gold_recall_is_the_share_of_characters_left() -> None:
    sample = Sample((TEXT,), gold=((0, 4, 13),))  # "two three"
    assert GoldRecall()(sample, head(TEXT, 3)) == 1.0
    assert GoldRecall()(sample, head(TEXT, 2)) == pytest.approx(3 / 9)
    assert GoldRecall()(sample, head(TEXT, 1)) == 0.0
    assert GoldRecall()(Sample((TEXT,)), head(TEXT, 1)) is None


def test_identifiers_count_once_and_whole() -> None:
    assert IdentifierSurvival()(Sample((TEXT,)), head(TEXT, 4)) == 0.5
    assert IdentifierSurvival()(Sample((TEXT,)), head(TEXT, 9)) == 1.0
    assert IdentifierSurvival()(Sample(("no facts",)), head("no facts", 1)) is None


def test_json_that_is_cut_like_prose_is_not_valid() -> None:
    text = '{"a": 1, "b": [1, 2, 3], "c": "' + "words " * 30 + '"}'
    prose = compress(text, Head(structured=False), rate=0.5, counter=COUNTER)
    assert JsonValidity()(Sample((text,)), prose) == 0.0
    assert JsonValidity()(Sample((text,)), compress(text, Head(), rate=0.5, counter=COUNTER)) == 1.0
    assert JsonValidity()(Sample((TEXT,)), head(TEXT, 3)) is None


def test_the_likelihood_of_an_answer_does_not_shift_where_nothing_went() -> None:
    likelihood = AnswerLikelihood(tiny_model())
    sample = Sample((TEXT,), question="How many?", answers=("4,000",))
    assert likelihood(sample, head(TEXT, 100)) == pytest.approx(1.0)
    shifted = likelihood(sample, head(TEXT, 2))
    assert shifted is not None and 0 < shifted < 1
    assert likelihood(Sample((TEXT,)), head(TEXT, 2)) is None


@pytest.fixture(scope="module")
def curves() -> Curve:
    samples = [Sample((TEXT,), answers=("two",)), Sample((TEXT + " eleven",), answers=("eleven",))]
    compressors = [Head(pins=None), RandomWords(pins=None), NoStopWords(pins=None)]
    return curve(compressors, samples, [AnswerSurvival(), GoldRecall()], rates=(0.5, 1.0), counter=COUNTER)


def test_a_curve_has_a_point_for_each_rate_of_what_could_be_measured(curves: Curve) -> None:
    assert curves.rates == [0.5, 1.0]
    assert curves.score("head", "answer survival", 0.5) == 0.5
    assert curves.score("head", "answer survival", 1.0) == 1.0
    assert {point.metric for point in curves.points} == {"answer survival"}
    assert all(point.achieved <= point.rate and point.samples == 2 for point in curves.points)
    with pytest.raises(KeyError):
        curves.score("head", "gold recall", 0.5)


def test_a_curve_is_a_table_and_a_picture(curves: Curve, tmp_path: Path) -> None:
    assert str(curves).splitlines()[1].split() == ["answer", "survival", "head", "0.500", "1.000"]
    assert curves._repr_html_().count("<tr>") == 4
    curves.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1_000


def test_nothing_to_measure_is_an_empty_curve() -> None:
    empty = curve(Head(), [], AnswerSurvival(), counter=COUNTER)
    assert empty.points == () and empty.rates == [] and str(empty).split() == ["metric", "compressor"]
