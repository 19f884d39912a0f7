"""Attribution: which parts made an answer, by leaving each out and looking how much less likely the answer becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from itertools import accumulate
from typing import Any

from ctxkit.context import Part, Plan
from ctxkit.context.compose import SEPARATOR
from ctxkit.context.group import Group, grouped, identified
from ctxkit.context.part import SupportsPart
from ctxkit.models.requests import GREEDY
from ctxkit.pipeline.citations import split_sentences
from ctxkit.protocols import Located, Model, PromptMessage, Sampling
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.scoring import Scored, Scorer, require, text_counter

_TASK_KINDS = ("system", "instruction", "question")  # what is asked, not what is known


@dataclass(frozen=True, slots=True)
class Influence:
    """What some parts did for an answer; parts that live or die together have one influence.

    drop: log-likelihood per token of the answer, in nats, that is lost without them; negative where they were in the
        way. share: of all that is lost, in [0, 1].
    """

    part_ids: tuple[str, ...]
    drop: float
    share: float


@dataclass(frozen=True, slots=True)
class Source:
    """A sentence of the answer and the parts that it came from, the strongest first; none where nothing told.

    drops: what each influence, in the order of `Attribution.influences`, did for this sentence alone.
    """

    sentence: str
    part_ids: tuple[str, ...]
    drops: tuple[float, ...]


@dataclass(frozen=True)
class Attribution:
    """Which parts made an answer.

    text: the answer. influences: in the order of the prompt. sources: of its sentences, which joined are the text.
    tokens_read: by all scores. naive_tokens: what they would have been with every prompt read whole.
    """

    text: str
    influences: tuple[Influence, ...]
    sources: tuple[Source, ...]
    tokens_read: int
    naive_tokens: int

    @property
    def saved(self) -> float:
        """Share of the tokens that were not read again, in [0, 1]."""
        return 1 - self.tokens_read / self.naive_tokens if self.naive_tokens else 0.0

    @cached_property
    def shares(self) -> Mapping[str, float]:
        """Part id -> its share of the influence, in [0, 1]. Parts of one group have the group's."""
        return {part_id: one.share for one in self.influences for part_id in one.part_ids}

    @property
    def best(self) -> Influence | None:
        """The strongest influence; None where there was nothing to leave out."""
        return max(self.influences, key=lambda one: one.drop, default=None)

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "influences": [
                {"part_ids": list(one.part_ids), "drop": one.drop, "share": one.share} for one in self.influences
            ],
            "sources": [{"sentence": one.sentence, "part_ids": list(one.part_ids)} for one in self.sources],
            "tokens_read": self.tokens_read,
            "naive_tokens": self.naive_tokens,
        }

    def __str__(self) -> str:
        """A bar for each part, then the answer with the parts of each sentence."""
        names = [_name(one) for one in self.influences]
        width = max(map(len, names), default=0)
        bars = [
            f"{name:{width}}  {one.share:4.0%}  {one.drop:+7.3f}  {'#' * round(30 * one.share)}".rstrip()
            for name, one in zip(names, self.influences, strict=True)
        ]
        said = [f"{one.sentence.strip()}  <- {', '.join(one.part_ids) or '(no part)'}" for one in self.sources]
        return "\n".join([*bars, *said, f"{self.tokens_read:,} tokens read, {self.saved:.0%} saved by shared prefixes"])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td>{escape(_name(one))}</td><td style="text-align:right">{one.share:.0%}</td><td>'
            f'<div style="width:{120 * one.share:.0f}px;height:8px;background:#0c8599"></div></td>'
            f'<td style="text-align:right">{one.drop:+.3f}</td></tr>'
            for one in self.influences
        )
        said = "".join(
            f'<span title="{escape(", ".join(one.part_ids))}" style="{_UNDERLINE if one.part_ids else ""}">'
            f"{escape(one.sentence)}</span>"
            for one in self.sources
        )
        head = "<tr><th>part</th><th>share</th><th></th><th>nats per token</th></tr>"
        return f'<div style="{_FONT}"><p style="white-space:pre-wrap">{said}</p><table>{head}{rows}</table></div>'


_FONT = "font-family:system-ui,sans-serif;font-size:13px;color:inherit"
_UNDERLINE = "border-bottom:2px solid #0c8599"


