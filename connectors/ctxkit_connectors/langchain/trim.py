"""`trim_messages` as LangChain has it, that returns nothing a provider would refuse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, overload

from langchain_core.messages import BaseMessage, MessageLikeRepresentation, SystemMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableLambda

from ctxkit.errors import BudgetInfeasible
from ctxkit_connectors.langchain.counter import ListCounter, TokenCounter, list_counter
from ctxkit_connectors.langchain.cutting import Splitter, cut_unit, longest
from ctxkit_connectors.langchain.rounds import Unit, units_of

MessageTypes = str | type[BaseMessage] | Sequence[str | type[BaseMessage]]
Messages = Iterable[MessageLikeRepresentation] | PromptValue


@overload
def trim_messages(
    messages: None = None,
    *,
    max_tokens: int,
    token_counter: TokenCounter,
    strategy: Literal["first", "last"] = "last",
    allow_partial: bool = False,
    end_on: MessageTypes | None = None,
    start_on: MessageTypes | None = None,
    include_system: bool = False,
    text_splitter: Splitter | Any | None = None,
) -> Runnable[Any, list[BaseMessage]]: ...


@overload
def trim_messages(
    messages: Messages,
    *,
    max_tokens: int,
    token_counter: TokenCounter,
    strategy: Literal["first", "last"] = "last",
    allow_partial: bool = False,
    end_on: MessageTypes | None = None,
    start_on: MessageTypes | None = None,
    include_system: bool = False,
    text_splitter: Splitter | Any | None = None,
) -> list[BaseMessage]: ...


def trim_messages(
    messages: Messages | None = None,
    *,
    max_tokens: int,
    token_counter: TokenCounter,
    strategy: Literal["first", "last"] = "last",
    allow_partial: bool = False,
    end_on: MessageTypes | None = None,
    start_on: MessageTypes | None = None,
    include_system: bool = False,
    text_splitter: Splitter | Any | None = None,
) -> list[BaseMessage] | Runnable[Any, list[BaseMessage]]:
    """The first or last messages of at most `max_tokens` tokens: a drop-in for `langchain_core.messages.trim_messages`.

    messages: None gives a Runnable that takes them. The arguments are LangChain's; `token_counter` may be a Counter of
    ctxkit too. Where LangChain's own function returns what a provider refuses, this one does not:

    - a tool call and its results stay together or are left out together, also at the ends that `start_on` and `end_on`
      make; broken rounds of the input are left out; `allow_partial` cuts the longest result of a round, not the round
    - the whole result is counted, the system message with it, and is never over `max_tokens`
    - a cut lies between two graphemes, whatever `text_splitter` says; without one, a line that is too long is cut

    Messages that stay whole are the same objects. The counter is asked O(log n) times.

    Raises BudgetInfeasible where `include_system` is asked for and that message alone is over `max_tokens`, ValueError
    for arguments that contradict each other.
    """
    _check(strategy, start_on, include_system)
    if messages is None:
        options = {
            "max_tokens": max_tokens,
            "token_counter": token_counter,
            "strategy": strategy,
            "allow_partial": allow_partial,
            "end_on": end_on,
            "start_on": start_on,
            "include_system": include_system,
            "text_splitter": text_splitter,
        }
        return RunnableLambda(partial(trim_messages, **options), name="trim_messages")
    units = units_of(convert_to_messages(messages))
    split = getattr(text_splitter, "split_text", text_splitter)
    trimmer = _Trimmer(max_tokens, list_counter(token_counter), allow_partial, split, strategy == "last")
    if strategy == "first":
        return trimmer.trimmed(units, end_on)
    while units and end_on and not _is_type(units[-1][-1], end_on):
        units.pop()
    if include_system and units and isinstance(units[0][0], SystemMessage):
        return trimmer.behind(units[0][0]).trimmed(units[1:], start_on)
    return trimmer.trimmed(units, start_on)


def _check(strategy: str, start_on: MessageTypes | None, include_system: bool) -> None:
    if strategy not in ("first", "last"):
        raise ValueError(f"`strategy` must be 'first' or 'last', got {strategy!r}")
    for name, given in (("start_on", start_on), ("include_system", include_system)):
        if given and strategy == "first":
            raise ValueError(f"{name} parameter is only valid with strategy='last'")


def _is_type(message: BaseMessage, types: MessageTypes) -> bool:
    wanted = [types] if isinstance(types, (str, type)) else list(types)
    return message.type in wanted or isinstance(message, tuple(one for one in wanted if isinstance(one, type)))


@dataclass(frozen=True)
class _Trimmer:
    """One direction: from the start of the conversation, or from its end.

    head: stands before everything that is kept, and is counted with it.
    """

    max_tokens: int
    tokens: ListCounter
    allow_partial: bool
    splitter: Splitter | None
    from_end: bool
    head: tuple[BaseMessage, ...] = ()

    def behind(self, system: BaseMessage) -> _Trimmer:
        """The same behind a system message. Raises BudgetInfeasible where that alone does not fit."""
        tokens = self.tokens([system])
        if tokens > self.max_tokens:
            raise BudgetInfeasible(
                f"the system message alone has {tokens:,} tokens of {self.max_tokens:,}. "
                f"Raise `max_tokens` to at least {tokens:,}, or shorten it.",
                minimum=tokens,
                window_tokens=self.max_tokens,
                reserve_tokens=0,
                by_part={"system": tokens},
            )
        return _Trimmer(self.max_tokens, self.tokens, self.allow_partial, self.splitter, self.from_end, (system,))

    def trimmed(self, units: Sequence[Unit], edge: MessageTypes | None) -> list[BaseMessage]:
        """The units at the kept end that fit, and a part of the next; then none beyond the last one of type `edge`."""
        count = len(units) if self._fit(units) else longest(len(units) - 1, lambda n: self._fit(self._near(units, n)))
        kept = self._near(units, count)
        if self.allow_partial and count < len(units):
            kept = self._with_part(kept, units[-count - 1 if self.from_end else count])
        found = len(kept)
        while kept and edge and not _is_type(kept[0][0] if self.from_end else kept[-1][-1], edge):
            kept = self._near(kept, len(kept) - 1)
        while kept and len(kept) < found and not self._fit(kept):  # fewer messages may count more
            kept = self._near(kept, len(kept) - 1)
        return self._joined(kept)

    def _near(self, units: Sequence[Unit], count: int) -> list[Unit]:
        return list(units[len(units) - count :] if self.from_end else units[:count])

    def _joined(self, units: Sequence[Unit]) -> list[BaseMessage]:
        return [*self.head, *(message for unit in units for message in unit)]

    def _fit(self, units: Sequence[Unit]) -> bool:
        return not units or self.tokens(self._joined(units)) <= self.max_tokens

    def _with_part(self, kept: list[Unit], unit: Unit) -> list[Unit]:
        def joined(part: Unit) -> list[Unit]:
            return [part, *kept] if self.from_end else [*kept, part]

        part = cut_unit(unit, lambda part: self._fit(joined(part)), self.splitter, from_end=self.from_end)
        return joined(part) if part else kept
