"""Vote: several answers to one question, and the one that most of them came to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from ctxkit.context import Part, Plan
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, CtxkitError, ModelError
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit_agents.answers import Extractor, final_answer
from ctxkit_agents.ballots import fewest_to_decide, is_decided, leaders, tally
from ctxkit_agents.errors import AnswerMalformed, CallTimeout
from ctxkit_agents.runtime.forms import Asked, as_parts
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.purse import wave_size
from ctxkit_agents.runtime.task import Task

_LEFT_OUT = (ModelError, CallTimeout, BudgetInfeasible)


@dataclass(frozen=True, slots=True)
class Ballot:
    """One sample that had an answer.

    sample: its number, from 0. text: the whole reply. logprob: mean of its tokens; None where the model gave none.
    """

    sample: int
    model: str
    answer: str
    text: str
    logprob: float | None = None


@dataclass(frozen=True)
class VoteResult:
    """What the samples came to.

    answer: with the most votes. votes: per answer, the most voted first. asked: samples that were asked.
    tied: the answers that had as many votes.
    """

    answer: str
    votes: dict[str, int]
    ballots: tuple[Ballot, ...]
    asked: int
    tied: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return self.answer

    @property
    def share(self) -> float:
        """Of the votes that the answer got, in (0, 1]."""
        return self.votes[self.answer] / len(self.ballots)

    @property
    def said(self) -> str:
        """The whole of the first reply that had the answer."""
        return next(ballot.text for ballot in self.ballots if ballot.answer == self.answer)


@dataclass(frozen=True)
class Vote:
    """Self-consistency: sample several answers, take the most common (Wang et al., arXiv 2203.11171).

    models: one, or several that take turns; sample i is asked of model i modulo their number.
    samples: at most. No more are asked than can change the majority, unless `early_stop` is False.
    answer: what of a reply is compared (`ctxkit_agents.answers`); the last number, else the last line, by default.
    sampling: sample i has the seed `seed` + i. at_once: calls at a time, at most.
    timeout_seconds: of one call.

    A tie goes to the answer with the highest mean log-probability, where every reply that is tied has one
    (`Sampling.logprobs`), else to the one said first. A sample that fails, has no answer or cannot be paid for is left
    out, and the outcome says so. Where all fail the first failure is raised; AnswerMalformed where no reply has an
    answer.
    Raises ValueError for numbers below 1, and where greedy samples could only repeat each other.
    """

    models: Model | Sequence[Model]
    samples: int = 5
    answer: Extractor = final_answer
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7))
    seed: int = 0
    at_once: int = 4
    early_stop: bool = True
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1 or self.at_once < 1:
            raise ValueError(f"`samples` and `at_once` must be at least 1, got {self.samples!r} and {self.at_once!r}")
        if not self._models:
            raise ValueError("`models` must be a model or several, got none")
        if self.sampling.temperature == 0 and self.samples > len(self._models):
            raise ValueError(
                f"`samples` is {self.samples!r} for {len(self._models)} model(s) at temperature 0, which answer the "
                "same again; give `sampling` a temperature"
            )

    @property
    def _models(self) -> tuple[Model, ...]:
        return tuple(self.models) if isinstance(self.models, Sequence) else (self.models,)

    def task(self, asked: Asked) -> Task[VoteResult]:
        """asked: the question, or parts; they are fitted into each model's window, or into what the run can pay."""
        return Task("vote", partial(self._work, parts=as_parts(asked)), method="Vote")

    async def _work(self, job: Job, parts: Sequence[Part]) -> VoteResult:
        poll = _Poll(self, job, parts)
        todo = list(range(self.samples))
        while todo and not (self.early_stop and is_decided(poll.votes, len(todo))):
            wave = todo[: poll.wave_size(todo)]
            todo = todo[len(wave) :]
            if not await poll.ask(wave):
                poll.leave_out(todo)
                break
        return poll.result()


