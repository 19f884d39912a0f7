"""Cascade: a small model answers, and a larger one only where the small one's own tokens say that it is unsure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeGuard, cast

from ctxkit.context import Part
from ctxkit.errors import BudgetOverdrawn, ModelError
from ctxkit.models.requests import GREEDY, Promptable
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit_agents.deferral import (
    CascadeExample,
    ChowQuantile,
    CostQuality,
    CostQualityCurve,
    DeferralRule,
    curve,
    defers,
)
from ctxkit_agents.errors import CapabilityMissing
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task

Asked = Promptable | Sequence[Part]
"""A prompt, or parts, which are fitted into each model's window."""


@dataclass(frozen=True)
class CascadeAnswer:
    """text: of the last model that answered, whose name is `model`; `index` is its place in the cascade.

    scores: of the answers that were judged, by the rule. answers: of all models that were asked, None where one failed.
    """

    text: str
    model: str
    index: int
    scores: tuple[float, ...]
    answers: tuple[str | None, ...]

    @property
    def deferred(self) -> bool:
        return self.index > 0


@dataclass(frozen=True)
class Calibrated:
    """thresholds: for the cascade. point: what they give on the examples. curve: what others would."""

    cascade: Cascade
    point: CostQuality
    curve: CostQualityCurve

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self.point.thresholds


@dataclass(frozen=True)
class Cascade:
    """Asks the models in turn, smallest first, until one trusts its answer (Gupta et al. 2024, arXiv 2404.10136).

    rule: scores an answer by the log-probabilities of its tokens. threshold: below it the answer is deferred; one
    number, or one per model but the last. A score means nothing by itself: set the threshold by `calibrate`. The
    default, -1.0, defers where a token was given less than about a third.
    sampling: of all models; log-probabilities are asked for where they are needed.

    An answer without a token is deferred. A model that fails (ModelError) is passed over and the run says so; the
    last one's error is raised. Under "degrade" an answer stands where the run cannot pay for the next model, and the
    run says so; else BudgetOverdrawn is raised. A model that gives no log-probabilities raises CapabilityMissing.
    """

    models: Sequence[Model]
    rule: DeferralRule = field(default_factory=ChowQuantile)
    threshold: float | Sequence[float] = -1.0
    sampling: Sampling = GREEDY
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if len(self.models) < 2:
            raise ValueError(f"`models` must be at least two, smallest first; got {len(self.models)}")
        if len(self.thresholds) != len(self.models) - 1:
            raise ValueError(
                f"`threshold` must be a number, or one per model but the last ({len(self.models) - 1}); "
                f"got {self.threshold!r}"
            )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One per model but the last."""
        if isinstance(self.threshold, Sequence):
            return tuple(self.threshold)
        return (float(self.threshold),) * (len(self.models) - 1)

    def task(self, prompt: Asked) -> Task[CascadeAnswer]:
        """The answer to a prompt."""
        return Task("cascade", lambda job: self._work(job, prompt), method=type(self).__name__)

    async def _work(self, job: Job, prompt: Asked) -> CascadeAnswer:
        scores: list[float] = []
        answers: list[str | None] = []
        standing = 0  # the latest model that answered
        for index, model in enumerate(self.models):
            last = index == len(self.models) - 1
            try:
                reply = await self._ask(job, index, prompt, judged=not last)
            except ModelError as error:
                if last:
                    raise
                job.degraded(f"{model.name} failed ({error}); the next model was asked")
                answers.append(None)
                continue
            except BudgetOverdrawn as error:
                if job.run.overdraft != "degrade" or not any(answers):
                    raise
                job.degraded(f"the answer of {self.models[standing].name} stands, which it did not trust: {error}")
                break
            answers.append(reply.text)
            standing = index
            if last:
                break
            scores.append(self.rule.score([one.logprob for one in reply.logprobs]))
            if not defers(scores[-1], self.thresholds[index]):
                break
        text = answers[standing] or ""
        return CascadeAnswer(text, self.models[standing].name, standing, tuple(scores), tuple(answers))

    async def _ask(self, job: Job, index: int, prompt: Asked, *, judged: bool) -> Reply:
        """One model's answer. judged: with the log-probabilities of its tokens."""
        model = self.models[index]
        wanted = self.sampling.logprobs if self.sampling.logprobs is not None or not judged else 0
        sampling = replace(self.sampling, logprobs=wanted)
        asked = job.plan(model, prompt, sampling) if _are_parts(prompt) else cast(Promptable, prompt)
        step = f"model {index + 1}"
        reply = await job.ask(model, asked, sampling, step=step, timeout_seconds=self.timeout_seconds)
        if judged and not reply.logprobs and reply.text:
            raise CapabilityMissing(
                f"{model.name!r} gave no log-probabilities, by which its answer is judged; let it stand last in the "
                "cascade, or take a model, or a server, that gives them (Sampling(logprobs=0))",
                capability="logprobs",
            )
        return reply

    # --- setting the threshold ---------------------------------------------------------------------------------

    def examples(
        self, prompts: Sequence[Asked], right: Callable[[int, str], bool], *, at_once: int = 4
    ) -> Task[list[CascadeExample]]:
        """Every model's answer to every prompt, to calibrate on. right: whether a text answers prompt number n."""

        async def one(job: Job, number: int) -> CascadeExample:
            replies = [
                await self._ask(job, index, prompts[number], judged=index < len(self.models) - 1)
                for index in range(len(self.models))
            ]
            return CascadeExample(
                tuple(tuple(token.logprob for token in reply.logprobs) for reply in replies),
                tuple(right(number, reply.text) for reply in replies),
                tuple(reply.prompt_tokens + reply.completion_tokens for reply in replies),
            )

        async def work(job: Job) -> list[CascadeExample]:
            tasks = [Task(f"prompt-{n}", partial(one, number=n)) for n in range(len(prompts))]
            return await job.all([job.spawn(task) for task in tasks], at_once=at_once)

        return Task("examples", work, method=type(self).__name__)

    def calibrate(
        self,
        examples: Sequence[CascadeExample],
        *,
        target_share: float | None = None,
        cost: float | None = None,
    ) -> Calibrated:
        """Thresholds for a share of prompts beyond the first model, or for the tokens that a prompt may cost.

        Of all points within the target the one of most right answers, and of these the cheapest. Raises ValueError
        for no target or two, without examples, and where even deferring nothing costs more.
        """
        if (target_share is None) == (cost is None):
            raise ValueError(f"give either `target_share` or `cost`, got {target_share!r} and {cost!r}")
        found = curve(self.rule, examples)
        if len(found.alone) != len(self.models):
            raise ValueError(f"the examples are of {len(found.alone)} models, the cascade has {len(self.models)}")
        within = [
            point
            for point in found
            if (target_share is None or point.share <= target_share) and (cost is None or point.tokens <= cost)
        ]
        if not within:
            least = min(point.tokens for point in found)
            raise ValueError(f"no threshold stays within cost={cost!r}: without deferring a prompt costs {least:,.1f}")
        point = max(within, key=lambda one: (one.quality, -one.tokens))
        return Calibrated(replace(self, threshold=point.thresholds), point, found)


def _are_parts(prompt: Asked) -> TypeGuard[Sequence[Part]]:
    return isinstance(prompt, Sequence) and not isinstance(prompt, str) and all(isinstance(one, Part) for one in prompt)
