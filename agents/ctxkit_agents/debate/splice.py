"""Spliced: a debating agent's prompt with beliefs where a text debate quotes texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ctxkit.context import Budget, Part
from ctxkit.context.compose import compose
from ctxkit.errors import BudgetInfeasible, PromptError
from ctxkit_agents.debate.belief import Belief

if TYPE_CHECKING:
    from ctxkit.models.local import LocalModel
    from ctxkit_agents.debate.speaker import Piece

_HOLE = "X"  # stands where a belief will; between line breaks it is a token of its own


@dataclass(frozen=True)
class Spliced:
    """Template tokens with holes. texts: one more than beliefs; they stand before, between and behind them.

    owners: the part that each belief stands in for, in the order of the prompt.
    """

    texts: tuple[tuple[int, ...], ...]
    owners: tuple[str, ...]
    beliefs: tuple[Belief, ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.texts)) + sum(map(len, self.beliefs))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """In the order of the prompt."""
        between = zip(self.texts, self.beliefs, strict=False)
        return (*(piece for pair in between for piece in pair), self.texts[-1])

    def fitted(self, budget: Budget, first: str) -> Spliced:
        """With no more tokens than the budget has for the prompt: the beliefs keep their last positions.

        first: the part whose belief is cut only where all others are gone; of these the longest are cut first.
        Raises BudgetInfeasible where the template alone is longer.
        """
        template = sum(map(len, self.texts))
        room = budget.prompt_tokens - template
        if room < 0:
            raise BudgetInfeasible(
                f"the question and the template have {template:,} tokens, and the prompt may have "
                f"{budget.prompt_tokens:,}. Ask a shorter question, or lower `max_tokens`.",
                minimum=template + budget.reserve_tokens,
                window_tokens=budget.window_tokens,
                reserve_tokens=budget.reserve_tokens,
                by_part={"question": template},
            )
        lengths = {owner: len(belief) for owner, belief in zip(self.owners, self.beliefs, strict=True)}
        others = _level([length for owner, length in lengths.items() if owner != first], room - lengths.get(first, 0))
        caps = [room if owner == first else others for owner in self.owners]
        return replace(self, beliefs=tuple(one.last(cap) for one, cap in zip(self.beliefs, caps, strict=True)))


def splice(model: LocalModel, parts: Sequence[Part], beliefs: Mapping[str, Belief]) -> Spliced:
    """The parts as the model's prompt, with a belief as the content of each part named in `beliefs`.

    Raises PromptError where the parts are not one user message, or the tokenizer joins a quotation with its frame.
    """
    messages = compose([replace(one, content=_HOLE) if one.id in beliefs else one for one in parts])
    if [message.role for message in messages] != ["user"]:
        raise PromptError(f"a prompt with beliefs is one user message, got {[one.role for one in messages]}")
    holes: dict[int, str] = {}
    at = 0
    for segment in messages[0].segments:
        at += len(segment.text)
        if segment.owner is not None and segment.owner in beliefs:
            holes[at - len(_HOLE)] = segment.owner
    located = model.locate(messages[0].content)
    texts, start = [], 0
    for hole in holes:
        place = located.starts.index(hole) if hole in located.starts else -1
        if place < 0 or located.starts[place + 1 : place + 2] != (hole + len(_HOLE),):
            raise PromptError(f"the tokenizer of {model.name!r} joins a quotation with what is around it")
        texts.append(located.ids[start:place])
        start = place + 1
    return Spliced((*texts, located.ids[start:]), tuple(holes.values()), tuple(beliefs[one] for one in holes.values()))


def _level(lengths: Sequence[int], room: int) -> int:
    """The most that each may keep so that all together keep at most `room`."""
    left, most = max(room, 0), 0
    for done, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - done)
        if length > share:
            return share
        left, most = left - length, length
    return most
