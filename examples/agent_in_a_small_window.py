"""An agent whose tool results are larger than its window: a Session keeps each prompt inside it. Needs no model.

python examples/agent_in_a_small_window.py
"""

from __future__ import annotations

import json

import ctxkit
from ctxkit.testing import ScriptedModel, WhitespaceCounter  # a token is a word, and the model follows a script

READ = {
    "type": "function",
    "function": {
        "name": "read",
        "description": "Read a file.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    },
}


def log() -> str:
    lines = [f"2026-03-01 12:00:{i:02} INFO request {i} served in {3 + i % 9} ms" for i in range(60)]
    lines[17] = "2026-03-01 12:00:17 ERROR pool exhausted: 4 of 4 connections in use"
    return "\n".join(lines)


def code() -> str:
    step = '    def step_{0}(self, request):\n        """Step {0}."""\n        connection = self.take(request)\n'
    return "class Pool:\n" + "\n".join((step + "        return connection.run({0})\n").format(i) for i in range(16))


FILES = {
    "app.log": log(),
    "pool.py": code(),
    "routes.json": json.dumps({"pool": {"size": 4}, "routes": [{"path": f"/r/{i}", "ms": i} for i in range(80)]}),
    "guide.md": "\n".join(f"Rule {i}. Give back what was taken as soon as it was used." for i in range(40)),
}


def asks(tool: str, argument: str, value: str) -> list[dict]:
    """An answer of a model that calls a tool, in OpenAI's form."""
    function = {"name": tool, "arguments": json.dumps({argument: value})}
    return [{"id": f"{tool}-{value}", "type": "function", "function": function}]


SCRIPT = [
    *(asks("read", "path", path) for path in FILES),
    asks("expand", "ref", "m3:15-20"),  # by now the prompt shows only a part of the log
    "The pool has 4 connections, and no step gives its own back.",
]


def results(session: ctxkit.Session, calls: tuple) -> list[dict]:
    """What the tools return. The session answers its own tool, `expand`."""
    read = [call for call in calls if call["function"]["name"] == "read"]
    paths = [json.loads(call["function"]["arguments"])["path"] for call in read]
    told = [
        {"role": "tool", "tool_call_id": call["id"], "content": FILES[path]}
        for call, path in zip(read, paths, strict=True)
    ]
    return told + session.answer_expand(calls)


def main() -> None:
    budget = ctxkit.Budget(window_tokens=1_200, reserve_tokens=60)
    model = ScriptedModel(SCRIPT, counter=WhitespaceCounter(), window_tokens=budget.window_tokens)
    session = ctxkit.Session(budget=budget, counter=model.counter, tools=[READ])
    session.add(
        {"role": "system", "content": "You find faults in services."},
        {"role": "user", "content": "Why does the pool run out of connections?"},
    )
    plan = session.plan()
    while True:
        print(f"{plan.prompt_tokens:,} of {budget.prompt_tokens:,} tokens; {session.cache}")
        reply = model.generate(plan, ctxkit.Sampling(max_tokens=budget.reserve_tokens))
        if not reply.tool_calls:
            break
        session.add(
            {"role": "assistant", "content": None, "tool_calls": list(reply.tool_calls)},
            *results(session, reply.tool_calls),
        )
        plan = session.plan()

    print(f"\n{plan}")
    print("\nanswer:", reply.text)
    print("\nwhat `expand` gave back:", session.messages[-1]["content"], sep="\n")
    print("\nwhy not:", plan.why_not("m3"))
    whole = plan.replan(window_tokens=4_000)
    print("with a window of 4,000:", whole.diff(plan))


if __name__ == "__main__":
    main()
