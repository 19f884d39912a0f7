"""Agents: tools are used, what goes wrong is told to the model, and no prompt outgrows the window."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits, Run
from ctxkit.context.chat import openai_problems
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, ModelError, PartError, RemoteUnavailable
from ctxkit.models.requests import Request
from ctxkit.session import CachePrices
from ctxkit.testing import ScriptedModel, tiny_counter, tiny_tokenizer
from ctxkit.testing.scripted import Line
from ctxkit.tokens import TemplateCounter
from ctxkit_agents import FunctionTool
from ctxkit_agents.agent import Agent, AgentAnswer
from ctxkit_agents.errors import AnswerMalformed, StepsExhausted, ToolError
from ctxkit_agents.result_search import found_in, results_of
from ctxkit_agents.runtime.events import Tool

WINDOW = 600


def asks(name: str, call_id: str = "c", **arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def agent(replies: Sequence[Line] | Callable[[Request], Line], *tools: Any, **options: Any) -> Agent:
    window = options.pop("window", WINDOW)
    model = ScriptedModel(replies, window_tokens=window)
    return Agent(model, tools or [add], **{"answer_tokens": 40, **options})


def answered(made: Agent, task: str = "What is 2 + 3?") -> AgentAnswer:
    return made.task(task).run().value


def told(made: Agent) -> str:
    """The last thing the model was told."""
    return made.model.prompts[-1].messages[-1].content  # type: ignore[attr-defined]


# --- tools ------------------------------------------------------------------------------------------------------------


def test_a_tool_is_used_and_its_result_answers_the_task() -> None:
    made = agent([[asks("add", a=2, b=3)], "It is 5."], instructions="You add.")
    outcome = made.task("What is 2 + 3?").run()
    answer = outcome.value
    assert (outcome.text, answer.steps, told(made)) == ("It is 5.", 2, "5")
    assert [(use.call.name, use.result, use.failed) for use in answer.tool_uses] == [("add", "5", False)]
    assert [message["role"] for message in answer.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert not openai_problems(answer.messages, prefill=True)
    assert [event.type for event in outcome.trace] == ["started", "message", "tool", "message", "finished"]
    assert answer.plan.prompt_tokens == outcome.trace.messages[-1].tokens_in


def test_parallel_calls_are_made_together_and_answered_in_order() -> None:
    both = threading.Barrier(2, timeout=10)  # passed only by two at once

    def meet(whom: str) -> str:
        both.wait()
        return f"met {whom}"

    made = agent([[asks("meet", "x", whom="Ana"), asks("meet", "y", whom="Ben")], "Done."], meet)
    answer = answered(made)
    assert [use.result for use in answer.tool_uses] == ["met Ana", "met Ben"]
    assert [message.get("tool_call_id") for message in answer.messages[2:4]] == ["x", "y"]


def test_calls_without_ids_or_with_the_same_get_their_own() -> None:
    calls = [asks("add", "same", a=1, b=1), asks("add", "same", a=2, b=2), {"function": {"name": "add"}}]
    answer = answered(agent([calls, "Done."]))
    assert len({use.call.id for use in answer.tool_uses}) == 3
    assert [use.failed for use in answer.tool_uses] == [False, False, True]
    assert not openai_problems(answer.messages, prefill=True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (asks("subtract", a=2, b=3), "there is no tool 'subtract'. The tools are: add, find_in_results."),
        ({"id": "c", "function": {"name": "add", "arguments": '{"a": 2, '}}, "not JSON"),
        ({"id": "c", "function": {"name": "add", "arguments": "[2, 3]"}}, "must be a JSON object"),
        (asks("add", a=2), "b: Field required"),
        (asks("add", a=2, b="many"), "b: "),
        ({"id": "c", "function": None}, "there is no tool ''"),
        (asks("expand", ref="m9"), "nothing was left out"),
    ],
)
def test_a_wrong_call_is_told_to_the_model(call: dict[str, Any], said: str) -> None:
    made = agent([[call], "I see."])
    answer = answered(made)
    assert answer.text == "I see." and answer.tool_uses[0].failed
    assert told(made).startswith("Error: ") and said in told(made)


def test_a_tool_that_fails_hangs_or_exits_is_told_to_the_model() -> None:
    released = threading.Event()

    def breaks() -> str:
        raise KeyError("colour")

    def hangs() -> None:
        released.wait(10)

    def leaves() -> None:
        raise SystemExit(3)

    tools = [breaks, FunctionTool(hangs, timeout_seconds=0.02), leaves]
    outcome = agent([[asks(name, name) for name in ("breaks", "hangs", "leaves")], "I see."], *tools).task("Go.").run()
    released.set()
    results = [use.result for use in outcome.value.tool_uses]
    assert "KeyError" in results[0] and "within 0.02 seconds" in results[1] and "SystemExit" in results[2]
    assert all(event.failed for event in outcome.trace if isinstance(event, Tool))


def test_more_calls_at_once_than_allowed_are_refused() -> None:
    made = agent([[asks("add", str(n), a=n, b=n) for n in range(3)], "Done."], calls_per_step=2)
    assert [use.failed for use in answered(made).tool_uses] == [False, False, True]
    assert "an answer may have 2 calls" in told(made)


def test_a_conversation_can_go_on() -> None:
    before = [
        {"role": "system", "content": "You add."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And one more?"},
    ]
    made = agent(["3"], instructions="Be brief.")
    answer = made.task(before).run().value
    assert answer.messages[0]["content"] == "Be brief.\n\nYou add." and len(answer.messages) == 5
    assert told(made) == "And one more?"


# --- what models do wrong ---------------------------------------------------------------------------------------------


def test_an_empty_answer_is_pointed_out_once() -> None:
    made = agent([" ", "It is 5."])
    assert answered(made).text == "It is 5." and told(made).startswith("Your answer was empty.")
    with pytest.raises(AnswerMalformed, match="empty"):
        answered(agent(["", ""]))


def test_the_task_stays_pinned_when_the_model_was_reminded() -> None:
    lines = "\n".join(f"line {n} of a long result" for n in range(50))
    steps: list[Line] = ["", *([asks("read", n=n)] for n in range(4)), "Done."]
    made = agent(steps, FunctionTool(lambda n: f"{n}\n{lines}", name="read"))
    answered(made, "The task that must not go.")
    assert any(m.content == "The task that must not go." for m in made.model.prompts[-1].messages)  # type: ignore[attr-defined]


def test_a_model_that_repeats_itself_is_told_and_then_asked_for_an_answer() -> None:
    calls: list[Line] = [[asks("add", a=2, b=3)]] * 4
    made = agent([*calls, "It is 5, as ever."], stop_after_same_calls=3)
    outcome = made.task("Go on.").run()
    assert outcome.text == "It is 5, as ever." and outcome.value.steps == 5
    assert [("3 times" in use.result) for use in outcome.value.tool_uses] == [False, False, True, False]
    assert any("'add' brought the same 4 times" in what for what in outcome.degraded)
    with pytest.raises(StepsExhausted, match="the same 4 times"):
        answered(agent(calls, stop_after_same_calls=3, on_exhausted="raise"))


def test_a_tool_that_brings_something_new_each_time_may_be_polled() -> None:
    seen = iter(range(100))
    poll = FunctionTool(lambda: next(seen), name="poll")
    made = agent([*([[asks("poll")]] * 6), "Ready."], poll, stop_after_same_calls=3)
    assert answered(made).text == "Ready."


def test_at_the_limit_of_steps_it_is_asked_for_an_answer_without_tools() -> None:
    endless = iter(range(1000))

    def model(request: Request) -> Line:
        asked = request.messages[-1].content.startswith("Use no more tools")
        return "Enough." if asked else [asks("add", a=next(endless), b=1)]

    made = agent(model, max_steps=4)
    outcome = made.task("Count.").run()
    assert outcome.text == "Enough." and outcome.value.steps == 5 and "4 steps" in outcome.degraded[0]
    with pytest.raises(StepsExhausted, match="4 steps brought no answer"):
        answered(agent(model, max_steps=4, on_exhausted="raise"))


def test_a_model_that_never_stops_calling_has_no_answer() -> None:
    endless = iter(range(1000))
    made = agent(lambda _: [asks("add", a=next(endless), b=1)], max_steps=3)
    with pytest.raises(StepsExhausted, match="gave none"):
        answered(made)
    assert len(made.model.prompts) == 4  # type: ignore[attr-defined]


def test_an_answer_that_was_cut_off_is_given_with_a_word() -> None:
    outcome = agent(["one two three four"], answer_tokens=3).task("Count.").run()
    assert outcome.text.split() == ["one", "two", "three"] and "cut off" in outcome.degraded[0]


def test_a_model_that_is_down_for_a_moment_is_asked_again() -> None:
    answer = answered(agent([RemoteUnavailable("down"), RemoteUnavailable("down"), "Up."], retries=2))
    assert (answer.text, answer.steps) == ("Up.", 1)
    with pytest.raises(RemoteUnavailable):
        answered(agent([RemoteUnavailable("down"), "Up."], retries=0))
    with pytest.raises(ModelError, match="broken"):
        answered(agent([[asks("add", a=1, b=1)], ModelError("broken"), "never"], retries=5))


# --- windows and budgets ----------------------------------------------------------------------------------------------


def logs(step: int, lines: int = 25) -> str:
    return "\n".join(f"12:{step:02}:{n:02} INFO request {step * 100 + n} took {n % 7} ms" for n in range(lines))


def reader(steps: int, final: Line = "Done.") -> Callable[[Request], Line]:
    """A model that reads one file after the other."""
    at = iter(range(steps))

    def model(_: Request) -> Line:
        n = next(at, None)
        return final if n is None else [asks("read", f"c{n}", n=n)]

    return model


def read_tool(lines: int = 25) -> FunctionTool:
    return FunctionTool(lambda n: logs(n, lines), name="read", description="Reads a log.")


def test_results_larger_than_the_window_are_seen_in_part_and_given_back_whole() -> None:
    whole = logs(1, 300)
    seen: list[str] = []

    def model(request: Request) -> Line:
        seen.append(request.messages[-1].content)
        return [[asks("read", n=1)], [asks("expand", ref="m2:7-9")], "Done."][len(seen) - 1]

    model_with_room = ScriptedModel(model, window_tokens=WINDOW)
    made = Agent(model_with_room, [FunctionTool(lambda n: whole, name="read")], answer_tokens=40)
    answer = answered(made, "Read it.")
    assert answer.tool_uses[0].result == whole, "nothing is cut from what is kept"
    assert len(seen[1]) < len(whole) / 3 and 'expand("m2' in seen[1]
    assert seen[2] == "\n".join(whole.split("\n")[6:9])


@pytest.mark.parametrize("protocol", ["tools", "json"])
def test_many_steps_stay_in_the_window_and_every_result_stays_named(protocol: str) -> None:
    script = reader(10)

    def model(request: Request) -> Line:
        line = script(request)
        if protocol == "tools" or isinstance(line, str):
            return json.dumps({"answer": line}) if protocol == "json" else line
        call = line[0]["function"]  # type: ignore[index, call-overload]
        return json.dumps({"tool": call["name"], "arguments": json.loads(call["arguments"])})

    made = agent(model, read_tool(60), protocol=protocol, window=1000)
    outcome = made.task("Read them all.").run()
    answer = outcome.value
    assert answer.text == "Done." and answer.steps == 11 and not outcome.degraded
    assert all(event.tokens_in + 40 <= 1000 for event in outcome.trace.messages)
    last = "\n".join(message.content for message in made.model.prompts[-1].messages)  # type: ignore[attr-defined]
    assert all(f'expand("m{n}' in last for n in range(2, 22) if answer.messages[n]["role"] == "tool")
    assert answer.reused_tokens > answer.prefill_tokens
    assert answer.weighted_tokens(CachePrices()) < sum(event.tokens_in for event in outcome.trace.messages)


def test_a_line_of_any_result_is_found_again_without_expanding_it() -> None:
    def model(request: Request) -> Line:
        step = len(made.model.prompts)  # type: ignore[attr-defined]
        return (
            [asks("read", f"c{step}", n=step)]
            if step < 9
            else [asks("find_in_results", text="REQUEST 117 ")]
            if (step == 9)
            else "Done."
        )

    made = agent(model, read_tool(), window=500)
    answer = answered(made, "Read them all.")
    assert answer.tool_uses[-1].result == "m2:18-18 12:01:17 INFO request 117 took 3 ms"
    shown = [message.tool_call_id for message in answer.plan.messages if message.role == "tool"]
    assert "c9" not in shown[:1], "its file is not in sight any more"


def test_where_there_is_no_room_to_name_all_results_the_run_says_so() -> None:
    made = agent(reader(8), read_tool(), window=260)
    outcome = made.task("Read them all.").run()
    assert outcome.text == "Done." and all(event.tokens_in + 40 <= 260 for event in outcome.trace.messages)
    assert any("oldest results" in what for what in outcome.degraded)


def test_a_window_too_small_for_the_task_is_infeasible_before_anything_is_asked() -> None:
    made = agent(["never"], window=100)
    with pytest.raises(BudgetInfeasible) as refusal:
        answered(made, "word " * 200)
    assert refusal.value.minimum > 100 and not made.model.prompts  # type: ignore[attr-defined]


def test_a_run_that_cannot_pay_on_is_overdrawn_and_goes_on_with_more(tmp_path: Any) -> None:
    file = tmp_path / "run.db"
    task = agent(reader(8), read_tool()).task("Read them all.")
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(tokens=1500), checkpoint=file)
    spent = task.trace[-1].spent
    assert 0 < spent.tokens <= 1500
    at = spent.calls

    def model(_: Request) -> Line:
        nonlocal at
        at += 1
        return "Done." if at > 8 else [asks("read", f"c{at - 1}", n=at - 1)]

    outcome = agent(model, read_tool()).task("Read them all.").run(paid_by=Limits(tokens=50_000), checkpoint=file)
    assert outcome.text == "Done." and outcome.paid.calls == 9 - spent.calls
    assert [use.replayed for use in outcome.value.tool_uses][: spent.calls] == [True] * spent.calls


@pytest.mark.parametrize("limits", [Limits(tokens=1700), Limits(calls=4), Limits(tokens_in=1500)])
def test_a_run_that_degrades_answers_while_it_can_pay(limits: Limits) -> None:
    endless = iter(range(1000))

    def model(request: Request) -> Line:
        asked = request.messages[-1].content.startswith("Use no more tools")
        return "That is all I know." if asked else [asks("read", n=next(endless))]

    run = Run(limits, overdraft="degrade")
    outcome = agent(model, read_tool()).task("Read them all.").run(paid_by=run)
    assert outcome.text == "That is all I know." and "pays for one more answer" in outcome.degraded[0]
    for meter in ("tokens", "tokens_in", "tokens_out", "calls"):
        limit = getattr(limits, meter)
        assert limit is None or getattr(run.spent, meter) <= limit


@given(st.data())
@settings(max_examples=6)
def test_no_prompt_outgrows_the_window_and_rounds_stay_whole(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    texts = data.draw(st.lists(st.text(max_size=300), min_size=1, max_size=3))
    made_texts = ["", "x" * 900, json.dumps([{"id": n, "name": f"n{n}"} for n in range(30)]), logs(1), *texts]
    window = data.draw(st.sampled_from([1200, 2500]))
    left = iter(range(data.draw(st.integers(1, 4))))

    def model(request: Request) -> Line:
        messages = [message.to_dict() for message in request.messages]
        assert not openai_problems(messages), messages
        if next(left, None) is None:
            return "Done."
        return [asks("get", f"c{n}", n=rng.randrange(len(made_texts))) for n in range(rng.randint(1, 3))]

    get = FunctionTool(lambda n: made_texts[n], name="get")
    scripted = ScriptedModel(model, window_tokens=window, counter=tiny_counter())  # it refuses what does not fit
    answer = Agent(scripted, [get], answer_tokens=60, stop_after_same_calls=None).task("Get them.").run().value
    assert answer.text == "Done."
    assert [m["content"] for m in answer.messages if m["role"] == "tool"] == [use.result for use in answer.tool_uses]


def test_searching_results_names_lines_counts_the_rest_and_shortens_long_ones() -> None:
    long = {"m3": "x" * 1000 + " Needle " + "y" * 1000, "m5": "\n".join(f"needle {n}" for n in range(30))}
    lines = found_in(long, "needle").split("\n")
    assert len(lines) == 21 and lines[0].startswith("m3:1-1 …xxx") and len(lines[0]) < 400
    assert lines[1] == "m5:1-1 needle 0" and lines[-1].startswith("and 11 more lines")
    assert found_in(long, "thread") == "No line of the 2 results has 'thread'."
    with pytest.raises(ToolError, match="empty"):
        found_in(long, " ")


def test_what_was_only_given_back_is_no_result() -> None:
    rounds = [("read", "one"), ("expand", "one"), ("find_in_results", "m0:1-1 one")]
    messages: list[dict[str, Any]] = []
    for place, (name, text) in enumerate(rounds):
        messages.append({"role": "assistant", "tool_calls": [asks(name, str(place))]})
        messages.append({"role": "tool", "tool_call_id": str(place), "content": text})
    assert results_of(messages) == {"m1": "one"}


# --- JSON instead of tool calls ---------------------------------------------------------------------------------------


def test_a_model_without_tool_calls_uses_json() -> None:
    made = agent(['{"tool": "add", "arguments": {"a": 2, "b": 3}}', 'Sure: {"answer": "5"}'], protocol="json")
    answer = answered(made)
    assert answer.text == "5" and answer.tool_uses[0].result == "5"
    first, last = made.model.prompts  # type: ignore[attr-defined]
    assert first.messages[0].role == "system" and '"name": "add"' in first.messages[0].content and not first.tools
    assert [message.role for message in last.messages] == ["system", "user", "assistant", "user"]
    assert last.messages[-1].content == "Result of add:\n5"


def test_several_json_calls_are_one_step() -> None:
    calls = json.dumps([{"tool": "add", "arguments": {"a": n, "b": 1}} for n in (1, 2)])
    made = agent([calls, '{"answer": 7}'], protocol="json")
    answer = answered(made)
    assert [use.result for use in answer.tool_uses] == ["2", "3"] and answer.text == "7"
    assert [message.role for message in made.model.prompts[-1].messages][-2:] == ["assistant", "user"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("wrong", ["It is 5.", "", "{broken", '{"other": 1}', '{"answer": ""}', "[1, 2]"])
def test_an_answer_that_is_not_the_json_asked_for_is_pointed_out_once(wrong: str) -> None:
    assert answered(agent([wrong, '{"answer": "5"}'], protocol="json")).text == "5"
    with pytest.raises(AnswerMalformed) as refusal:
        answered(agent([wrong, wrong], protocol="json"))
    assert refusal.value.answer.strip() == wrong


def test_a_chat_template_that_shows_no_tools_is_told() -> None:
    blind = TemplateCounter(tiny_tokenizer())  # its template writes the messages alone
    for protocol in ("tools", "json"):
        model = ScriptedModel(['{"answer": "5"}'], counter=blind, window_tokens=4000)
        outcome = Agent(model, [add], protocol=protocol).task("What is 2 + 3?").run()  # type: ignore[arg-type]
        assert ["shows no tools" in what for what in outcome.degraded] == [True] * (protocol == "tools")


# --- agents that use agents -------------------------------------------------------------------------------------------


def asker(question: str, *, return_tokens: int = 100, replies: Sequence[Line] = ("The sub-agent knows.",)) -> Agent:
    helper = agent(replies).as_tool("ask_helper", "Asks a helper.", return_tokens=return_tokens)
    return agent([[asks("ask_helper", question=question)], "I asked."], helper)


def test_an_agent_can_be_a_tool_of_another_with_its_own_account() -> None:
    outcome = asker("Where?").task("Ask.").run(paid_by=Limits(tokens=5000, depth=1))
    assert outcome.value.tool_uses[0].result == "The sub-agent knows."
    (child,) = outcome.report.children
    assert child.spent.calls == 1 and outcome.spent.calls == 3 and child.closed
    (root,) = outcome.trace.roots
    assert [node.method for node in root.walk()] == ["Agent", "Agent"]


def test_agents_below_the_limit_of_depth_are_refused_and_the_model_told() -> None:
    outcome = asker("Where?").task("Ask.").run(paid_by=Limits(depth=0))
    assert outcome.value.tool_uses[0].failed and "`depth`" in outcome.value.tool_uses[0].result
    assert outcome.text == "I asked."


def test_what_a_sub_agent_returns_is_capped() -> None:
    long = " ".join(f"Sentence {n} says something about harbours." for n in range(12))
    made = asker("Which harbour?", return_tokens=20, replies=[long])
    made = Agent(made.model, [agent([long], answer_tokens=200).as_tool("ask_helper", "Asks.", return_tokens=20)])
    outcome = Agent(made.model, made.tools, answer_tokens=40).task("Ask.").run()
    assert 0 < len(outcome.value.tool_uses[0].result.split()) <= 20
    assert any("reduced to 20" in what for what in outcome.degraded)


def test_a_sub_agent_that_fails_is_told_to_the_model() -> None:
    outcome = asker("Where?", replies=["", ""]).task("Ask.").run()
    assert "AnswerMalformed" in outcome.value.tool_uses[0].result and outcome.text == "I asked."


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_steps": 0},
        {"answer_tokens": 0},
        {"answer_tokens": WINDOW},
        {"window_tokens": 0},
        {"result_tokens": 0},
        {"parallel_calls": 0},
        {"calls_per_step": 0},
        {"stop_after_same_calls": 0},
        {"retries": -1},
        {"target": 0.0},
        {"on_exhausted": "shrug"},
        {"protocol": "xml"},
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        agent(["x"], **wrong)


def test_a_tool_called_expand_and_a_task_without_a_user_are_refused() -> None:
    for name in ("expand", "find_in_results"):
        with pytest.raises(ValueError, match=name):
            agent(["x"], FunctionTool(add, name=name))
    with pytest.raises(ValueError, match="return_tokens"):
        agent(["x"]).as_tool("a", "b", return_tokens=0)
    with pytest.raises(ValueError, match="none of the user"):
        agent(["x"]).task([{"role": "system", "content": "You add."}])
    with pytest.raises(PartError):
        agent(["x"]).task([{"role": "stranger", "content": "Hi."}])
