"""An agent that dies at any of its steps goes on where it was: nothing is paid twice, nothing is done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxkit.errors import ModelError
from ctxkit.models.requests import Request
from ctxkit.session import MemoryOriginals, SqliteOriginals
from ctxkit.testing import ScriptedModel
from ctxkit_agents import FunctionTool
from ctxkit_agents.agent import Agent, AgentAnswer
from ctxkit_agents.runtime.task import Outcome

STEPS = 50


class Died(BaseException):
    """The process is gone; nothing catches this."""


class World:
    """What outlives a process: which steps the model was paid for, and what the tool did. die: where it ends next."""

    def __init__(self, steps: int = STEPS, lines: int = 1, window: int = 4000) -> None:
        self.steps, self.lines, self.window = steps, lines, window
        self.paid: list[int] = []
        self.done: list[int] = []
        self.die: tuple[str, int] | None = None

    def dies(self, where: str, step: int) -> None:
        if self.die == (where, step):
            self.die = None
            raise Died(f"{where} {step}")

    def answer(self, request: Request) -> str | list[dict[str, Any]]:
        """Counts up: the next number is one more than the last result in the prompt."""
        step = sum(message.role == "tool" for message in request.messages) + 1
        self.dies("model", step)
        self.paid.append(step)
        if step == self.steps:
            return "All done."
        call = {"name": "write", "arguments": json.dumps({"n": step})}
        return [{"id": f"c{step}", "type": "function", "function": call}]

    def write(self, n: int) -> str:
        self.dies("tool", n)
        self.done.append(n)
        self.dies("after tool", n)
        return "\n".join(f"wrote {n}, line {line}" for line in range(self.lines))

    def run(self, file: Path, *, repeatable: bool = True, **options: Any) -> Outcome[AgentAnswer]:
        """By new objects, as a new process has them."""
        tool = FunctionTool(self.write, name="write", description="Writes.", repeatable=repeatable)
        agent = Agent(ScriptedModel(self.answer, window_tokens=self.window), [tool], answer_tokens=20, **options)
        return agent.task("Write the numbers.").run(checkpoint=file)


def test_a_run_that_dies_at_each_of_fifty_steps_pays_for_each_once(tmp_path: Path) -> None:
    world, file = World(), tmp_path / "run.db"
    for step in range(1, STEPS + 1):
        where = "tool" if step % 2 else "model"
        world.die = (where, step)
        with pytest.raises(Died, match=f"{where} {step}"):
            world.run(file, search_results=False)
    outcome = world.run(file, search_results=False)
    assert world.paid == list(range(1, STEPS + 1)) and world.done == list(range(1, STEPS))
    assert outcome.text == "All done." and outcome.value.steps == STEPS
    assert (outcome.spent.calls, outcome.paid.calls) == (STEPS, 1)


def test_a_resumed_run_says_what_an_undisturbed_one_says(tmp_path: Path) -> None:
    undisturbed = World(9, lines=50, window=700).run(tmp_path / "whole.db")
    assert undisturbed.value.cache[-1].compactions > 0
    world = World(9, lines=50, window=700)
    for place in (("model", 4), ("tool", 7)):
        world.die = place
        with pytest.raises(Died):
            world.run(tmp_path / "run.db")
    resumed = world.run(tmp_path / "run.db")
    assert resumed.value.messages == undisturbed.value.messages
    assert resumed.value.cache == undisturbed.value.cache and resumed.spent == undisturbed.spent


def test_a_tool_that_must_not_run_twice_does_not_and_the_model_is_told(tmp_path: Path) -> None:
    world, file = World(9), tmp_path / "run.db"
    world.die = ("after tool", 7)
    with pytest.raises(Died):
        world.run(file, repeatable=False)
    for _ in range(2):  # also when it is resumed once more
        outcome = world.run(file, repeatable=False)
        use = outcome.value.tool_uses[6]
        assert use.failed and "Whether it took effect is not known" in use.result
    assert world.done == list(range(1, 9)) and world.paid == list(range(1, 10))


def test_a_tool_that_may_run_twice_does_where_it_is_not_known_to_have_ended(tmp_path: Path) -> None:
    world = World(9)
    world.die = ("after tool", 3)
    with pytest.raises(Died):
        world.run(tmp_path / "run.db")
    outcome = world.run(tmp_path / "run.db")
    assert world.done[:4] == [1, 2, 3, 3] and not any(use.failed for use in outcome.value.tool_uses)


PROCESS = """
import json, os, sys
from pathlib import Path
from ctxkit.testing import ScriptedModel
from ctxkit_agents import FunctionTool
from ctxkit_agents.agent import Agent

folder, where, at, repeatable = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4] == "repeatable"

def note(name, step):
    with open(folder / name, "a") as file:
        file.write(f"{step}\\n")

