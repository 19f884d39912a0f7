"""ReAGent: which words of a prompt made a model say what it said."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from ctxkit.models.requests import GREEDY
from ctxkit.protocols import Located, Model, Sampling
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.replacing import Replacer
from ctxkit_agents.runtime.job import Job
from ctxkit_agents.runtime.task import Task
from ctxkit_agents.scoring import Probed, Scorer, require, text_counter

if TYPE_CHECKING:
    from rich.text import Text

_LEVELS = 4  # of warmth, as the heat maps of a search have them
_LEAST = 1e-6  # distance of a probability from 0 and 1 before its logit


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the prompt. start, end: characters of the prompt. importance: in [0, 1]; all add up to 1."""

    text: str
    start: int
    end: int
    importance: float


@dataclass(frozen=True)
class TokenImportance:
    """Which tokens of a prompt a model went by, as a heat map in a notebook, in colours and, by `str`, in brackets.

    tokens: of the prompt, in order. answer: the tokens that are explained, as text. steps: of replacing, all tokens of
        the answer together. settled: whether the tokens that were kept made the answer likely in the end.
    """

    prompt: str
    answer: str
    tokens: tuple[Token, ...]
    steps: int
    settled: bool
    tokens_read: int

    @property
    def text(self) -> str:
        return str(self)

    def top(self, n: int = 5) -> tuple[Token, ...]:
        """The most important tokens, the first one first."""
        return tuple(sorted(self.tokens, key=lambda token: (-token.importance, token.start))[:n])

    def level(self, token: Token) -> int:
        """How warm a token is: 0 where it is no more important than the mean, else 1 to 4."""
        mean = 1 / len(self.tokens)
        most = max(one.importance for one in self.tokens)
        if token.importance <= mean or most <= mean:
            return 0
        return min(math.ceil(_LEVELS * (token.importance - mean) / (most - mean)), _LEVELS)

    def to_dict(self) -> dict[str, Any]:
        tokens = [{"text": one.text, "start": one.start, "importance": one.importance} for one in self.tokens]
        return {"answer": self.answer, "tokens": tokens, "steps": self.steps, "settled": self.settled}

    def __str__(self) -> str:
        """The prompt with `[tokens]` that mattered and `[[tokens]]` that mattered most."""
        from ctxkit.retrieval.heat_map_text import BRACKETS

        return self._joined(lambda one: one.text.join(BRACKETS[self.level(one)])) + f"\n-> {self.answer!r}"

    def __rich__(self) -> Text:
        from rich.text import Text

        from ctxkit.retrieval.heat_map_text import STYLES

        return Text.assemble(*((one.text, STYLES[self.level(one)]) for one in self.tokens))

    def _repr_html_(self) -> str:
        from html import escape

        from ctxkit.retrieval.heat_map_html import warm

        def shown(one: Token) -> str:
            told = f"{one.importance:.1%}"
            return warm(one.text, self.level(one), told, False) if self.level(one) else escape(one.text)

        style = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;font-family:system-ui,sans-serif"
        return f'<div style="{style}">{self._joined(shown)}<div>&rarr; <b>{escape(self.answer)}</b></div></div>'

    def _joined(self, shown: Callable[[Token], str]) -> str:
        return "".join(shown(one) if one.text.strip() else one.text for one in self.tokens)


