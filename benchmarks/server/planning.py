"""The processor time that a server spends on the plan of a request, and on the report of it.

    PYTHONPATH=. python benchmarks/server/planning.py

Conversations of so many messages of 20 words, in a window of 8,192 tokens, counted by the estimator, as of an upstream
whose tokenizer is not known. All of them fit but the longest.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from ctxkit.server.chat_request import ContextOptions
from ctxkit.server.planning import plan_chat, report
from ctxkit.tokens.estimate import EstimatingCounter

_TIMES = 300


def _conversation(messages: int, number: int) -> list[dict[str, str]]:
    roles = ["user" if (messages - at) % 2 else "assistant" for at in range(messages)]
    return [{"role": role, "content": f"word{number % 2000}-{at} " * 20} for at, role in enumerate(roles)]


def _each(model: Any, messages: int, times: int) -> float:
    """Milliseconds of one. Every text is another one, so that no count is remembered."""
    asked = [_conversation(messages, number) for number in range(times)]
    began = time.process_time()
    for one in asked:
        report(plan_chat(model, one, answer_tokens=512, options=ContextOptions()))
    return (time.process_time() - began) / times * 1000


def main() -> None:
    model = SimpleNamespace(window_tokens=8192, counter=EstimatingCounter())
    _each(model, 1, 50)
    for messages in (1, 5, 21, 201):
        print(f"{messages:4} messages  {_each(model, messages, max(_TIMES // messages, 5)):8.2f} ms")


if __name__ == "__main__":
    main()
