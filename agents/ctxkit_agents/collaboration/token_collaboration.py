"""TokenCollaboration: a small and a large model write one answer, token by token (FS-GEN)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctxkit.models.requests import GREEDY, Promptable
from ctxkit.protocols import Model, Sampling
from ctxkit_agents.collaboration.answer import CoWritten
from ctxkit_agents.collaboration.combine import Combine
from ctxkit_agents.collaboration.mixing import Oracle
from ctxkit_agents.collaboration.routers import Router, Threshold
from ctxkit_agents.collaboration.running import How, Seat, check_models, write_together
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task


@dataclass(frozen=True)
class TokenCollaboration:
    """The small model writes; where the router says so, the large one is asked (FS-GEN, arXiv 2406.12295).

    router: at which tokens. combine: what happens there: `Oracle`, `Contrast`, `ProxyTuning` and `Speculate` work on
    tokens and need one tokenizer for all; `Words` and `FromHereOn` exchange text. sampling: greedy; `max_tokens` in the
    small model's tokens, and `stop`. guarded: an answer that goes round in circles ends, as `Rules` says.

    Raises CapabilityMissing for models without sessions and logits, or with different tokenizers where one is needed,
    and ValueError for a sampling that is not greedy. An answer that uses up what was reserved for it ends there, and
    the run says so.
    """

    small: Model
    large: Model
    router: Router = field(default_factory=Threshold)
    combine: Combine = field(default_factory=Oracle)
    sampling: Sampling = GREEDY
    guarded: bool = False
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        check_models([self.small, self.large, *self.combine.others], self.combine, self.sampling)

    def task(self, prompt: Promptable) -> Task[CoWritten]:
        """The answer to a prompt, which each model is given in its own chat template."""
        return Task("collaboration", lambda job: self._work(job, prompt), method=type(self).__name__)

    async def _work(self, job: Job, prompt: Promptable) -> CoWritten:
        seats = [Seat("small", self.small, prompt), Seat("large", self.large, prompt)]
        seats += [Seat(f"other {n}", model, prompt) for n, model in enumerate(self.combine.others, 1)]
        how = How(self.router, self.combine, self.sampling, self.guarded)
        return await write_together(job, seats, how, timeout_seconds=self.timeout_seconds)
