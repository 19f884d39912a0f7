"""Messages as OpenAI writes them, and texts to fill them with."""

from __future__ import annotations

import json
import random
from typing import Any

Message = dict[str, Any]

_WORDS = "the error file path value of row 17 id-4 window data cat ran.".split()


def words(n: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(rng.choice(_WORDS) for _ in range(n))


def lined(n: int, seed: int = 0) -> str:
    """As `words`, some of which end a line."""
    return words(n, seed).replace("ran.", "ran.\n")


def system(text: str = "You help.") -> Message:
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def calls(*named: tuple[str, str], tool: str = "read") -> Message:
    """named: (id, arguments) of each call."""
    made = [{"id": i, "type": "function", "function": {"name": tool, "arguments": text}} for i, text in named]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(call_id: str, text: Any) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def tool_round(call_id: str, text: str, arguments: str = "{}") -> list[Message]:
    return [calls((call_id, arguments)), result(call_id, text)]


def file_round(call_id: str, text: str) -> list[Message]:
    """A round that reads a file named after the call."""
    return tool_round(call_id, text, json.dumps({"path": f"{call_id}.py"}))
