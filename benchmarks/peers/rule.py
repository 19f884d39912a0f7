"""The rule that everything is judged by: o200k tokens of contents, call names and arguments, 3 a message, 3 in all.

    <python with tiktoken> rule.py LISTS.json COUNTS.json     (TIKTOKEN_CACHE_DIR names the folder of the rank files)

reads a JSON list of message lists and writes their counts. Adapters import it where a peer takes a counter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import tiktoken

PER_MESSAGE = 3
PER_PROMPT = 3
ENCODING = tiktoken.get_encoding("o200k_base")


def tokens(text: str) -> int:
    return len(ENCODING.encode_ordinary(text))


def message_tokens(message: Mapping[str, Any]) -> int:
    calls = message.get("tool_calls") or ()
    names = sum(tokens(call["function"]["name"]) + tokens(call["function"]["arguments"]) for call in calls)
    return PER_MESSAGE + tokens(message.get("content") or "") + names


def prompt_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    return PER_PROMPT + sum(message_tokens(message) for message in messages)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        lists = json.load(file)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump([prompt_tokens(messages) for messages in lists], file)


if __name__ == "__main__":
    main()
