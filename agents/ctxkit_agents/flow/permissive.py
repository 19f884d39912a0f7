"""PermissiveFlow: an answer gets only the labels of the parts that it needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ctxkit.compression.distortion.likelihood import answer_ids
from ctxkit.context import Label, Part, Plan
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.labels import joined
from ctxkit.context.part import SupportsPart
from ctxkit.models.requests import GREEDY
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.scoring import Scorer, require, text_counter


@dataclass(frozen=True)
class Labelled:
    """An answer and its label.

    text: made from a prompt of nothing above the label. conservative: the label of the whole prompt.
    kept, left_out: ids of the parts in the prompt of `text`, and of those in the whole prompt that it did not have.
    tried: each label, how much likelihood per token (nats) the first answer lost under it, from permissive to
        restrictive. plan: the prompt of `text`.
    """

    text: str
    label: Label
    conservative: Label
    kept: tuple[str, ...]
    left_out: tuple[str, ...]
    tried: tuple[tuple[Label, float], ...]
    plan: Plan
    reply: Reply


@dataclass(frozen=True)
class PermissiveFlow:
    """Answers, and gives the answer the most permissive label under which it stays about as likely.

    Siddiqui et al., "Permissive Information-Flow Analysis for Large Language Models" (arXiv 2410.03055), by likelihood.
    The usual rule gives an answer the labels of everything in the prompt. Here the answer is scored again in prompts
    that hold only the parts whose labels flow to one candidate, from permissive to restrictive. The first in which it
    loses no more than `tolerance` decides, and the answer is made AGAIN from that prompt alone: nothing that was left
    out can have reached it.

    tolerance: lambda of the paper: log-likelihood per token of the answer, in nats, that may be lost.
    most_labels: candidates that are tried; labels of n kinds have up to 2^n joins.
    fallback: where the model cannot score, or the answer is empty, give it the label of the whole prompt and say so;
        False raises CapabilityMissing for a model without "score".

    Pinned and required parts, and what is grouped with them, are in every prompt, so their labels are in every
    candidate. What remains is that the choice of the label was made by looking at everything: a few bits.
    """

    model: Model
    sampling: Sampling = GREEDY
    tolerance: float = 0.1
    most_labels: int = 16
    fallback: bool = True

    def __post_init__(self) -> None:
        if self.tolerance < 0:
            raise ValueError(f"`tolerance` must be 0 or more nats per token, got {self.tolerance!r}")
        if self.most_labels < 1:
            raise ValueError(f"`most_labels` must be at least 1, got {self.most_labels!r}")

    def task(self, parts: Iterable[Part | SupportsPart]) -> Task[Labelled]:
        """Answer the prompt of these parts. Raises PartError; the run raises what `fit` and the model raise."""
        given = identified(list(parts))
        return Task("permissive-flow", lambda job: self._work(job, given), method=type(self).__name__)

    async def _work(self, job: Job, parts: Sequence[Part]) -> Labelled:
        if not self.fallback:
            require(self.model, {"score"}, "PermissiveFlow")
        plan = job.plan(self.model, parts, self.sampling)
        reply = await job.ask(self.model, plan, self.sampling, step="answer")
        labels = candidates(parts, plan)
        conservative = _labelled(plan, reply, plan, ())
        if not labels:
            return conservative
        if "score" not in self.model.capabilities:
            job.degraded(
                f"the answer has the label of the whole prompt ({plan.label}): {self.model.name!r} cannot score"
            )
            return conservative
        if not reply.text.strip():
            job.degraded(f"the answer is empty, so it has the label of the whole prompt ({plan.label})")
            return conservative
        if len(labels) > self.most_labels:
            job.degraded(f"of {len(labels):,} labels the {self.most_labels:,} most permissive were tried")
        return await self._relabelled(job, parts, plan, reply, labels[: self.most_labels])

    async def _relabelled(
        self, job: Job, parts: Sequence[Part], plan: Plan, reply: Reply, labels: Sequence[Label]
    ) -> Labelled:
        tried: list[tuple[Label, float]] = []
        chosen: Plan | None = None
        with Scorer(job, self.model) as scorer:
            answer = answer_ids(text_counter(self.model), reply.text)
            best = (await scorer.score(plan.ids or (), answer, step="score whole")).mean
            for label in labels:
                within = job.plan(self.model, allowed(parts, label), self.sampling)
                scored = await scorer.score(within.ids or (), answer, step=f"score {label}")
                tried.append((label, best - scored.mean))
                if best - scored.mean <= self.tolerance:
                    chosen = within
                    break
        if chosen is None:
            return _labelled(plan, reply, plan, tried)
        again = await job.ask(self.model, chosen, self.sampling, step="answer again")
        return _labelled(chosen, again, plan, tried)


def _labelled(plan: Plan, reply: Reply, whole: Plan, tried: Sequence[tuple[Label, float]]) -> Labelled:
    kept = tuple(decision.part.id for decision in plan.kept)
    left_out = tuple(decision.part.id for decision in whole.kept if decision.part.id not in set(kept))
    return Labelled(reply.text, plan.label, whole.label, kept, left_out, tuple(tried), plan, reply)


def candidates(parts: Sequence[Part], plan: Plan) -> tuple[Label, ...]:
    """The labels that an answer could have, but for the one of the whole prompt, from permissive to restrictive.

    Each is a join of labels in the prompt, and lets at least one part of it go. A label comes before all those that
    it flows to; of several that keep the same parts there is the most permissive.
    """
    groups = grouped(parts)
    sent = {decision.part.id for decision in plan.kept}
    inside = [group for group in groups if any(part.id in sent for part in group.parts)]
    base = joined(group.label for group in groups if _stays(group))
    found = {base}
    for label in dict.fromkeys(group.label for group in inside):
        found |= {label.join(other) for other in found}
    ordered = sorted(found, key=lambda label: (sum(other.flows_to(label) for other in found), str(label)))
    by_parts = {tuple(group.index for group in inside if group.label.flows_to(label)): label for label in ordered[::-1]}
    kept = {label for indices, label in by_parts.items() if len(indices) < len(inside)}
    return tuple(label for label in ordered if label in kept and allowed(parts, label))


def allowed(parts: Sequence[Part], label: Label) -> tuple[Part, ...]:
    """The parts of the groups whose labels flow to this one, in order."""
    inside = {part.id for group in _flowing(parts, label) for part in group.parts}
    return tuple(part for part in parts if part.id in inside)


def _flowing(parts: Sequence[Part], label: Label) -> Iterator[Group]:
    return (group for group in grouped(parts) if group.label.flows_to(label))


def _stays(group: Group) -> bool:
    return group.pinned or group.required
