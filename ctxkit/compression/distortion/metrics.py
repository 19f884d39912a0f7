"""What a compression did to the facts of a text: metrics for `curve`, each of one sample, from 0 (lost) to 1 (kept)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ctxkit.compression.distortion.likelihood import (
    ScoringModel,
    answer_ids,
    mean_log_probability,
    prompt_ids,
    shift,
)
from ctxkit.compression.prepared import Compression
from ctxkit.compression.structure.json_tree import is_json
from ctxkit.compression.text.pins import Pins

FACTS = ("url", "email", "uuid", "date", "path", "hash", "identifier", "number")
"""Kinds of pins that count as identifiers: the ones that nobody can guess."""


@dataclass(frozen=True)
class Sample:
    """Texts that are compressed together, and what is known about them.

    question: "" where nothing is asked. answers: strings of which one has to survive.
    gold: (text, start, end), half-open char spans that matter.
    """

    texts: tuple[str, ...]
    question: str = ""
    answers: tuple[str, ...] = ()
    gold: tuple[tuple[int, int, int], ...] = ()


class Metric(Protocol):
    """A score of one compressed sample; None where the sample has nothing to measure."""

    @property
    def name(self) -> str: ...

    def __call__(self, sample: Sample, compression: Compression) -> float | None: ...


@dataclass(frozen=True)
class AnswerSurvival:
    """1 where one of the answers stands in the output, letter by letter."""

    name: str = "answer survival"

    def __call__(self, sample: Sample, compression: Compression) -> float | None:
        if not sample.answers:
            return None
        return float(any(answer in text for text in compression.texts for answer in sample.answers))


@dataclass(frozen=True)
class GoldRecall:
    """Share of the gold spans' characters that are left."""

    name: str = "gold recall"

    def __call__(self, sample: Sample, compression: Compression) -> float | None:
        total = sum(end - start for _, start, end in sample.gold)
        if not total:
            return None
        lost = sum(
            max(0, min(end, gap_end) - max(start, gap_start))
            for text, start, end in sample.gold
            for gap_start, gap_end in compression.results[text].gaps
        )
        return 1 - lost / total


@dataclass(frozen=True)
class IdentifierSurvival:
    """Share of the distinct identifiers, numbers, dates, paths, URLs, ... of the source that are left whole."""

    pins: Pins = Pins(FACTS)
    name: str = "identifier survival"

    def __call__(self, sample: Sample, compression: Compression) -> float | None:
        found = kept = 0
        for result in compression.results:
            facts = {result.source[start:end] for start, end in self.pins.spans(result.source)}
            found += len(facts)
            kept += sum(fact in result.text for fact in facts)
        return kept / found if found else None


@dataclass(frozen=True)
class JsonValidity:
    """Share of the JSON texts whose output is JSON."""

    name: str = "JSON validity"

    def __call__(self, sample: Sample, compression: Compression) -> float | None:
        checked = [is_json(result.text) for result in compression.results if is_json(result.source)]
        return sum(checked) / len(checked) if checked else None


@dataclass(frozen=True)
class AnswerLikelihood:
    """How much less likely the answer became, on a scale from 1 (no shift) to 0: exp(-|shift|).

    The shift is the one of POSIX (arXiv 2410.02185) between two prompts of one intent, here the original and the
    compressed texts: the change of the answer's log-probability, per token of the answer.

    model: a LocalModel, or another that scores continuations and has the tokenizer.
    """

    model: ScoringModel
    name: str = "answer likelihood"

    def __call__(self, sample: Sample, compression: Compression) -> float | None:
        if not sample.answers:
            return None
        before = self._log_probability(sample, sample.texts)
        after = self._log_probability(sample, compression.texts)
        return math.exp(-shift(before, after))

    def _log_probability(self, sample: Sample, texts: Sequence[str]) -> float:
        """Of the first answer, per token, after the texts and the question. Raises PromptError."""
        counter = self.model.counter
        answer = answer_ids(counter, sample.answers[0])
        prompt = prompt_ids(counter, "\n\n".join([*texts, sample.question]))
        return mean_log_probability(self.model.score(prompt, answer)) if answer else 0.0
