"""PromptSensitivity: how much a model's answers depend on how the same thing is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ctxkit.compression.distortion.likelihood import answer_ids, prompt_ids, sensitivity, shift
from ctxkit.models.requests import GREEDY
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Payer, Task
from ctxkit_agents.scoring import Scorer, require, text_counter

_SHOWN_CHARS = 60

Answers = Sequence[str | Sequence[str]]
"""For each set, one answer of every prompt, or one answer for all of them."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts of one set, and how far the answer to `answered` shifts after `asked`: nats per token, 0 or more."""

    asked: str
    answered: str
    shift: float


@dataclass(frozen=True)
class SetSensitivity:
    """One set of prompts that ask the same.

    answers: to each prompt. means: [prompts][prompts], row i, column j is the log-probability per token of the answer
        to prompt j after prompt i. psi: the mean shift over all ordered pairs.
    """

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    psi: float

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All ordered pairs, the most sensitive first."""
        prompts, means = self.prompts, self.means
        found = [
            Pair(prompts[i], prompts[j], shift(means[i][j], means[j][j]))
            for i in range(len(prompts))
            for j in range(len(prompts))
            if i != j
        ]
        return tuple(sorted(found, key=lambda pair: -pair.shift))

    @property
    def worst(self) -> Pair:
        """The most sensitive pair."""
        return self.pairs[0]


@dataclass(frozen=True)
class Sensitivity:
    """What a model's answers depend on.

    posix: the index of the paper, the mean of the sets' psi; 0 where wording does not matter. tokens_read and
    naive_tokens: by the scores, and what it would have been with every prompt read for every answer.
    """

    sets: tuple[SetSensitivity, ...]
    tokens_read: int
    naive_tokens: int

    @property
    def posix(self) -> float:
        return sum(one.psi for one in self.sets) / len(self.sets)

    @property
    def worst(self) -> Pair:
        """The most sensitive pair of all sets."""
        return max((one.worst for one in self.sets), key=lambda pair: pair.shift)

    @property
    def text(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        return {
            "posix": self.posix,
            "sets": [{"prompts": list(one.prompts), "answers": list(one.answers), "psi": one.psi} for one in self.sets],
            "tokens_read": self.tokens_read,
            "naive_tokens": self.naive_tokens,
        }

    def __str__(self) -> str:
        """A table: psi of each set, and the pair of prompts that are furthest apart."""
        lines = [f"POSIX {self.posix:.3f} over {len(self.sets):,} set{'s' * (len(self.sets) != 1)} of prompts"]
        for psi, set_, pair in self._rows():
            lines.append(f"{psi}  {set_}\n       {pair}")
        return "\n".join(lines)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for one in self.sets:
            worst = one.worst
            pair = f"furthest apart ({worst.shift:.3f}): {_short(worst.asked)!r}, {_short(worst.answered)!r}"
            yield f"{one.psi:5.3f}", f"{len(one.prompts)} prompts", pair

    def _repr_html_(self) -> str:
        head = "<tr><th>psi</th><th>prompts</th><th>most sensitive pair</th></tr>"
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows())
        return f"<div><p>POSIX {self.posix:.3f}</p><table>{head}{rows}</table></div>"


@dataclass(frozen=True)
class PromptSensitivity:
    """POSIX, the prompt sensitivity index: how far answers shift when the same thing is asked in other words.

    Chatterjee et al. (arXiv 2410.02185). For prompts x of one intent with answers y,
    psi = mean over ordered pairs of |log P(y_j|x_i) / P(y_j|x_j)| / tokens of y_j; POSIX is the mean over sets.

    model: with the capability "score"; asked for the answers that are not given. Each prompt is one user message.
    """

    model: Model
    sampling: Sampling = GREEDY

    def task(self, sets: Sequence[Sequence[str]], *, answers: Answers | None = None) -> Task[Sensitivity]:
        """Measure sets of prompts that ask the same. answers: as `Answers` says; None asks the model.

        Raises ValueError for no set, a set of fewer than two prompts and answers that do not match; the run raises
        CapabilityMissing for a model without "score", AnswerMalformed for an empty answer, and what the model raises.
        """
        given = _checked(sets, answers)
        return Task("sensitivity", lambda job: self._work(job, given), method=type(self).__name__)

    async def _work(self, job: Job, sets: Sequence[tuple[tuple[str, ...], tuple[str, ...] | None]]) -> Sensitivity:
        require(self.model, {"score"}, type(self).__name__)
        measured = []
        with Scorer(job, self.model) as scorer:
            for prompts, answers in sets:
                said = answers or [await self._answer(job, prompt) for prompt in prompts]
                measured.append(await self._measured(scorer, prompts, tuple(said)))
        return Sensitivity(tuple(measured), scorer.tokens_read, scorer.naive_tokens)

    async def _answer(self, job: Job, prompt: str) -> str:
        return (await job.ask(self.model, prompt, self.sampling, step="answer")).text

    async def _measured(self, scorer: Scorer, prompts: tuple[str, ...], answers: tuple[str, ...]) -> SetSensitivity:
        counter = text_counter(self.model)
        continuations = [answer_ids(counter, answer) for answer in answers]
        if not all(continuations):
            empty = prompts[[bool(ids) for ids in continuations].index(False)]
            raise AnswerMalformed(f"the answer to {_short(empty)!r} is empty, so nothing of it can shift")
        means: list[tuple[float, ...]] = []
        for prompt in prompts:
            asked = prompt_ids(counter, prompt)
            means.append(tuple([(await scorer.score(asked, ids)).mean for ids in continuations]))
        return SetSensitivity(prompts, answers, tuple(means), sensitivity(means))


def prompt_sensitivity(
    model: Model,
    sets: Sequence[Sequence[str]],
    answers: Answers | None = None,
    *,
    sampling: Sampling = GREEDY,
    paid_by: Payer = None,
) -> Sensitivity:
    """`PromptSensitivity` in one call."""
    return PromptSensitivity(model, sampling).task(sets, answers=answers).run(paid_by=paid_by).value


def _checked(
    sets: Sequence[Sequence[str]], answers: Answers | None
) -> list[tuple[tuple[str, ...], tuple[str, ...] | None]]:
    if not sets:
        raise ValueError("`sets` is empty; give at least one set of prompts that ask the same")
    if answers is not None and len(answers) != len(sets):
        raise ValueError(f"`answers` must have one entry for each of the {len(sets)} sets, got {len(answers)}")
    checked: list[tuple[tuple[str, ...], tuple[str, ...] | None]] = []
    for at, prompts in enumerate(sets):
        if isinstance(prompts, str) or len(prompts) < 2:
            raise ValueError(f"set {at} must have two or more prompts, got {prompts!r}")
        given = None if answers is None else answers[at]
        own = (given,) * len(prompts) if isinstance(given, str) else given
        if own is not None and len(own) != len(prompts):
            raise ValueError(f"set {at} has {len(prompts)} prompts and {len(own)} answers")
        checked.append((tuple(prompts), None if own is None else tuple(own)))
    return checked


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"
