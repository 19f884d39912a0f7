"""What every method runs on: payment, events, cancellation, the checkpoint."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ctxkit.context import Limits, Run, passage, question
from ctxkit.errors import BudgetOverdrawn, ModelError
from ctxkit.protocols import Reply, Sampling
from ctxkit.testing import ScriptedModel
from ctxkit_agents import Checkpoint, Degraded, Finished, Job, Message, Started, Task, Tokens
from ctxkit_agents.errors import CallTimeout, CheckpointError, CheckpointLocked, CheckpointMismatch


def asking(model: ScriptedModel, *prompts: str, max_tokens: int = 20) -> Task[list[str]]:
    """A task that asks one prompt after the other."""

    async def work(job: Job) -> list[str]:
        return [(await job.ask(model, prompt, Sampling(max_tokens=max_tokens))).text for prompt in prompts]

    return Task("asking", work)


def test_an_outcome_has_the_value_the_cost_and_the_trace() -> None:
    outcome = asking(ScriptedModel(["one", "two words"]), "first", "second").run()
    assert outcome.value == ["one", "two words"]
    assert outcome.spent.calls == 2 and outcome.spent.tokens_out == 3
    assert outcome.paid == outcome.spent and outcome.degraded == ()
    assert [event.type for event in outcome.trace] == ["started", "message", "message", "finished"]
    assert json.loads(outcome.trace.to_json())[1]["text"] == "one"
    assert "two words" in str(outcome.trace) and "<details" in outcome._repr_html_()


def test_a_run_that_cannot_pay_refuses_the_call_before_it_is_made() -> None:
    model = ScriptedModel(["one", "two"])
    task = asking(model, "first", "second")
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(calls=1))
    assert len(model.prompts) == 1
    end = task.trace[-1]
    assert isinstance(end, Finished) and end.error.startswith("BudgetOverdrawn") and "FAILED" in str(task.trace)


def test_a_run_that_degrades_gives_a_shorter_answer_and_says_so() -> None:
    model = ScriptedModel(["one two three four five six"])
    run = Run(Limits(tokens=len("a b c".split()) + 8), overdraft="degrade")
    outcome = asking(model, "a b c", max_tokens=50).run(paid_by=run)
    assert outcome.spent.tokens <= 11
    assert any(isinstance(event, Degraded) for event in outcome.trace) and outcome.degraded


def test_children_are_paid_from_their_parent_and_stand_below_it_in_the_trace() -> None:
    model = ScriptedModel(lambda request: request.messages[-1].content.upper())

    async def work(job: Job) -> list[list[str]]:
        return await job.all([job.spawn(asking(model, f"say {n}"), name=f"worker-{n}") for n in range(3)])

    outcome = Task("parent", work).run(paid_by=Limits(tokens=1000))
    assert outcome.value == [["SAY 0"], ["SAY 1"], ["SAY 2"]]
    (root,) = outcome.trace.roots
    assert sorted(child.name for child in root.children) == ["worker-0", "worker-1", "worker-2"]
    assert outcome.report.spent.calls == 3 and not outcome.report.own_spent.calls
    assert all(child.closed for child in outcome.report.children)


def test_the_first_failure_of_several_cancels_the_others() -> None:
    started = []

    async def slow(job: Job) -> None:
        started.append(job.path)
        await asyncio.sleep(30)

    async def failing(job: Job) -> None:
        await asyncio.sleep(0)
        raise ModelError("no")

    async def work(job: Job) -> None:
        await job.all([job.spawn(Task("slow", slow)), job.spawn(Task("failing", failing))])

    task = Task("parent", work)
    with pytest.raises(ModelError, match="no"):
        task.run()
    ends = {event.path: event.error for event in task.trace if isinstance(event, Finished)}
    assert started and ends["parent/slow"] == "CancelledError"


def test_events_stream_with_tokens_and_end_with_the_outcome() -> None:
    with asking(ScriptedModel(["one two three"]), "first").stream(tokens=True) as stream:
        events = list(stream)
    assert "".join(event.text for event in events if isinstance(event, Tokens)) == "one two three"
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert stream.outcome.value == ["one two three"]


def test_async_and_sync_faces_give_the_same() -> None:
    async def both() -> tuple[object, object]:
        outcome = await asking(ScriptedModel(["x"]), "first").arun()
        inside_a_loop = asking(ScriptedModel(["x"]), "first").run()
        return outcome.value, inside_a_loop.value

    async def streamed() -> list[object]:
        return [one async for one in asking(ScriptedModel(["x"]), "first").astream()]

    assert asyncio.run(both()) == (["x"], ["x"])
    *events, outcome = asyncio.run(streamed())
    assert [type(event) for event in events] == [Started, Message, Finished]
    assert outcome.value == ["x"]  # type: ignore[attr-defined]


def test_closing_a_stream_cancels_the_run_and_pays_for_what_was_said() -> None:
    going, run = threading.Event(), Run(Limits(tokens=1000))

    class Endless(ScriptedModel):
        """Says a word, then waits until the test goes on."""

    model = Endless(["word " * 400], window_tokens=1000)
    stream = asking(model, "first", max_tokens=500).stream(paid_by=run, tokens=True)
    for event in stream:
        if isinstance(event, Tokens):
            going.set()
            break
    stream.close()
    assert going.is_set() and run.report().reserved.tokens == 0
    with pytest.raises(ModelError, match="cancelled"):
        _ = stream.outcome


def test_an_error_of_the_model_reaches_the_reader_of_a_stream() -> None:
    with pytest.raises(ModelError, match="broken"):
        list(asking(ScriptedModel([ModelError("broken")]), "first").stream())


def test_a_call_that_takes_too_long_is_a_timeout() -> None:
    release = threading.Event()

    def hanging(request: object) -> str:
        return "never"

    class Hanging(ScriptedModel):
        def _answer(self, prompt: object, sampling: Sampling):  # type: ignore[no-untyped-def, override]
            answer = super()._answer(prompt, sampling)  # type: ignore[arg-type]
            inner = answer.pieces

            def pieces(stopped: threading.Event):  # type: ignore[no-untyped-def]
                release.wait(5)
                return (yield from inner(stopped))

            answer.pieces = pieces
            return answer

    async def work(job: Job) -> Reply:
        try:
            return await job.ask(Hanging(hanging), "x", timeout_seconds=0.05)
        finally:
            release.set()

    run = Run(Limits(tokens=1000))
    with pytest.raises(CallTimeout, match="did not answer within 0.05 seconds"):
        Task("late", work).run(paid_by=run)
    assert run.report().reserved.tokens == 0


# --- the checkpoint ---------------------------------------------------------------------------------------------------


def test_finished_steps_are_not_paid_again(tmp_path: Path) -> None:
    file = tmp_path / "run.db"
    with pytest.raises(ModelError):
        asking(ScriptedModel(["one", ModelError("died")]), "first", "second").run(checkpoint=file)
    again = ScriptedModel(["two"])
    outcome = asking(again, "first", "second").run(checkpoint=file, paid_by=Limits(calls=2))
    assert outcome.value == ["one", "two"]
    assert [len(again.prompts), outcome.paid.calls, outcome.spent.calls] == [1, 1, 2]
    assert [one.replayed for one in outcome.trace.messages] == [True, False]


def test_a_resumed_run_makes_the_same_prompts_though_nothing_else_is_in_flight_now(tmp_path: Path) -> None:
    """What a run can pay for is less while others ask from the same account."""

    def task(model: ScriptedModel) -> Task[int]:
        async def work(job: Job) -> int:
            offered = [passage(f"{k} " + "word " * 30, relevance=0.5) for k in range(6)]
            plan = job.plan(model, [question("Which?"), *offered], Sampling(max_tokens=20))
            await job.ask(model, plan, Sampling(max_tokens=20))
            await job.ask(model, "last", Sampling(max_tokens=20), step="last")
            return plan.prompt_tokens

        return Task("one", work)

    run = Run(Limits(tokens=500))
    with run.reserve(tokens_in=300, tokens_out=0), pytest.raises(ModelError):
        task(ScriptedModel(["a", ModelError("died")])).run(paid_by=run, checkpoint=tmp_path / "run.db")
    outcome = task(ScriptedModel(["done"])).run(paid_by=Limits(tokens=500), checkpoint=tmp_path / "run.db")
    assert outcome.paid.calls == 1 and outcome.value <= 180
    assert task(ScriptedModel(["a", "b"])).run(paid_by=Limits(tokens=500)).value > 180


def test_a_checkpoint_of_other_questions_is_refused(tmp_path: Path) -> None:
    asking(ScriptedModel(["one"]), "first").run(checkpoint=tmp_path / "run.db")
    with pytest.raises(CheckpointMismatch, match="asking:ask#1"):
        asking(ScriptedModel(["one"]), "other").run(checkpoint=tmp_path / "run.db")


def test_a_file_that_is_no_checkpoint_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("These are my notes, and they are quite long." * 40)
    with pytest.raises(CheckpointError, match="notes.txt"):
        asking(ScriptedModel(["one"]), "first").run(checkpoint=file)
    assert file.read_text().startswith("These are my notes")


def test_a_checkpoint_of_another_format_is_refused(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "run.db").close()
    with sqlite3.connect(tmp_path / "run.db") as database:
        database.execute("UPDATE about SET value = 'ctxkit run 99'")
    database.close()
    with pytest.raises(CheckpointError, match="ctxkit run 99"):
        Checkpoint(tmp_path / "run.db")


def test_two_processes_cannot_share_a_checkpoint(tmp_path: Path) -> None:
    code = (
        "import sys; from ctxkit_agents import Checkpoint; from ctxkit_agents.errors import CheckpointLocked\n"
        "try: Checkpoint(sys.argv[1])\nexcept CheckpointLocked: print('locked')"
    )
    with Checkpoint(tmp_path / "run.db") as mine:
        mine.begin("key", "digest")
        other = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run.db")],
            capture_output=True,
            text=True,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        assert other.stdout.strip() == "locked", other.stderr
    assert CheckpointLocked.retryable


def test_what_must_not_happen_twice_is_not_done_again_after_a_crash(tmp_path: Path) -> None:
    done = []

    async def pay() -> str:
        done.append("paid")
        raise RuntimeError("the process dies here")

    async def work(job: Job) -> object:
        return await job.once("pay", {"amount": 1}, pay, repeatable=False)

    with pytest.raises(RuntimeError):
        Task("pay", work).run(checkpoint=tmp_path / "run.db")
    outcome = Task("pay", work).run(checkpoint=tmp_path / "run.db")
    assert done == ["paid"] and outcome.value.replayed and outcome.value.value is None  # type: ignore[attr-defined]