def dies(here, step):
    if (where, at) == (here, step):
        os._exit(9)  # as a kill: nothing is closed, nothing is flushed

def answer(request):
    step = sum(message.role == "tool" for message in request.messages) + 1
    dies("model", step)
    note("paid", step)
    if step == 8:
        return "All done."
    call = {"name": "write", "arguments": json.dumps({"n": step})}
    return [{"id": f"c{step}", "type": "function", "function": call}]

def write(n: int) -> str:
    dies("tool", n)
    note("done", n)
    dies("after tool", n)
    return f"wrote {n}\\n" + "\\n".join(f"line {line} of {n}" for line in range(200))

tool = FunctionTool(write, repeatable=repeatable)
agent = Agent(ScriptedModel(answer, window_tokens=1200), [tool], answer_tokens=20)
outcome = agent.task("Write the numbers.").run(checkpoint=folder / "run.db")
print(outcome.text, outcome.paid.calls, sum("not known" in use.result for use in outcome.value.tool_uses))
"""


def process(folder: Path, where: str = "", at: int = 0, *, repeatable: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROCESS, str(folder), where, str(at), "repeatable" if repeatable else "once"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def test_a_killed_process_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    assert process(tmp_path, "model", 3).returncode == 9
    assert process(tmp_path, "after tool", 7).returncode == 9
    last = process(tmp_path, repeatable=False)
    assert last.stdout.split() == ["All", "done.", "1", "1"], last.stderr
    assert (tmp_path / "paid").read_text().split() == [str(n) for n in range(1, 9)]
    assert (tmp_path / "done").read_text().split() == [str(n) for n in range(1, 8)]


def test_a_call_that_failed_and_was_retried_is_one_step(tmp_path: Path) -> None:
    from ctxkit.errors import RemoteUnavailable

    def agent(*replies: Any) -> Agent:
        return Agent(ScriptedModel(list(replies)), [FunctionTool(lambda: "ok", name="look")], answer_tokens=20)

    look = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    with pytest.raises(ModelError, match="broken"):
        agent(RemoteUnavailable("down"), look, ModelError("broken")).task("Look.").run(checkpoint=tmp_path / "run.db")
    outcome = agent("Seen.").task("Look.").run(checkpoint=tmp_path / "run.db")
    assert (outcome.text, outcome.paid.calls, outcome.value.steps) == ("Seen.", 1, 2)


def test_sub_agents_are_not_paid_again_whether_they_answered_or_failed(tmp_path: Path) -> None:
    def agent(helper: list[Any], *replies: Any) -> Agent:
        inner = Agent(ScriptedModel(helper, name="helper"), answer_tokens=20)
        return Agent(ScriptedModel(list(replies)), [inner.as_tool("ask", "Asks a helper.")], answer_tokens=20)

    def ask(n: int) -> list[dict[str, Any]]:
        arguments = json.dumps({"question": f"{n}?"})
        return [{"id": f"c{n}", "type": "function", "function": {"name": "ask", "arguments": arguments}}]

    file = tmp_path / "run.db"
    task = agent(["It is so.", "", ""], ask(1), ask(2), ModelError("broken")).task("Ask.")
    with pytest.raises(ModelError, match="broken"):
        task.run(checkpoint=file)
    before = task.trace[-1].spent
    outcome = agent([], "I know.").task("Ask.").run(checkpoint=file)
    assert [(use.failed, use.replayed) for use in outcome.value.tool_uses] == [(False, True), (True, True)]
    assert outcome.paid.calls == 1 and outcome.spent.calls == before.calls + 1 == 6


def test_originals_of_a_resumed_run_are_found_in_a_new_memory_and_in_the_same_file(tmp_path: Path) -> None:
    whole = "\n".join(f"line {n} of a long file" for n in range(400))

    def agent(store: Any, *replies: Any) -> Agent:
        read = FunctionTool(lambda: whole, name="read")
        return Agent(ScriptedModel(list(replies), window_tokens=1500), [read], answer_tokens=20, store=store)

    def call(name: str, **arguments: Any) -> list[dict[str, Any]]:
        return [{"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}]

    for name in ("memory", "file"):
        for last in (ModelError("broken"), None):
            store = MemoryOriginals() if name == "memory" else SqliteOriginals(tmp_path / "originals.db")
            replies = [call("read"), last] if last else [call("expand", ref="m2:6-7"), "Seen."]
            task = agent(store, *replies).task("Read.")
            if last:
                with pytest.raises(ModelError):
                    task.run(checkpoint=tmp_path / f"{name}.db")
            else:
                uses = task.run(checkpoint=tmp_path / f"{name}.db").value.tool_uses
                assert uses[1].result == "line 5 of a long file\nline 6 of a long file"
            if isinstance(store, SqliteOriginals):
                store.close()
