"""Debate: the rounds, who is left out of one, when it ends, and whose answer it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, ModelError, PromptError
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.debate.answers import final_answer
from ctxkit_agents.debate.prompts import INSTRUCTION
from ctxkit_agents.errors import CallTimeout, NoAnswer
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task

if TYPE_CHECKING:
    from ctxkit_agents.debate.belief import Belief

AnswerBy = Literal["sharpest", "vote"]

_LEAVES_OUT = (ModelError, CallTimeout, PromptError)  # one agent of one round, not the debate


@dataclass(frozen=True)
class Agent:
    """One side of a debate. number: from 1."""

    number: int
    model: Model
    temperature: float


@dataclass(frozen=True)
class Statement:
    """What an agent said in a round. answer: the answer in it, normalised. belief: what it said it in, not in text."""

    agent: int
    text: str
    answer: str
    belief: Belief | None = None


Said = Mapping[int, Statement]
"""What agents said last, by their number."""


@dataclass(frozen=True)
class Debated:
    """What a debate came to.

    text, answer: of the agent whose answer it is. agent: its number, from 1.
    rounds: what was said, round by round; who was left out of a round is not in it.
    agreed: all agents gave this answer in the last round.
    """

    text: str
    answer: str
    agent: int
    rounds: tuple[tuple[Statement, ...], ...]
    agreed: bool


@dataclass(frozen=True)
class Debate(ABC):
    """What all debates have in common. `TextDebate` and `CipherDebate` say how one agent speaks.

    models: one for all agents, or one for each.
    temperatures: of each agent; there are as many agents. One sharp and one diffuse agent do best in the paper.
    rounds: the first, in which each answers alone, and those in which each reads what all said last.
    max_tokens: of one answer. top_k, top_p, stop: as `Sampling` has them.
    answer: finds the answer in a text, in a form in which equal answers are equal.
    answer_by: "sharpest" is the last answer of the agent of the lowest temperature, "vote" the one most agents gave
        last; of equals it is the sharpest agent's.
    instruction: ends each prompt. at_once, timeout_seconds: of the answers of a round.

    The debate ends early when all agents give the same answer. An agent that fails, answers nothing, is late or cannot
    fit the debate into its window is left out of that round, and the run says so; where that was everybody, the answers
    before stand, and in the first round it is a NoAnswer. A budget that ends in the first round is a BudgetOverdrawn;
    in a later one that round is left out.
    """

    models: Model | Sequence[Model]
    _: KW_ONLY
    temperatures: Sequence[float] = (0.2, 0.9)
    rounds: int = 3
    max_tokens: int = 400
    top_k: int | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    answer: Callable[[str], str] = final_answer
    answer_by: AnswerBy = "sharpest"
    instruction: str = INSTRUCTION
    at_once: int = 8
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if len(self.temperatures) < 2:
            raise ValueError(f"a debate needs two agents or more, each with a temperature; got {self.temperatures!r}")
        if self.rounds < 1 or self.at_once < 1:
            raise ValueError(f"`rounds` and `at_once` must be at least 1, got {self.rounds!r} and {self.at_once!r}")
        if self.answer_by not in get_args(AnswerBy):
            raise ValueError(f'`answer_by` must be "sharpest" or "vote", got {self.answer_by!r}')
        if self.timeout_seconds is not None and self.timeout_seconds <= 0:
            raise ValueError(f"`timeout_seconds` must be above 0 or None, got {self.timeout_seconds!r}")
        for agent in self.agents:
            self._sampling(agent)
            if self.max_tokens >= agent.model.window_tokens:
                raise ValueError(
                    f"`max_tokens` ({self.max_tokens:,}) leaves nothing of the {agent.model.window_tokens:,} tokens "
                    f"of {agent.model.name!r} for the prompt"
                )

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The sides, in the order of `temperatures`. Raises ValueError where the models do not go with them."""
        count = len(self.temperatures)
        models = list(self.models) if isinstance(self.models, Sequence) else [self.models] * count
        if len(models) != count:
            raise ValueError(f"give one model, or one for each of the {count} `temperatures`; got {len(models)} models")
        return tuple(Agent(n, *one) for n, one in enumerate(zip(models, self.temperatures, strict=True), 1))

    def task(self, question: str) -> Task[Debated]:
        """The debate on a question. Raises ValueError for an empty one."""
        if not question.strip():
            raise ValueError(f"`question` must not be empty, got {question!r}")
        return Task("debate", partial(self._work, question=question), method=type(self).__name__)

    @abstractmethod
    async def _speak(self, job: Job, agent: Agent, number: int, question: str, said: Said) -> Statement:
        """What an agent says in round `number`, given what each said last."""

    def _sampling(self, agent: Agent, seed: int | None = None) -> Sampling:
        return Sampling(self.max_tokens, agent.temperature, self.top_p, self.top_k, self.stop, seed)

    async def _work(self, job: Job, question: str) -> Debated:
        rounds: list[tuple[Statement, ...]] = []
        latest: dict[int, Statement] = {}
        agreed = False
        while len(rounds) < self.rounds and not agreed:
            said = await self._round_or_none(job, len(rounds) + 1, question, latest)
            if not said:
                break
            rounds.append(said)
            latest |= {one.agent: one for one in said}
            agreed = self._agree(said)
        chosen = self._chosen(job, latest)
        return Debated(chosen.text, chosen.answer, chosen.agent, tuple(rounds), agreed)

    def _agree(self, said: Sequence[Statement]) -> bool:
        everybody = len(said) == len(self.temperatures)
        return everybody and bool(said[0].answer) and len({one.answer for one in said}) == 1

    async def _round_or_none(self, job: Job, number: int, question: str, latest: Said) -> tuple[Statement, ...]:
        """What was said in a round; nothing where it came to nothing and there are answers of an earlier one."""
        try:
            said = await self._round(job, number, question, latest)
        except BudgetOverdrawn as error:
            if not latest:
                raise
            job.degraded(f"the budget ended in round {number}, which is left out: {error}")
            return ()
        spoken = tuple(one for one in said if isinstance(one, Statement))
        if not spoken and not latest:
            raise NoAnswer("no agent answered: " + "; ".join(one for one in said if isinstance(one, str)))
        if not spoken:
            job.degraded(f"nobody answered in round {number}; the answers of the round before stand")
        return spoken

    async def _round(self, job: Job, number: int, question: str, latest: Said) -> list[Statement | str]:
        turns = [
            job.spawn(
                Task("turn", partial(self._turn, agent=agent, number=number, question=question, said=dict(latest))),
                name=f"round-{number}.agent-{agent.number}",
            )
            for agent in self.agents
        ]
        return await job.all(turns, at_once=self.at_once)

    async def _turn(self, job: Job, agent: Agent, number: int, question: str, said: Said) -> Statement | str:
        """What an agent says, or why it says nothing."""
        try:
            statement = await self._speak(job, agent, number, question, said)
        except BudgetInfeasible as error:
            if error.window_tokens < agent.model.window_tokens:  # not the window was too small, but what was left
                raise _overdrawn(job, error) from error
            why = f"{type(error).__name__}: {error}"
        except _LEAVES_OUT as error:
            why = f"{type(error).__name__}: {error}"
        else:
            if statement.text.strip():
                return statement
            why = "it answered nothing"
        told = f"agent {agent.number} is left out of round {number}: {why}"
        job.degraded(told)
        return told

    def _chosen(self, job: Job, latest: Said) -> Statement:
        by_sharpness = sorted(self.agents, key=lambda agent: agent.temperature)
        order = [latest[agent.number] for agent in by_sharpness if agent.number in latest]
        if self.answer_by == "vote":
            votes = Tally(one.answer for one in order if one.answer)
            return max(order, key=lambda one: votes[one.answer])  # the first of equals
        if by_sharpness[0].number not in latest:
            job.degraded(f"agent {by_sharpness[0].number}, whose answer it should be, never answered")
        return order[0]


def _overdrawn(job: Job, error: BudgetInfeasible) -> BudgetOverdrawn:
    name, needed, left = job.run.name, error.minimum, error.window_tokens
    told = f"a call of {name!r} needs {needed:,} tokens, and {left:,} can be paid for"
    return BudgetOverdrawn(told, run=name, limit="tokens", needed=needed, left=left)
