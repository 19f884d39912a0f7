"""Runs one method of one adapter over a file of cases. Knows no peer, imports nothing but the standard library.

    <python of the peer> <adapter>.py METHOD CASES.json RESULTS.jsonl TIMEOUT_SECONDS

A case is {"id", "messages", "budget"}; a result line is {"id", "ms"} with "messages", "refused" or "error". Only the
peer's call is timed: making its message objects and reading them back is not.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Message = dict[str, Any]
Call = Callable[[], Any]
Back = Callable[[Any], list[Message]]
Method = Callable[[list[Message], int], tuple[Call, Back]]
"""Messages and a budget in tokens -> the call to time, and what turns its result into OpenAI's form."""


class Refused(Exception):
    """The method says that no prompt of that size can be made."""


class TimedOut(BaseException):
    """Not an Exception, so that no peer swallows it."""


def main(methods: Mapping[str, Method]) -> None:
    name, cases_path, results_path, timeout = sys.argv[1:5]
    with open(cases_path, encoding="utf-8") as file:
        cases = json.load(file)
    with open(results_path, "w", encoding="utf-8") as out:
        for result in results(methods[name], cases, float(timeout)):
            out.write(json.dumps(result) + "\n")
            out.flush()


def results(method: Method, cases: Iterable[Mapping[str, Any]], timeout: float) -> Iterator[dict[str, Any]]:
    for _ in range(2):
        outcome(method, warm_up_case(), timeout)
    for case in cases:
        yield {"id": case["id"], **outcome(method, case, timeout)}


def outcome(method: Method, case: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    ms = None
    try:
        call, back = method(case["messages"], case["budget"])
        gc.collect()
        with deadline(timeout):
            started = time.perf_counter()
            made = call()
            ms = (time.perf_counter() - started) * 1000
        return {"ms": ms, "messages": back(made)}
    except TimedOut:
        return {"ms": None, "error": "timeout"}
    except Refused as refusal:
        return {"ms": None, "refused": str(refusal)}
    except Exception as error:  # whatever a peer raises is a result
        return {"ms": ms, "error": f"{type(error).__name__}: {error}"[:300]}


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TimedOut

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def warm_up_case() -> dict[str, Any]:
    function = {"name": "search", "arguments": '{"query": "depots"}'}
    messages = [
        {"role": "system", "content": "You help."},
        {"role": "user", "content": "Which depots are closed? " * 20},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "w", "type": "function", "function": function}]},
        {"role": "tool", "content": "Two of them. " * 40, "tool_call_id": "w"},
        {"role": "assistant", "content": "Two depots are closed. " * 20},
        {"role": "user", "content": "Which?"},
    ]
    return {"id": "warm-up", "messages": messages, "budget": 150}