class _Poll:
    """The samples of one run so far."""

    def __init__(self, vote: Vote, job: Job, parts: Sequence[Part]) -> None:
        self.vote, self.job, self.parts = vote, job, parts
        self.ballots: list[Ballot] = []
        self.replies: list[Reply] = []
        self.failures: list[CtxkitError] = []
        self.asked = 0
        self._plans: dict[int, Plan] = {}

    @property
    def votes(self) -> dict[str, int]:
        return tally(ballot.answer for ballot in self.ballots)

    def wave_size(self, todo: Sequence[int]) -> int:
        """As many as could decide it, but no more at once than asked for and paid for; one at least."""
        most = len(todo)
        if self.vote.early_stop:
            most = min(most, fewest_to_decide(self.votes, len(todo)))
        return wave_size(self.job.run, map(self._cost, todo), min(most, self.vote.at_once))

    async def ask(self, wave: Sequence[int]) -> bool:
        """Whether there is anything left to pay the next wave with."""
        results = await self.job.all([self._sample(one) for one in wave], at_once=len(wave))
        for sample, result in zip(wave, results, strict=True):
            self._note(sample, result)
        return not any(isinstance(result, BudgetOverdrawn) for result in results)

    def leave_out(self, samples: Sequence[int]) -> None:
        for sample in samples:
            self.job.degraded(f"sample {sample + 1} was left out: the run cannot pay for it")

    def result(self) -> VoteResult:
        if not self.ballots:
            if self.replies:
                raise AnswerMalformed(
                    f"none of {len(self.replies)} replies has an answer that `answer` finds; "
                    f"the first says {self.replies[0].text[:80]!r}",
                    answer=self.replies[0].text,
                )
            raise self.failures[0]
        tied = leaders(self.votes)
        best = max(tied, key=self._likelihood(tied))
        return VoteResult(best, self.votes, tuple(self.ballots), self.asked, tuple(a for a in tied if a != best))

    def _likelihood(self, tied: Sequence[str]) -> Callable[[str], float]:
        """Mean log-probability of an answer's replies; the same for all where a reply has none: the first wins then."""
        known = {answer: [one.logprob for one in self.ballots if one.answer == answer] for answer in tied}
        if any(logprob is None for logprobs in known.values() for logprob in logprobs):
            return lambda answer: 0.0
        return lambda answer: sum(logprob or 0.0 for logprob in known[answer]) / len(known[answer])

    async def _sample(self, sample: int) -> Reply | CtxkitError:
        sampling = replace(self.vote.sampling, seed=self.vote.seed + sample)
        step, timeout = f"sample-{sample + 1}", self.vote.timeout_seconds
        try:
            plan = self._plan(sample)
            return await self.job.ask(self._model(sample), plan, sampling, step=step, timeout_seconds=timeout)
        except (*_LEFT_OUT, BudgetOverdrawn) as failure:
            return failure

    def _note(self, sample: int, result: Reply | CtxkitError) -> None:
        if isinstance(result, CtxkitError):
            self.failures.append(result)
            self.job.degraded(f"sample {sample + 1} was left out: {type(result).__name__}: {result}")
            return
        self.asked += 1
        self.replies.append(result)
        answer = self.vote.answer(result.text)
        if answer is None:
            self.job.degraded(f"sample {sample + 1} was left out: it has no answer")
            return
        logprob = _mean_logprob(result)
        self.ballots.append(Ballot(sample, result.model, answer, result.text, logprob))

    def _model(self, sample: int) -> Model:
        return self.vote._models[sample % len(self.vote._models)]

    def _plan(self, sample: int) -> Plan:
        """Made once per model, with the run as it was then: all its samples are asked the same."""
        turn = sample % len(self.vote._models)
        if turn not in self._plans:
            self._plans[turn] = self.job.plan(self._model(sample), self.parts, self.vote.sampling)
        return self._plans[turn]

    def _cost(self, sample: int) -> tuple[int, int]:
        """Tokens in and out; nothing where the prompt cannot be made: asking says why."""
        try:
            return self._plan(sample).prompt_tokens, self.vote.sampling.max_tokens
        except (BudgetInfeasible, BudgetOverdrawn):
            return 0, 0


def _mean_logprob(reply: Reply) -> float | None:
    return sum(one.logprob for one in reply.logprobs) / len(reply.logprobs) if reply.logprobs else None
