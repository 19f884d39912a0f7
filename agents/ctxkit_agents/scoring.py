"""Scorer: how likely a model finds a text, paid for by a job; what prompts have in common is read once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from ctxkit.compression.distortion.likelihood import TextCounter, mean_log_probability
from ctxkit.protocols import Model, Reply
from ctxkit_agents.errors import CapabilityMissing
from ctxkit_agents.runtime.events import Message
from ctxkit_agents.runtime.job import Job

if TYPE_CHECKING:
    import numpy as np

    from ctxkit.models.local.session import LocalSession


class Scoring(Model, Protocol):
    """A model that answers, and has the capability "score"; with "crop" it also has sessions."""

    @property
    def counter(self) -> TextCounter: ...

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer after a prompt. log_probabilities: natural, one per token of the answer. tokens_read: to find them."""

    log_probabilities: tuple[float, ...]
    tokens_read: int

    @property
    def mean(self) -> float:
        """Log-probability per token; 0.0 for an answer of no tokens."""
        return mean_log_probability(self.log_probabilities)


@dataclass(frozen=True, slots=True)
class Probed:
    """One token after a text. probability: in [0, 1]. rank: how many tokens are likelier. tokens_read: to find that."""

    probability: float
    rank: int
    tokens_read: int


def require(model: Model, capabilities: Collection[str], method: str) -> None:
    """Raises CapabilityMissing for the first that the model has not."""
    for capability in sorted(capabilities):
        if capability not in model.capabilities:
            raise CapabilityMissing(
                f"{method} needs a model with the capability {capability!r}, which {model.name!r} has not; "
                f"a LocalModel has it",
                capability=capability,
            )


def text_counter(model: Model) -> TextCounter:
    """The counter of a model that scores: it tokenises answers as text."""
    return cast(Scoring, model).counter


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids two texts have in common at their beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


