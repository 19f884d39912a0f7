"""An agent with two tools, one of which is another agent. A small model may answer without using them.

python examples/agents/tool_agent.py
"""

from __future__ import annotations

from typing import Any

from ctxkit.context import Limits
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit_agents import Outcome
from ctxkit_agents.agent import Agent

STOCK = {"lamps": 14, "desks": 3, "chairs": 0}


def count(item: str) -> str:
    """Says how many of an item are in stock.

    item: lamps, desks or chairs.
    """
    if item not in STOCK:
        raise KeyError(f"no such item; there are {', '.join(STOCK)}")
    return f"{STOCK[item]} {item}"


def main(model: Model) -> Outcome[Any]:
    translator = Agent(model, instructions="You translate into French.", answer_tokens=24, name="translator")
    agent = Agent(
        model,
        [count, translator.as_tool("translate", "Translates a sentence into French.", return_tokens=40)],
        instructions="You work in a shop. Use your tools, then answer in one sentence.",
        answer_tokens=32,
        max_steps=4,
        window_tokens=1024,
    )
    outcome = agent.task("How many desks are there?").run(paid_by=Limits(tokens=20_000, depth=1))
    print(outcome.text)
    print(outcome.trace)
    for use in outcome.value.tool_uses:
        print(f"{use.call.name}({use.call.arguments}) -> {use.result}")
    print(outcome.value.cache[-1])
    return outcome


if __name__ == "__main__":
    main(LocalModel.load())
