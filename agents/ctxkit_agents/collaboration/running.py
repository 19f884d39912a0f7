"""Running a collaboration in a job: sessions of the models, payment, cancellation and the checkpoint."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar, cast

from ctxkit.models.requests import Promptable, as_request, check_window
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit_agents.collaboration.answer import CoWritten, answer_from_json, answer_of
from ctxkit_agents.collaboration.combine import Combine
from ctxkit_agents.collaboration.loop import Loop, Rules
from ctxkit_agents.collaboration.routers import Router
from ctxkit_agents.collaboration.script import Part
from ctxkit_agents.collaboration.side import Meter, Reader, Side, Sides
from ctxkit_agents.collaboration.tokens import Tokens
from ctxkit_agents.errors import CallTimeout, CapabilityMissing
from ctxkit_agents.runtime.job import Job

T = TypeVar("T")

_NEEDED = ("sync_text", "logits")
_SEAM_TOKENS = 64


@dataclass(frozen=True)
class Seat:
    """A model and what it is asked. role: its name in steps and events.

    plain: the prompt as plain text, without the chat template, which the answer continues; None for `prompt`.
    """

    role: str
    model: Model
    prompt: Promptable
    plain: str | None = None

    def head(self, tokens: Tokens) -> list[int]:
        """Ids before the text that the side keeps."""
        if self.plain is not None:
            return tokens.beginning()
        return list(cast(_Local, self.model).prompt_ids(self.prompt))

    @property
    def asked(self) -> str:
        return as_request(self.prompt).messages[-1].content


class _Local(Protocol):
    """What a model of the capabilities "sync_text" and "logits" has."""

    @property
    def eos_ids(self) -> frozenset[int]: ...

    def prompt_ids(self, prompt: Promptable) -> tuple[int, ...]: ...

    def session(self, policy: Any) -> Any: ...


@dataclass(frozen=True)
class How:
    """A way to write together."""

    router: Router
    combine: Combine
    sampling: Sampling
    guarded: bool


def check_models(models: Sequence[Model], combine: Combine, sampling: Sampling) -> None:
    """Raises CapabilityMissing for a model that cannot take part, ValueError for a sampling that is not greedy."""
    if sampling.temperature or sampling.frequency_penalty or sampling.response_format:
        raise ValueError(f"models write together greedily and in free form; leave the rest of {sampling!r} out")
    for model in models:
        for capability in _NEEDED:
            if capability not in model.capabilities:
                raise CapabilityMissing(
                    f"{model.name!r} gives no {capability}, which models that write one text need; take a LocalModel",
                    capability=capability,
                )
    first, *rest = (tokens_of(model) for model in models)
    for model, tokens in zip(models[1:], rest, strict=True):
        if combine.same_tokens and not tokens.same_as(first):
            raise CapabilityMissing(
                f"{models[0].name!r} and {model.name!r} have different tokens, and {combine!r} works on these; "
                "combine=Words() and combine=FromHereOn() exchange text",
                capability="same_tokens",
            )


def tokens_of(model: Model) -> Tokens:
    return Tokens(cast(Any, model.counter).tokenizer)


async def write_together(
    job: Job, seats: Sequence[Seat], how: How, *, step: str = "write", timeout_seconds: float | None = None
) -> CoWritten:
    """One answer of several models, in a thread; a step of the checkpoint. seats: writer, helper, others.

    Each model that ran is one call. What it read and wrote is paid for, also where the answer is cancelled. Raises
    BudgetOverdrawn before anything is computed, CallTimeout, PromptError where prompt and answer are longer than a
    window, and what the models raise.
    """
    began = time.monotonic()

    async def make() -> Any:
        return asdict(await _paid(job, seats, how, timeout_seconds))

    done = await job.once(step, _digest(seats, how), make)
    answer = answer_from_json(done.value)
    took = time.monotonic() - began
    for seat, part in zip(seats, answer.parts, strict=True):
        if part.passes:
            reply = _reply(part, answer.finish_reason, _said(answer, seat.role))
            if done.replayed:
                with job.run.reserve(tokens_in=part.tokens_in, tokens_out=part.tokens_out) as ticket:
                    ticket.settle(reply)
            job.tell(f"{step}: {seat.role}", reply, prompt=seat.asked, took=took, replayed=done.replayed)
    if answer.short_of:
        job.degraded(f"the answer ended before it was done: {answer.short_of}")
    return answer


async def _paid(job: Job, seats: Sequence[Seat], how: How, timeout_seconds: float | None) -> CoWritten:
    prompts = await asyncio.to_thread(_prompt_tokens, seats)
    most = how.sampling.max_tokens
    for seat, tokens in zip(seats, prompts, strict=True):
        check_window(tokens, most, seat.model.window_tokens)
    granted = _affordable(job, prompts, how)
    if granted < most:
        job.degraded(f"the answer had {granted:,} tokens, not {most:,}")
    stopped = threading.Event()
    with ExitStack() as stack:
        needs = zip(seats, _needs(prompts, how, granted), strict=True)
        tickets = [
            stack.enter_context(job.run.reserve(tokens_in=tokens_in, tokens_out=tokens_out))
            for _, (tokens_in, tokens_out) in needs
        ]
        meters = [Meter(ticket.tokens_in, ticket.tokens_out, stopped=stopped) for ticket in tickets]
        try:
            return await _in_thread(lambda: _write(seats, how, granted, meters), stopped, timeout_seconds, job.path)
        finally:
            for seat, ticket, meter in zip(seats, tickets, meters, strict=True):
                if meter.passes:
                    ticket.settle(Reply("", "stop", meter.tokens_in, meter.tokens_out, seat.model.name))


def _write(seats: Sequence[Seat], how: How, max_tokens: int, meters: Sequence[Meter]) -> CoWritten:
    from ctxkit.models.local.policies import Full

    with ExitStack() as stack:
        sides = []
        for seat, meter in zip(seats, meters, strict=True):
            session = stack.enter_context(cast(_Local, seat.model).session(Full()))
            sides.append(_side(seat, session, meter))
        names = (seats[0].role, seats[1].role)
        rules = Rules(max_tokens, how.sampling.stop, how.guarded)
        loop = Loop(Sides(sides[0], sides[1], tuple(sides[2:])), how.router, how.combine, rules, names)
        loop.run()
        return answer_of(loop, tuple(seat.model.name for seat in seats))


def _side(seat: Seat, reader: Reader, meter: Meter) -> Side:
    tokens = tokens_of(seat.model)
    return Side(
        reader,
        tokens,
        head=seat.head(tokens),
        lead=seat.plain or "",
        eos_ids=cast(_Local, seat.model).eos_ids,
        window_tokens=seat.model.window_tokens,
        meter=meter,
        name=seat.role,
    )


async def _in_thread(work: Callable[[], T], stopped: threading.Event, seconds: float | None, path: str) -> T:
    """Waits for the work; where that is cut short, until the pass that is running has ended."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.shield(doing)
    except (asyncio.CancelledError, TimeoutError) as error:
        stopped.set()
        await asyncio.wait([doing])
        doing.exception()  # looked at, so that asyncio does not report it as lost
        if isinstance(error, TimeoutError):
            raise CallTimeout(f"the models had no answer within {seconds:g} seconds ({path})") from error
        raise


