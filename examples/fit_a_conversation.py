"""A conversation with tool calls that does not fit, under a budget with a floor and a cap. Runs without any model.

python examples/fit_a_conversation.py
"""

from __future__ import annotations

import json

import ctxkit
from ctxkit.testing import WhitespaceCounter  # a token is a word; use a LocalModel or TemplateCounter for real counts


def call(call_id: str, river: str) -> dict:
    """A tool call in OpenAI's form."""
    arguments = json.dumps({"river": river})
    return {"id": call_id, "type": "function", "function": {"name": "gauge", "arguments": arguments}}


def readings(river: str, days: int) -> str:
    return "\n".join(f"{river}: day {day}, level {200 + 3 * day} cm, flow {900 + 7 * day} m3/s" for day in range(days))


CONVERSATION = [
    ctxkit.system("You watch rivers. Answer in one sentence."),
    ctxkit.memory("The user lives in Cologne.", id="home", relevance=0.6),
    ctxkit.turn("user", "Hello, can you read gauges for me?", id="hello", relevance=0.1),
    ctxkit.turn("assistant", "Yes, I can read any gauge on the Rhine and on its tributaries.", id="yes", relevance=0.1),
    ctxkit.turn("user", "Read the Moselle first, and then the Rhine at Cologne.", id="ask", relevance=0.7),
    ctxkit.tool_call([call("call-1", "Moselle")], id="moselle", relevance=0.3),
    ctxkit.tool_result("call-1", readings("Moselle", 12), id="moselle-gauge", relevance=0.3),
    ctxkit.tool_call([call("call-2", "Rhine")], id="rhine", relevance=0.9),
    ctxkit.tool_result("call-2", readings("Rhine", 4), id="rhine-gauge", relevance=0.9),
    ctxkit.passage("At 830 cm shipping on the Rhine stops. " * 3, id="rules", title="Rules", relevance=0.8),
    ctxkit.passage("The Rhine rises in the Alps and is 1,230 km long. " * 3, id="facts", title="Facts", relevance=0.5),
    ctxkit.question("Is the Rhine at Cologne rising?"),
]


def main() -> None:
    counter = WhitespaceCounter()
    budget = ctxkit.Budget(
        window_tokens=175,
        reserve_tokens=20,  # kept free for the answer
        floors={"turn": 30},  # turns get 30 tokens before tool results and passages compete
        caps={"passage": 40},  # passages take 40 tokens at most
    )
    plan = ctxkit.fit(CONVERSATION, budget=budget, counter=counter)
    print(plan)
    print("\nwhy rhine-gauge:      ", plan.why("rhine-gauge"))
    print("why not moselle-gauge:", plan.why_not("moselle-gauge"))

    handle = plan.decision("moselle-gauge").handle
    if handle is not None:  # nothing is lost: what was left out can be had back, byte for byte
        print("\nleft out:", handle, "->", plan.expand(handle).splitlines()[0], "...")

    free = ctxkit.fit(CONVERSATION, budget=ctxkit.Budget(window_tokens=175, reserve_tokens=20), counter=counter)
    print("\nwithout floor and cap:", free.diff(plan))

    try:
        ctxkit.fit(CONVERSATION, budget=ctxkit.Budget(window_tokens=20), counter=counter)
    except ctxkit.BudgetInfeasible as error:
        print("\nrefused:", error)


if __name__ == "__main__":
    main()
