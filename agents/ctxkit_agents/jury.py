"""Jury: several judges and rubrics, and what they agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from math import fsum
from typing import Any, Literal

from ctxkit.context import Part, Plan, passage, question, system
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, CtxkitError, ModelError
from ctxkit.protocols import ChatMessage, Model, Sampling
from ctxkit.tokens import messages_from_dicts
from ctxkit_agents.errors import AnswerMalformed, CallTimeout
from ctxkit_agents.rubrics import DIALOGUE_ACTS, MAXIMS, PREFERENCE, Rubric
from ctxkit_agents.runtime.forms import Malformed, ask_in_form, object_with
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.purse import wave_size
from ctxkit_agents.runtime.task import Task

_LEAST, _MOST = 1, 10
_LEFT_OUT = (ModelError, CallTimeout, AnswerMalformed, BudgetInfeasible, BudgetOverdrawn)
_RECENT = 8.0  # turns; one so far back is worth half of the latest, where not all fit
_NAMES = "AB"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one judge says by one rubric.

    judge: its number, from 0. responses: which were judged, by number: two, or one that was scored.
    winner: the better one; None for a tie, also where the judge changed its mind with the order (`swayed`).
    score: from 1 to 10. notes: the rubric's labels, by turn or answer. reason: in the judge's words.
    """

    judge: int
    model: str
    rubric: str
    responses: tuple[int, ...]
    winner: int | None = None
    score: float | None = None
    swayed: bool = False
    reason: str = ""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class JuryResult:
    """What the jury came to.

    responses: as given. winner: number of the best one; None where the best are equal.
    scores: per response: pairwise the share of its comparisons that it won (a tie is half), else the mean of 1 to 10.
    agreement: in [0, 1]. Pairwise the share of the opinions on the winner that name it (of all opinions that are ties,
    without a winner); else 1 less the mean spread of a response's scores, as a share of the scale.
    """

    responses: tuple[str, ...]
    winner: int | None
    scores: tuple[float, ...]
    agreement: float
    opinions: tuple[Opinion, ...]

    @property
    def text(self) -> str:
        """The best response, the first of them where they are equal; the score of a response that was alone."""
        if len(self.responses) == 1:
            return f"{self.scores[0]:g}"
        return self.responses[self.scores.index(max(self.scores))]


@dataclass(frozen=True)
class Jury:
    """Judges that vote, by dialogue acts, maxims of conversation and preference (Amulet, arXiv 2505.20451).

    judges: one model or several. rubrics: what each of them judges by; each judge has a vote per rubric.
    form: "pairwise" compares every two responses; "score" gives each 1 to 10 points by itself.
    swap: compares in both orders, since models favour a place; a judge that changes its mind with the order has voted
    for a tie. Without, the first response is always A.
    constrained: ask for the form of the answer by a JSON schema, for models that take one (`response_format`).
    sampling: greedy, 256 tokens by default. at_once: calls at a time, at most. timeout_seconds: of one call.

    An answer that is not in the form is asked for once more. A judge that fails, does not answer in the form or cannot
    be paid for is left out there, and the outcome says so; so are turns of the conversation that do not fit into a
    judge's window. Where nobody has an opinion the first failure is raised.
    Raises ValueError without judges or rubrics, and where two rubrics have one name.
    """

    judges: Model | Sequence[Model]
    rubrics: Sequence[Rubric] = (DIALOGUE_ACTS, MAXIMS, PREFERENCE)
    form: Literal["pairwise", "score"] = "pairwise"
    swap: bool = True
    constrained: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    at_once: int = 4
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self._judges or not self.rubrics:
            raise ValueError(f"a jury needs a judge and a rubric, got {len(self._judges)} and {len(self.rubrics)}")
        if len({rubric.name for rubric in self.rubrics}) < len(self.rubrics):
            raise ValueError(f"two rubrics have one name: {[rubric.name for rubric in self.rubrics]}")
        if self.form not in ("pairwise", "score") or self.at_once < 1:
            raise ValueError(
                f'`form` must be "pairwise" or "score" and `at_once` at least 1, got {self.form!r} and {self.at_once!r}'
            )

    @property
    def _judges(self) -> tuple[Model, ...]:
        return tuple(self.judges) if isinstance(self.judges, Sequence) else (self.judges,)

    def task(self, conversation: str | Sequence[ChatMessage], responses: Sequence[str]) -> Task[JuryResult]:
        """conversation: what is answered: a question, or messages in OpenAI's form. responses: one (scored) or more.

        Raises ValueError without a conversation, and for too few responses.
        """
        messages = [{"role": "user", "content": conversation}] if isinstance(conversation, str) else conversation
        turns = [(one.role, one.content) for one in messages_from_dicts(messages)]
        if not any(text.strip() for _, text in turns):
            raise ValueError("`conversation` is empty; there is nothing that the responses answer")
        least = 2 if self.form == "pairwise" else 1
        if isinstance(responses, str) or len(responses) < least:
            raise ValueError(f"`responses` must be a list of {least} or more, got {responses!r}")
        return Task("jury", partial(self._work, turns=turns, responses=tuple(responses)), method="Jury")

    async def _work(self, job: Job, turns: Sequence[tuple[str, str]], responses: tuple[str, ...]) -> JuryResult:
        calls = list(self._calls(turns, responses))
        said: dict[_Call, _Said] = {}
        failures: list[CtxkitError] = []
        while calls:
            plans = _Plans(job)
            size = wave_size(job.run, map(plans.cost, calls), self.at_once)
            results = await job.all([plans.ask(one) for one in calls[:size]], at_once=size)
            for call, result in zip(calls[:size], results, strict=True):
                if isinstance(result, _Said):
                    said[call] = result
                else:
                    failures.append(result)
                    job.degraded(f"{call.step} was left out: {type(result).__name__}: {result}")
            calls = calls[size:]
        if not said:
            raise failures[0]
        opinions = self._opinions(said)
        return _compared(responses, opinions) if self.form == "pairwise" else _scored(responses, opinions)

    def _calls(self, turns: Sequence[tuple[str, str]], responses: tuple[str, ...]) -> list[_Call]:
        if self.form == "score":
            shown: list[tuple[int, ...]] = [(n,) for n in range(len(responses))]
        else:
            pairs = list(combinations(range(len(responses)), 2))
            shown = [order for a, b in pairs for order in ([(a, b), (b, a)] if self.swap else [(a, b)])]
        return [
            _Call(self, judge, rubric, order, tuple(turns), tuple(responses[n] for n in order))
            for judge in range(len(self._judges))
            for rubric in self.rubrics
            for order in shown
        ]

    def _opinions(self, said: Mapping[_Call, _Said]) -> tuple[Opinion, ...]:
        """One per judge, rubric and pair, of both orders; of the other order alone where one was left out."""
        both: dict[tuple[int, str, tuple[int, ...]], list[Opinion]] = {}
        for call, one in said.items():
            pair = tuple(sorted(call.shown))
            winner = None if one.winner is None else call.shown[one.winner]
            notes = {_renamed(about, call.shown): labels for about, labels in one.notes.items()}
            opinion = Opinion(
                call.judge, call.model.name, call.rubric.name, pair, winner, one.score, reason=one.reason, notes=notes
            )
            both.setdefault((call.judge, call.rubric.name, pair), []).append(opinion)
        return tuple(_of_both(orders) for orders in both.values())