@dataclass(frozen=True)
class LeaveOneOut:
    """Scores an answer without each part of its prompt in turn; what it loses is the part's influence.

    What is left out is cut out of the prompt; everything else stays as it is, citation numbers too. Parts are left out
    from the last to the first, so that each prompt shares as much as can be with the one before, and the shared
    beginning is read once. Parts that live or die together are left out together. System, instruction and question
    parts, and what the user said last, are what is asked: they stay.

    model: with the capability "score"; with "crop" too (a LocalModel), beginnings are shared.
    cite_from: nats per token of a sentence from which on a part is a source of it.
    cite_share: of the sentence's best source that another one needs, in (0, 1].
    share_prefixes: read what prompts have in common once. In bfloat16 that rounds a little otherwise.

    Leaving out sees what a part did that no other could: two parts that say the same thing have little influence each.
    """

    model: Model
    sampling: Sampling = GREEDY
    cite_from: float = 0.1
    cite_share: float = 0.5
    share_prefixes: bool = True

    def __post_init__(self) -> None:
        if self.cite_from < 0:
            raise ValueError(f"`cite_from` must be 0 or more nats per token, got {self.cite_from!r}")
        if not 0 < self.cite_share <= 1:
            raise ValueError(f"`cite_share` must be in (0, 1], got {self.cite_share!r}")

    def task(self, parts: Iterable[Part | SupportsPart], *, answer: str | None = None) -> Task[Attribution]:
        """Explain an answer to the prompt of these parts. answer: None asks the model for it.

        The run raises CapabilityMissing for a model without "score", AnswerMalformed for an empty answer, PromptError
        where the chat template refuses a prompt with something left out, and what `fit` and the model raise.
        """
        given = identified(list(parts))
        return Task("attribution", lambda job: self._work(job, given, answer), method=type(self).__name__)

    async def _work(self, job: Job, parts: Sequence[Part], answer: str | None) -> Attribution:
        require(self.model, {"score"}, type(self).__name__)
        plan = job.plan(self.model, parts, self.sampling)
        if answer is None:
            answer = (await job.ask(self.model, plan, self.sampling, step="answer")).text
        located = text_counter(self.model).as_text().locate(answer)
        if not located.ids:
            raise AnswerMalformed("the answer is empty: there is nothing that a part could have made", answer=answer)
        groups = evidence(plan)
        with Scorer(job, self.model, share=self.share_prefixes) as scorer:
            whole = await scorer.score(plan.ids or (), located.ids, step="score whole")
            without: list[Scored] = []
            for group in reversed(groups):
                ids = self._ids_without(plan, group)
                without.append(await scorer.score(ids, located.ids, step=f"score without {group.parts[0].id}"))
        lost = [_lost(whole, one) for one in reversed(without)]  # [groups][tokens of the answer]
        sources = tuple(self._sources(answer, located, groups, lost))
        return Attribution(answer, _influences(groups, lost), sources, scorer.tokens_read, scorer.naive_tokens)

    def _ids_without(self, plan: Plan, group: Group) -> tuple[int, ...]:
        messages = without_parts(plan.messages, {part.id for part in group.parts})
        return self.model.counter.render(messages, tools=plan.tools).ids or ()

    def _sources(
        self, answer: str, located: Located, groups: Sequence[Group], lost: Sequence[Sequence[float]]
    ) -> Iterator[Source]:
        sentences = [sentence for sentence in split_sentences(answer) if sentence]
        ends = list(accumulate(map(len, sentences)))
        for sentence, end in zip(sentences, ends, strict=True):
            own = [at for at, start in enumerate(located.starts) if end - len(sentence) <= start < end]
            drops = tuple(sum(row[at] for at in own) / len(own) if own else 0.0 for row in lost)
            least = max(self.cite_from, self.cite_share * max(drops, default=0.0))
            told = sorted(
                (at for at, drop in enumerate(drops) if drop >= least and drop > 0), key=lambda at: -drops[at]
            )
            yield Source(sentence, tuple(part.id for at in told for part in groups[at].parts), drops)


def evidence(plan: Plan) -> tuple[Group, ...]:
    """The groups in the prompt that an answer could have come from, in order."""
    parts = [decision.sent for decision in plan.kept if decision.sent is not None]
    return tuple(group for group in grouped(parts) if not any(map(_is_task, group.parts)))


def _is_task(part: Part) -> bool:
    return part.kind in _TASK_KINDS or (part.kind == "turn" and (part.pinned or part.role in ("system", "developer")))


def without_parts(messages: Sequence[PromptMessage], part_ids: Set[str]) -> tuple[PromptMessage, ...]:
    """A prompt without what these parts own; everything else as it stands. A message that loses all its text goes."""
    return tuple(left for message in messages if (left := _without(message, part_ids)) is not None)


def _without(message: PromptMessage, part_ids: Set[str]) -> PromptMessage | None:
    segments = [one for one in message.segments if one.owner not in part_ids]
    if len(segments) == len(message.segments) and message.owner not in part_ids:
        return message
    if not segments:
        return None
    if segments[0] is not message.segments[0]:
        segments[0] = replace(segments[0], text=segments[0].text.removeprefix(SEPARATOR))
    owner = segments[0].owner if message.owner in part_ids else message.owner
    return replace(message, segments=tuple(segments), owner=owner, original=None)


def with_influence(parts: Iterable[Part], attribution: Attribution, *, least: float = 0.05) -> tuple[Part, ...]:
    """The parts with what they turned out to be worth as their `relevance`, so that `fit` goes by it next time.

    The strongest gets 1.0, the others their share of that, and none less than `least`: what did nothing for one answer
    may do something for the next. Parts that the attribution says nothing of stay as they are, and so does everything
    where no part had any influence. Raises ValueError for a `least` outside of [0, 1].
    """
    if not 0 <= least <= 1:
        raise ValueError(f"`least` must be in [0, 1], got {least!r}")
    shares = attribution.shares
    top = max(shares.values(), default=0.0)
    if not top:
        return tuple(parts)
    return tuple(
        replace(part, relevance=max(shares[part.id] / top, least)) if part.id in shares else part
        for part in identified(list(parts))
    )


def _lost(whole: Scored, without: Scored) -> list[float]:
    pairs = zip(whole.log_probabilities, without.log_probabilities, strict=True)
    return [before - after for before, after in pairs]


def _influences(groups: Sequence[Group], lost: Sequence[Sequence[float]]) -> tuple[Influence, ...]:
    drops = [sum(row) / len(row) for row in lost]
    total = sum(max(drop, 0.0) for drop in drops)
    return tuple(
        Influence(tuple(part.id for part in group.parts), drop, max(drop, 0.0) / total if total else 0.0)
        for group, drop in zip(groups, drops, strict=True)
    )


def _name(influence: Influence) -> str:
    return " + ".join(influence.part_ids)
