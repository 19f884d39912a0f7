"""Whatever LangChain calls a token counter, as a function over messages and as ctxkit's Counter."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.messages.utils import count_tokens_approximately

from ctxkit.protocols import TEMPLATE, TOOLS, Counter, PromptMessage, Rendering, Tool
from ctxkit.tokens import messages_from_dicts
from ctxkit.tokens.cache import TextCache
from ctxkit_connectors.langchain.messages import OpenAIForm
from ctxkit_connectors.shared import CountedAsSent

TokenCounter = (
    Callable[[list[BaseMessage]], int]
    | Callable[[BaseMessage], int]
    | BaseLanguageModel[Any]
    | Literal["approximate"]
    | Counter
)
"""What `token_counter` may be: what LangChain takes, or a Counter of ctxkit."""

ListCounter = Callable[[list[BaseMessage]], int]


def list_counter(token_counter: TokenCounter) -> ListCounter:
    """A token counter as a function over a list of messages. Raises ValueError for what is none."""
    if isinstance(token_counter, str):
        if token_counter != "approximate":
            raise ValueError(
                f"Invalid token_counter shortcut '{token_counter}'. Available shortcuts: 'approximate'. "
                "Or pass a function, a chat model or a Counter of ctxkit."
            )
        return count_tokens_approximately
    if is_counter(token_counter):
        return lambda messages: token_counter.render(messages_from_dicts(OpenAIForm(messages).dicts)).tokens  # type: ignore[union-attr]
    if hasattr(token_counter, "get_num_tokens_from_messages"):
        return token_counter.get_num_tokens_from_messages
    if not callable(token_counter):
        raise ValueError(
            "'token_counter' expected to be a model that implements 'get_num_tokens_from_messages()' or a function. "
            f"Received object of type {type(token_counter)}."
        )
    if _takes_one_message(token_counter):
        return lambda messages: sum(map(token_counter, messages))  # type: ignore[arg-type]
    return token_counter  # type: ignore[return-value]


def is_counter(token_counter: object) -> bool:
    """Whether it is a Counter of ctxkit."""
    return hasattr(token_counter, "render") and hasattr(token_counter, "count_batch")


def _takes_one_message(function: Callable[..., int]) -> bool:
    """LangChain tells the two kinds of function apart by the annotation of the first argument."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    return first is not None and first.annotation in (BaseMessage, "BaseMessage")


class LangChainCounter:
    """A Counter that asks a LangChain token counter, always about LangChain messages.

    token_counter: as `trim_messages` takes it. The count of a list is what it says of the whole list; a text is counted
        as what it adds to an empty message, for planning and attribution.
    exact: say True where it counts as the model's own template does. Without that the counts are taken for an estimate;
        "approximate" and chat models without a tokenizer of their own may well count too low.
    form: where the messages come from, so that the very objects are counted; others are rebuilt from OpenAI's form.

    Tool schemas are charged as their JSON: LangChain's own counters leave them out.
    """

    def __init__(self, token_counter: TokenCounter, *, exact: bool = False, form: OpenAIForm | None = None) -> None:
        self._list_tokens = list_counter(token_counter)
        self._counts = TextCache(self._count_all)
        self._form = form or OpenAIForm([])
        self.exact = exact
        self.name = f"langchain {_name(token_counter)}"

    def __repr__(self) -> str:
        return f"LangChainCounter({self.name!r}, exact={self.exact})"

    def of(self, form: OpenAIForm) -> LangChainCounter:
        """The same counter, for the messages of `form`; what was counted stays known."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._form = form
        return other

    def count(self, text: str) -> int:
        return self._counts([text])[0]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self._counts(texts)

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        """One question for the whole list. Texts and calls are charged to their parts, the rest to the template."""
        tokens = self._list_tokens(self._form.all_back(messages)) if messages else 0
        charged = [charge for message in messages for charge in self._charges(message)]
        by_owner = _adding_up(charged, tokens)
        if tools:
            by_owner[TOOLS] = sum(self.count_batch([json.dumps(dict(tool), ensure_ascii=False) for tool in tools]))
        return Rendering(sum(by_owner.values()), None, by_owner)

    def _count_all(self, texts: Sequence[str]) -> list[int]:
        empty = self._list_tokens([HumanMessage("")])
        return [max(self._list_tokens([HumanMessage(text)]) - empty, 0) for text in texts]

    def _charges(self, message: PromptMessage) -> Iterable[tuple[str, int]]:
        for segment in message.segments:
            if segment.text:
                yield segment.owner or TEMPLATE, self.count(segment.text)
        for call in message.tool_calls:
            yield message.owner or TEMPLATE, self.count(json.dumps(dict(call), ensure_ascii=False))


def _name(token_counter: object) -> str:
    if isinstance(token_counter, str):
        return token_counter
    return getattr(token_counter, "__name__", None) or type(token_counter).__name__


def _adding_up(charges: Iterable[tuple[str, int]], tokens: int) -> dict[str, int]:
    """Tokens per owner that add up to `tokens`: what is missing goes to the template, what is too much to the last."""
    by_owner: dict[str, int] = {TEMPLATE: 0}
    for owner, count in charges:
        by_owner[owner] = by_owner.get(owner, 0) + count
    excess = sum(by_owner.values()) - tokens
    by_owner[TEMPLATE] += max(-excess, 0)
    for owner in reversed(list(by_owner)):
        taken = min(max(excess, 0), by_owner[owner])
        by_owner[owner] -= taken
        excess -= taken
    return by_owner


def as_counter(token_counter: TokenCounter, form: OpenAIForm) -> Counter:
    """A token counter as ctxkit's Counter for the messages of `form`."""
    if isinstance(token_counter, LangChainCounter):
        return token_counter.of(form)
    if is_counter(token_counter):
        return CountedAsSent(token_counter, form.as_sent)  # type: ignore[arg-type]
    return LangChainCounter(token_counter, form=form)
