"""What compression does to the facts of a text, measured."""

from __future__ import annotations

from ctxkit.compression.distortion.curves import Curve, Point, curve
from ctxkit.compression.distortion.likelihood import sensitivity
from ctxkit.compression.distortion.metrics import (
    AnswerLikelihood,
    AnswerSurvival,
    GoldRecall,
    IdentifierSurvival,
    JsonValidity,
    Metric,
    Sample,
)

__all__ = [
    "AnswerLikelihood",
    "AnswerSurvival",
    "Curve",
    "GoldRecall",
    "IdentifierSurvival",
    "JsonValidity",
    "Metric",
    "Point",
    "Sample",
    "curve",
    "sensitivity",
]
