"""No library: the system message, the first and last user message, and the newest whole turns that fit beside them.

What a careful afternoon gives. It stands in the tables so that a library can be seen to be worth its installation.
"""

from __future__ import annotations

import harness
import rule


def newest_that_fit(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
    return lambda: trimmed(messages, budget), list


def trimmed(messages: list[harness.Message], budget: int) -> list[harness.Message]:
    units = grouped(messages)
    users = [n for n, unit in enumerate(units) if messages[unit[0]]["role"] == "user"]
    kept = {n for n, unit in enumerate(units) if messages[unit[0]]["role"] == "system"}
    kept |= {users[0], users[-1], len(units) - 1} if users else {len(units) - 1}
    costs = [sum(rule.message_tokens(messages[at]) for at in unit) for unit in units]
    left = budget - rule.PER_PROMPT - sum(costs[n] for n in kept)
    for n in range(len(units) - 1, -1, -1):
        if n not in kept and costs[n] <= left:
            kept.add(n)
            left -= costs[n]
    if left < 0:
        raise harness.Refused(f"{-left} tokens too many")
    return [messages[at] for n in sorted(kept) for at in units[n]]


def grouped(messages: list[harness.Message]) -> list[list[int]]:
    """Places of the messages: a call with the results that follow it, every other message alone."""
    units: list[list[int]] = []
    for at, message in enumerate(messages):
        if message["role"] == "tool" and units:
            units[-1].append(at)
        else:
            units.append([at])
    return units


if __name__ == "__main__":
    harness.main({"baseline": newest_that_fit})