def whole(prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> int:
    """Tokens that a score takes without any memory: the last token of the answer need not be read."""
    return len(prompt_ids) + len(answer_ids) - 1 if answer_ids else 0


class Scorer:
    """Scores texts with one model, one after the other. Leave its `with` block to give the memory back.

    job: pays `tokens_in` for what is really read, and finds finished scores in its checkpoint.
    share: keep the text in a session, and go back no further than to where the next prompt differs. Ask for prompts
        that begin alike one after the other. False, or a model without sessions: every prompt is read whole.

    tokens_read is what was read so far, naive_tokens what it would have been with every prompt read whole.
    """

    def __init__(self, job: Job, model: Model, *, share: bool = True) -> None:
        self.job = job
        self.model = model
        self.tokens_read = 0
        self.naive_tokens = 0
        self._session = _session(model) if share and "crop" in model.capabilities else None
        self._lock = threading.Lock()  # a cancelled score may still be at work when the session is closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            if self._session is not None:
                self._session.close()

    async def score(self, prompt_ids: Sequence[int], answer_ids: Sequence[int], *, step: str = "score") -> Scored:
        """The answer's log-probabilities after the prompt.

        Raises BudgetOverdrawn before anything is read, PromptError for what the model does not take.
        """

        def found() -> Any:
            return [float(one) for one in self._log_probabilities(prompt_ids, answer_ids)]

        def told(value: Any) -> str:
            return f"{mean_log_probability(value):.3f} per token"

        naive = whole(prompt_ids, answer_ids)
        asked = ["score", self.model.name, list(prompt_ids), list(answer_ids)]
        reads = naive - self._held(prompt_ids) if answer_ids else 0
        values, read = await self._paid(step, asked, reads, naive, found, told)
        return Scored(tuple(values), read)

    async def probe(self, ids: Sequence[int], target: int, *, step: str = "probe") -> Probed:
        """How likely the model finds one token next. Raises as `score`."""

        def found() -> Any:
            import numpy as np

            logits = self._logits(ids).astype(np.float64)
            weights = np.exp(logits - logits.max())
            return [float(weights[target] / weights.sum()), int((logits > logits[target]).sum())]

        def told(value: Any) -> str:
            return f"{value[0]:.4f}, {value[1]:,} likelier"

        asked = ["probe", self.model.name, list(ids), target]
        (chance, rank), read = await self._paid(step, asked, len(ids) - self._held(ids), len(ids), found, told)
        return Probed(chance, rank, read)

    async def predictions(
        self, ids: Sequence[int], places: Sequence[int], most: int, *, step: str = "predict"
    ) -> list[list[tuple[int, float]]]:
        """For each place the `most` likeliest other tokens after what stands before it, with their probabilities.

        places: rising, from 1 on. Holds logits of [ids, vocabulary] for a moment. Raises as `score`.
        """

        def found() -> Any:
            logits = cast(Any, self.model).logits(ids, last=len(ids))
            return [_likeliest(logits[place - 1], ids[place], most) for place in places]

        def told(value: Any) -> str:
            return f"{len(value):,} places"

        asked = ["predict", self.model.name, list(ids), list(places), most]
        values, _ = await self._paid(step, asked, len(ids), len(ids), found, told)
        return [[(int(token), float(chance)) for token, chance in value] for value in values]

    async def _paid(
        self, step: str, asked: Any, reads: int, naive: int, find: Callable[[], Any], told: Callable[[Any], str]
    ) -> tuple[Any, int]:
        """What `find` finds in a worker thread, or the checkpoint holds of it, and the tokens that it read.

        reads: that it will read. naive: that it would, with nothing in memory. told: the value, for the trace.
        """

        async def make() -> Any:
            with self.job.run.reserve(tokens_in=reads, tokens_out=0) as ticket:
                try:
                    value = await asyncio.to_thread(self._alone, find)
                except asyncio.CancelledError:
                    ticket.settle(self._reply(reads))  # the thread reads on to the end
                    raise
                ticket.settle(self._reply(reads))
            return {"value": value, "tokens_read": reads}

        began = time.monotonic()
        done = await self.job.once(step, asked, make)
        value, read = done.value["value"], int(done.value["tokens_read"])
        if done.replayed:
            with self.job.run.reserve(tokens_in=read, tokens_out=0) as ticket:
                ticket.settle(self._reply(read))
        self.tokens_read += read
        self.naive_tokens += naive
        self._say(step, told(value), read, time.monotonic() - began, done.replayed)
        return value, read

    def _alone(self, find: Callable[[], Any]) -> Any:
        with self._lock:
            return find()

    def _held(self, prompt_ids: Sequence[int]) -> int:
        """How many tokens of the prompt need not be read, as `LocalSession.sync_ids` decides."""
        if self._session is None:
            return 0
        known = self._session.ids
        same = common(known, prompt_ids)
        if same == len(known) == len(prompt_ids):
            return same
        kept = min(same, max(len(prompt_ids) - 1, 0))
        return kept if kept >= self._session.context.exact_from else 0

    def _log_probabilities(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> Sequence[float]:
        if not answer_ids:
            return ()
        if self._session is None:
            return list(cast(Scoring, self.model).score(prompt_ids, answer_ids))
        self._session.sync_ids(prompt_ids)
        return list(self._session.score(answer_ids))

    def _logits(self, ids: Sequence[int]) -> np.ndarray:
        if self._session is None:
            last: np.ndarray = cast(Any, self.model).logits(ids)[0]
            return last
        self._session.sync_ids(ids)
        return self._session.logits

    def _reply(self, tokens_in: int) -> Reply:
        return Reply("", "stop", tokens_in, 0, self.model.name)

    def _say(self, step: str, text: str, tokens_in: int, took: float, replayed: bool) -> None:
        seconds, name = self.job.recorder.seconds, self.model.name
        message = Message(
            self.job.path, step, name, "", text, "stop", tokens_in, 0, took, replayed=replayed, seconds=seconds
        )
        self.job.recorder.add(message)


def _likeliest(logits: np.ndarray, but: int, most: int) -> list[tuple[int, float]]:
    import numpy as np

    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    weights[but] = 0.0
    best = np.argsort(-weights, kind="stable")[:most]
    return [(int(token), float(weights[token] / weights.sum())) for token in best]


def _session(model: Any) -> LocalSession:
    session: LocalSession = model.session()
    return session