# --- what it costs ---------------------------------------------------------------------------------------------


def _prompt_tokens(seats: Sequence[Seat]) -> list[int]:
    counts = []
    for seat in seats:
        tokens = tokens_of(seat.model)
        counts.append(len(seat.head(tokens)) + tokens.count(seat.plain or ""))
    return counts


def _needs(prompts: Sequence[int], how: How, max_tokens: int) -> list[tuple[int, int]]:
    """The most that each side may read and write. Reading allows for each token of the answer, for going back, and for
    seams; who comes to its allowance ends the answer."""
    beyond, helped = how.combine.most_written(max_tokens)
    written = [max_tokens + beyond, helped, *[0] * (len(prompts) - 2)]
    return [
        (prompt + 3 * max_tokens + _SEAM_TOKENS, tokens_out)
        for prompt, tokens_out in zip(prompts, written, strict=True)
    ]


def _affordable(job: Job, prompts: Sequence[int], how: How) -> int:
    """`max_tokens`, or under "degrade" the most below it that the run can pay for; at least 1."""
    most, left = how.sampling.max_tokens, job.run.left
    if job.run.overdraft != "degrade":
        return most

    def fits(max_tokens: int) -> bool:
        needs = _needs(prompts, how, max_tokens)
        tokens_in, tokens_out = (sum(column) for column in zip(*needs, strict=True))
        asked = ((left.tokens, tokens_in + tokens_out), (left.tokens_in, tokens_in), (left.tokens_out, tokens_out))
        return all(limit is None or need <= limit for limit, need in asked)

    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _reply(part: Part, finish_reason: str, text: str) -> Reply:
    return Reply(text, finish_reason, part.tokens_in, part.tokens_out, part.model)


def _said(answer: CoWritten, role: str) -> str:
    """What one wrote of the answer; "…" where others did."""
    said: list[str] = []
    for step in answer.steps:
        if step.author == role:
            said.append(step.text)
        elif said[-1:] != ["…"]:
            said.append("…")
    return "".join(said)


def _digest(seats: Sequence[Seat], how: How) -> Any:
    asked = [
        [seat.role, seat.model.name, seat.plain]
        if seat.plain is not None
        else [seat.role, seat.model.name, [message.to_dict() for message in as_request(seat.prompt).messages]]
        for seat in seats
    ]
    return [asked, repr(how.router), how.combine.settings(), asdict(how.sampling), how.guarded]