@dataclass(frozen=True)
class ReAGent:
    """Finds the tokens that a model goes by, by replacing random ones and looking at what it says then.

    Zhao and Shan, "ReAGent: A Model-agnostic Feature Attribution Method for Generative Language Models" (arXiv
    2402.00794). Each step replaces a random share of the prompt's tokens by others that could stand there. How much
    less likely the answer became, as a logit, is added to the importance of the replaced tokens and taken from that of
    the others. It ends when the prompt with only its most important tokens left has the answer among the likeliest.

    model: with the capability "logits"; with "crop" too (a LocalModel), what comes before the first replaced token is
        not read again.
    replaced: share of the tokens replaced in a step, in (0, 1). kept: share that must do at the end, in (0, 1).
    top_k: the answer must be among so many likeliest tokens then. settled_after: so many times in a row, each time with
        other replacements; a single time may be luck.
    most_steps: for each token of the answer; each takes two passes over the prompt.
    replacer: what stands in for tokens, such as `MaskedReplacer`; None: tokens that the model itself finds likely after
        what stands before them.
    seed: the same seed gives the same importances.
    """

    model: Model
    sampling: Sampling = GREEDY
    replaced: float = 0.3
    kept: float = 0.3
    top_k: int = 3
    settled_after: int = 3
    most_steps: int = 50
    replacer: Replacer | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("replaced", "kept"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in (0, 1), got {getattr(self, name)!r}")
        for name in ("top_k", "settled_after", "most_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")

    def task(self, prompt: str, *, answer: str | None = None, targets: int = 1) -> Task[TokenImportance]:
        """Explain the first `targets` tokens of an answer to a prompt of one user message; their mean is the result.

        answer: None asks the model. Raises ValueError for an empty prompt and for no targets; the run raises
        CapabilityMissing for a model without "logits", AnswerMalformed for an empty answer, and what the model raises.
        """
        if not prompt.strip():
            raise ValueError("`prompt` is empty: it has no token to explain anything with")
        if targets < 1:
            raise ValueError(f"`targets` must be at least 1, got {targets!r}")
        return Task("reagent", lambda job: self._work(job, prompt, answer, targets), method=type(self).__name__)

    async def _work(self, job: Job, prompt: str, answer: str | None, targets: int) -> TokenImportance:
        require(self.model, {"logits"}, type(self).__name__)
        counter = text_counter(self.model)
        if answer is None:
            answer = (await job.ask(self.model, prompt, self.sampling, step="answer")).text
        told = counter.as_text().locate(answer)
        if not told.ids:
            raise AnswerMalformed("the answer is empty: there is nothing to explain", answer=answer)
        text = _Text(prompt, counter.locate(prompt))
        with Scorer(job, self.model) as scorer:
            others = _Others(self, text, await self._likely(scorer, text))
            found = [
                await _Search(self, scorer, others, told.ids[: at + 1]).run()
                for at in range(min(targets, len(told.ids)))
            ]
        ends = [*told.starts, len(answer)]
        means = [sum(column) / len(found) for column in zip(*(one.importances for one in found), strict=True)]
        return TokenImportance(
            prompt,
            answer[: ends[len(found)]],
            text.tokens(means),
            sum(one.steps for one in found),
            all(one.settled for one in found),
            scorer.tokens_read,
        )

    async def _likely(self, scorer: Scorer, text: _Text) -> list[list[tuple[int, float]]]:
        """What else the model would have said at each token of the prompt; none where somebody else replaces them."""
        if self.replacer is not None:
            return []
        return await scorer.predictions(text.located.ids, text.places, _LIKELY)


_LIKELY = 10


class _Text:
    """A prompt in tokens. places: of its own tokens among the ids; the rest are the template's."""

    def __init__(self, prompt: str, located: Located) -> None:
        self.prompt = prompt
        self.located = located
        inside = [at for at, start in enumerate(located.starts) if 0 <= start < len(prompt)]
        self.places = [at for at in inside if at]  # the very first id has nothing before it to be predicted from
        self.starts = [located.starts[at] for at in self.places]

    @property
    def pieces(self) -> list[str]:
        """The text of each place; a token that begins within a character has none."""
        ends = [*self.starts[1:], len(self.prompt)]
        return [self.prompt[start:end] for start, end in zip(self.starts, ends, strict=True)]

    def tokens(self, importances: Sequence[float]) -> tuple[Token, ...]:
        triples = zip(self.pieces, self.starts, importances, strict=True)
        return tuple(Token(text, start, start + len(text), importance) for text, start, importance in triples)


class _Others:
    """Prompts with some of their tokens replaced. likely: as `Scorer.predictions` gives it."""

    def __init__(self, method: ReAGent, text: _Text, likely: Sequence[Sequence[tuple[int, float]]]) -> None:
        self.method = method
        self.text = text
        self.likely = likely
        self.counter = text_counter(method.model).as_text()

    async def replaced(self, numbers: Sequence[int], draw: Random) -> tuple[int, ...]:
        """The ids with the tokens of these numbers replaced."""
        ids = list(self.text.located.ids)
        for number, new in zip(numbers, await self._new(numbers, draw), strict=True):
            ids[self.text.places[number]] = new
        return tuple(ids)

    async def _new(self, numbers: Sequence[int], draw: Random) -> list[int]:
        replacer = self.method.replacer
        if replacer is None:
            return [_drawn(self.likely[number], draw) for number in numbers]
        words = await asyncio.to_thread(replacer.replacements, self.text.pieces, numbers, draw)
        ids = self.text.located.ids
        found = (self.counter.locate(word).ids for word in words)
        return [own[0] if own else ids[self.text.places[number]] for number, own in zip(numbers, found, strict=True)]


class _Search:
    """The importances of a prompt's tokens for one token of the answer. told: the answer so far, that token last."""

    def __init__(self, method: ReAGent, scorer: Scorer, others: _Others, told: Sequence[int]) -> None:
        self.method = method
        self.scorer = scorer
        self.others = others
        self.before, self.target = tuple(told[:-1]), told[-1]
        self.draw = Random(f"{method.seed}/{len(told)}")
        self.count = len(others.text.places)
        self.logits = [0.0] * self.count
        self.steps = 0
        self.settled = False

    @property
    def importances(self) -> list[float]:
        """In [0, 1]; they add up to 1."""
        highest = max(self.logits)
        weights = [math.exp(logit - highest) for logit in self.logits]
        return [weight / sum(weights) for weight in weights]

    async def run(self) -> _Search:
        whole = await self._probe(self.others.text.located.ids)
        in_a_row = 0
        while self.steps < self.method.most_steps and not self.settled:
            self.steps += 1
            await self._step(whole.probability)
            in_a_row = in_a_row + 1 if await self._is_enough() else 0
            self.settled = in_a_row == self.method.settled_after
        return self

    async def _step(self, probability: float) -> None:
        chosen = sorted(self.draw.sample(range(self.count), max(1, round(self.method.replaced * self.count))))
        probed = await self._probe(await self.others.replaced(chosen, self.draw))
        change = _logit((probability - probed.probability + 1) / 2)
        replaced = set(chosen)
        self.logits = [logit + (change if number in replaced else -change) for number, logit in enumerate(self.logits)]

    async def _is_enough(self) -> bool:
        """Whether the most important tokens, with all others replaced, have the answer among the likeliest."""
        ranked = sorted(range(self.count), key=lambda number: (-self.logits[number], number))
        rest = sorted(ranked[max(1, round(self.method.kept * self.count)) :])
        probed = await self._probe(await self.others.replaced(rest, self.draw))
        return probed.rank < self.method.top_k

    async def _probe(self, ids: Sequence[int]) -> Probed:
        return await self.scorer.probe((*ids, *self.before), self.target, step="probe")


def _drawn(likely: Sequence[tuple[int, float]], draw: Random) -> int:
    return draw.choices([token for token, _ in likely], [chance for _, chance in likely])[0]


def _logit(probability: float) -> float:
    inside = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(inside / (1 - inside))
