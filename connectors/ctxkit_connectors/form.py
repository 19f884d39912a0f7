"""Conversations of other frameworks as chat messages in OpenAI's form, and the way back to the very same objects."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from ctxkit.protocols import PromptMessage

Item = TypeVar("Item")

_OWNER = re.compile(r"m(\d+)")


class Form(ABC, Generic[Item]):
    """What a framework keeps a conversation in, one chat message for one or more of its items.

    dicts: the chat messages. A subclass says what becomes of items whose text was reduced, and of a message that
    stands for none of them.
    """

    def __init__(self, pairs: Iterable[tuple[dict[str, Any], Sequence[Item]]]) -> None:
        self.dicts: list[dict[str, Any]] = []
        self._items: list[Sequence[Item]] = []
        for message, items in pairs:
            self.dicts.append(message)
            self._items.append(items)
        self._place = {id(message): place for place, message in enumerate(self.dicts)}

    def all_back(self, sent: Iterable[PromptMessage]) -> list[Item]:
        """The items of a plan's messages: the same objects where nothing was changed."""
        return [item for message in sent for item in self._back(message)]

    def _back(self, sent: PromptMessage) -> Sequence[Item]:
        place = self._place.get(id(sent.original)) if sent.original is not None else None
        if place is not None:
            return self._items[place]
        owned = _OWNER.fullmatch(sent.owner or "")
        if owned is None or int(owned[1]) >= len(self.dicts) or self.dicts[int(owned[1])]["role"] != sent.role:
            return self.made(sent)
        return self.reduced(self._items[int(owned[1])], sent)

    @abstractmethod
    def reduced(self, items: Sequence[Item], sent: PromptMessage) -> Sequence[Item]:
        """`items` with the texts and the arguments of `sent`; new objects."""

    @abstractmethod
    def made(self, sent: PromptMessage) -> Sequence[Item]:
        """Items for a message that a repair wrote."""


def chat_call(call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    """A tool call as OpenAI's chat form has it."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False, default=str)
    return {"id": call_id, "type": "function", "function": {"name": name or "unknown", "arguments": text}}


def arguments_of(sent: PromptMessage) -> Mapping[str, str]:
    """Call id -> arguments, as JSON."""
    return {str(call.get("id")): str((call.get("function") or {}).get("arguments")) for call in sent.tool_calls}