@dataclass(frozen=True)
class _Said:
    """One readable answer. winner: 0 for A, 1 for B, None for a tie."""

    winner: int | None
    score: float | None
    reason: str
    notes: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class _Call:
    """One judge, one rubric, and the responses in the order in which it is shown them."""

    jury: Jury
    judge: int
    rubric: Rubric
    shown: tuple[int, ...]
    turns: tuple[tuple[str, str], ...]
    responses: tuple[str, ...]

    @property
    def model(self) -> Model:
        return self.jury._judges[self.judge]

    @property
    def step(self) -> str:
        return f"judge-{self.judge + 1}-{self.rubric.name}-{'-'.join(str(n + 1) for n in self.shown)}"

    @property
    def pairwise(self) -> bool:
        return len(self.shown) == 2

    @property
    def sampling(self) -> Sampling:
        if not self.jury.constrained:
            return self.jury.sampling
        form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": self._schema()}}
        return replace(self.jury.sampling, response_format=form)

    @property
    def form(self) -> str:
        about = 'each turn of the person ("turn 1", ...)' if self.rubric.about == "turn" else "each answer"
        notes = f'"notes" (an object: {about} to a list of labels), ' if self.rubric.labels else ""
        verdict = '"winner" ("A", "B" or "tie")' if self.pairwise else f'"score" (a number from {_LEAST} to {_MOST})'
        return f'Reply with one JSON object with {notes}"reason" (one sentence) and {verdict}.'

    def parts(self) -> list[Part]:
        """The rubric and the responses are in; of the conversation what fits, the latest first."""
        last = len(self.turns) - 1
        conversation = [
            passage(text, id=f"turn-{n + 1}", title=f"turn {n + 1}, {role}", relevance=_RECENT / (_RECENT + last - n))
            for n, (role, text) in enumerate(self.turns)
        ]
        names = [f"Answer {name}" for name in _NAMES] if self.pairwise else ["Answer"]
        shown = "\n\n".join(f"{name}:\n{text}" for name, text in zip(names, self.responses, strict=True))
        return [
            system(f"You judge answers that an assistant gave in the conversation below.\n{self.rubric.text}"),
            *conversation,
            question(f"{shown}\n\n{self.form}"),
        ]

    def read(self, text: str) -> _Said:
        found = object_with(text, "winner" if self.pairwise else "score")
        winner = _winner(found["winner"]) if self.pairwise else None
        score = None if self.pairwise else _score(found["score"])
        return _Said(winner, score, str(found.get("reason") or ""), _notes(found.get("notes"), self.rubric))

    def _schema(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.rubric.labels:
            labels = {"type": "array", "items": {"enum": list(self.rubric.labels)}, "maxItems": 3}
            people = [n for n, (role, _) in enumerate(self.turns, 1) if role == "user"]
            names = list(_NAMES[: len(self.shown)])
            keys = [f"turn {n}" for n in people] if self.rubric.about == "turn" else names
            inner = {"type": "object", "properties": dict.fromkeys(keys, labels), "required": keys}
            fields["notes"] = {**inner, "additionalProperties": False}
        fields["reason"] = {"type": "string", "maxLength": 200}
        if self.pairwise:
            fields["winner"] = {"enum": [*_NAMES, "tie"]}
        else:
            fields["score"] = {"enum": list(range(_LEAST, _MOST + 1))}
        return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


class _Plans:
    """The prompts of one wave; made once each."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._made: dict[_Call, Plan | CtxkitError] = {}

    def plan(self, call: _Call) -> Plan | CtxkitError:
        if call not in self._made:
            try:
                self._made[call] = self.job.plan(call.model, call.parts(), call.sampling)
            except (BudgetInfeasible, BudgetOverdrawn) as failure:
                self._made[call] = failure
        return self._made[call]

    def cost(self, call: _Call) -> tuple[int, int]:
        plan = self.plan(call)
        return (plan.prompt_tokens, call.sampling.max_tokens) if isinstance(plan, Plan) else (0, 0)

    async def ask(self, call: _Call) -> _Said | CtxkitError:
        plan = self.plan(call)
        if not isinstance(plan, Plan):
            return plan
        if dropped := sum(not one.kept for one in plan.decisions):
            self.job.degraded(f"{call.step} sees the conversation without {dropped} of its {len(call.turns)} turns")
        try:
            return await ask_in_form(
                self.job,
                call.model,
                lambda more: self.job.plan(call.model, [*call.parts(), *more], call.sampling) if more else plan,
                call.read,
                call.sampling,
                step=call.step,
                timeout_seconds=call.jury.timeout_seconds,
            )
        except _LEFT_OUT as failure:
            return failure


def _winner(said: Any) -> int | None:
    name = str(said).strip().removeprefix("Answer ").strip("\"'. ").upper()
    if name in _NAMES and name:
        return _NAMES.index(name)
    if name in ("TIE", "EQUAL", "BOTH", "NONE"):
        return None
    raise Malformed(f'"winner" must be "A", "B" or "tie", got {said!r}')


def _score(said: Any) -> float:
    try:
        score = float(str(said).partition("/")[0])
    except ValueError:
        score = float("nan")
    if not _LEAST <= score <= _MOST:
        raise Malformed(f'"score" must be a number from {_LEAST} to {_MOST}, got {said!r}')
    return score


def _notes(said: Any, rubric: Rubric) -> dict[str, tuple[str, ...]]:
    """The labels that the rubric knows; what else the judge says there counts for nothing."""
    if not isinstance(said, dict):
        return {}
    listed = {str(about): labels if isinstance(labels, list) else [labels] for about, labels in said.items()}
    return {about: tuple(str(one) for one in labels if str(one) in rubric.labels) for about, labels in listed.items()}


def _renamed(about: str, shown: tuple[int, ...]) -> str:
    """ "A" and "B" are places; opinions speak of responses by number, as `Opinion.responses` does."""
    name = about.removeprefix("Answer ").strip()
    return f"response {shown[_NAMES.index(name)]}" if name and name in _NAMES[: len(shown)] else about


def _of_both(orders: Sequence[Opinion]) -> Opinion:
    first = orders[0]
    if all(one.winner == first.winner for one in orders):
        return first
    return replace(first, winner=None, swayed=None not in {one.winner for one in orders})


def _compared(responses: tuple[str, ...], opinions: tuple[Opinion, ...]) -> JuryResult:
    def share(n: int) -> float:
        mine = [one for one in opinions if n in one.responses]
        return fsum(1.0 if one.winner == n else 0.5 * (one.winner is None) for one in mine) / max(1, len(mine))

    scores = tuple(share(n) for n in range(len(responses)))
    winner = _best(scores)
    asked = [one for one in opinions if winner is None or winner in one.responses]
    agreement = sum(one.winner == winner for one in asked) / max(1, len(asked))
    return JuryResult(responses, winner, scores, agreement, opinions)


def _scored(responses: tuple[str, ...], opinions: tuple[Opinion, ...]) -> JuryResult:
    points = [[one.score for one in opinions if one.responses == (n,)] for n in range(len(responses))]
    known = [[score for score in one if score is not None] for one in points]
    scores = tuple(fsum(one) / len(one) if one else 0.0 for one in known)
    spreads = [(max(one) - min(one)) / (_MOST - _LEAST) for one in known if one]
    return JuryResult(responses, _best(scores), scores, 1 - fsum(spreads) / max(1, len(spreads)), opinions)


def _best(scores: Sequence[float]) -> int | None:
    best = [n for n, score in enumerate(scores) if score == max(scores)]
    return best[0] if len(best) == 1 else None
