"""CallDeltas: tool calls of one answer as they grow, in the deltas that OpenAI's client puts together."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


class CallDeltas:
    """Of each call first its id and name with empty arguments, then its arguments as they come. ids: in order."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._sent: list[int] = []

    def of(self, calls: Sequence[Mapping[str, Any]], *, whole: bool) -> Iterator[dict[str, Any]]:
        """What is new in the calls. whole: they grow no more; else the last one's name is known by its arguments."""
        for number, call in enumerate(calls):
            if number == len(self.ids):
                if not whole and number == len(calls) - 1 and not arguments_of(call):
                    return
                yield {"index": number, **self._opened(call)}
            rest = arguments_of(call)[self._sent[number] :]
            if rest:
                self._sent[number] += len(rest)
                yield {"index": number, "function": {"arguments": rest}}

    def _opened(self, call: Mapping[str, Any]) -> dict[str, Any]:
        made = call_of(call)
        self.ids.append(made["id"])
        self._sent.append(0)
        return {**made, "function": {"name": made["function"]["name"], "arguments": ""}}


def call_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call as OpenAI writes it: its arguments are text, and it has an id."""
    named = {"name": (call.get("function") or {}).get("name", ""), "arguments": arguments_of(call)}
    return {"id": call.get("id") or f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": named}


def arguments_of(call: Mapping[str, Any]) -> str:
    arguments = (call.get("function") or {}).get("arguments", "{}")
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
