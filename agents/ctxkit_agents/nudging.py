"""Nudging: a small aligned model guides a large base model where that is unsure."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.models.requests import GREEDY, Promptable, as_request
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.collaboration.answer import CoWritten
from ctxkit_agents.collaboration.routers import Threshold
from ctxkit_agents.collaboration.running import How, Seat, check_models, write_together
from ctxkit_agents.collaboration.script import Part
from ctxkit_agents.collaboration.words import Words
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task

PLAIN = "Question: {prompt}\n\nAnswer:"
"""What a base model is given: a text to go on with. {prompt} is where the messages stand."""


@dataclass(frozen=True)
class NudgedAnswer(CoWritten):
    """text, steps, finish_reason and the rest as `CoWritten` says; the writer is the base, the helper the nudger."""

    @property
    def base(self) -> Part:
        return self.writer

    @property
    def nudger(self) -> Part:
        return self.helper

    @property
    def nudged_share(self) -> float:
        """Of the answer's tokens, those of the nudger; 0 for an empty answer."""
        return self.helper_share

    @property
    def base_tokens(self) -> int:
        """Of the answer, by the base."""
        return self.writer.answer_tokens

    @property
    def nudger_tokens(self) -> int:
        """Of the answer, by the nudger, in the base's tokens."""
        return self.helper.answer_tokens


@dataclass(frozen=True)
class Nudging:
    """The base writes as long as its likeliest token has a probability of `gamma` or more. Below, the nudger proposes
    16 tokens, and its words are taken until the base can go on (Fei et al. 2024, arXiv 2410.09300).

    The two exchange text, so their tokenizers may differ. Both must be LocalModels, and each keeps what it has read.

    base: knows much; need not be tuned to answer. nudger: small, and tuned. gamma: 0 is the base alone.
    plain: the base's prompt as plain text, {prompt} being the messages; None for its own chat template.
    block_tokens: of one proposal. sampling: greedy; `max_tokens` in the base's tokens, and `stop` (a base model often
    goes on with the next question: stop=("\\nQuestion:",)).

    The answer ends with the base's or the nudger's end token, at a stop string or its length, and where it goes round
    in circles: three times the same nudge in a row, or a block of 16 tokens that stands there already.

    Raises CapabilityMissing for models without sessions and logits, and ValueError for a sampling that is not greedy.
    An answer that uses up what was reserved for it ends there, and the run says so.
    """

    base: Model
    nudger: Model
    gamma: float = 0.4
    plain: str | None = PLAIN
    block_tokens: int = 16
    sampling: Sampling = GREEDY
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"`gamma` is a probability, got {self.gamma!r}")
        if self.plain is not None and "{prompt}" not in self.plain:
            raise ValueError(f"`plain` must have {{prompt}} where the messages stand, got {self.plain!r}")
        check_models([self.base, self.nudger], self._words, self.sampling)

    @property
    def _words(self) -> Words:
        return Words(self.block_tokens)

    def task(self, prompt: Promptable) -> Task[NudgedAnswer]:
        """The answer to a prompt."""
        return Task("nudging", lambda job: self._work(job, prompt), method=type(self).__name__)

    async def _work(self, job: Job, prompt: Promptable) -> NudgedAnswer:
        seats = [Seat("base", self.base, prompt, self._as_plain(prompt)), Seat("nudger", self.nudger, prompt)]
        how = How(Threshold(self.gamma), self._words, self.sampling, guarded=True)
        answer = await write_together(job, seats, how, timeout_seconds=self.timeout_seconds)
        return NudgedAnswer(**vars(answer))

    def _as_plain(self, prompt: Promptable) -> str | None:
        if self.plain is None:
            return None
        said = "\n\n".join(message.content for message in as_request(prompt).messages)
        return self.plain.replace("{prompt}", said)
