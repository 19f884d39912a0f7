"""The way back: a model asks for what a prompt left out, gets it, and something else makes room."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit import Budget, Plan
from ctxkit.context.chat import openai_problems
from ctxkit.context.expand import EXPAND
from ctxkit.errors import PartError
from ctxkit.session import Session, SqliteOriginals
from ctxkit.testing import WhitespaceCounter
from tests.session.messages import Message, calls, file_round, user


def words(n: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(10_000)}" for _ in range(n))


def asks(tool: str, call_id: str, arguments: Any) -> Message:
    return calls((call_id, arguments if isinstance(arguments, str) else json.dumps(arguments)), tool=tool)


def after_three_rounds(window: int = 400, size: int = 150, **more: Any) -> tuple[Session, Plan]:
    """A session in which the oldest tool result, m2, is not whole any more, and its plan."""
    session = Session(budget=Budget(window), counter=WhitespaceCounter(), **more)
    session.add(user("Find the leak."))
    plan = session.plan()
    for i in range(3):
        session.add(*file_round(f"c{i}", words(size, i)))
        plan = session.plan()
    assert plan.decision("m2").level != "full"
    return session, plan


def expanded(session: Session, ref: str) -> Plan:
    """The plan after the model has asked for the ref and was answered."""
    asking = asks("expand", "e1", {"ref": ref})
    session.add(asking, *session.answer_expand(asking["tool_calls"]))
    return session.plan()


def test_what_was_expanded_is_in_the_next_prompt_and_something_else_made_room() -> None:
    session, before = after_three_rounds()
    plan = expanded(session, "m2")
    assert plan.to_messages()[-1] == {"role": "tool", "tool_call_id": "e1", "content": words(150, 0)}
    assert plan.prompt_tokens <= 400
    assert openai_problems(plan.to_messages()) == ()
    change = plan.diff(before)
    assert change.left or change.changed
    assert plan.decision("m6").tokens < before.decision("m6").tokens
    assert session.expand("m6") == words(150, 2)


def test_what_is_larger_than_the_window_is_expanded_as_far_as_it_goes() -> None:
    session, _ = after_three_rounds()
    session.add(*file_round("big", words(900, 9)))
    session.plan()
    plan = expanded(session, "m8")
    answer = plan.decision(plan.decisions[-1].part.id)
    assert plan.prompt_tokens <= 400
    assert answer.part.content == words(900, 9)
    assert answer.kept
    assert answer.tokens > 200
    assert session.expand(answer.part.id) == words(900, 9)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 200), min_size=2, max_size=6),
    window=st.integers(150, 600),
    picks=st.lists(st.integers(0, 20), min_size=1, max_size=4),
)
def test_expanding_again_and_again_always_fits(sizes: list[int], window: int, picks: list[int]) -> None:
    session = Session(budget=Budget(window), counter=WhitespaceCounter())
    session.add(user("task"))
    for i, size in enumerate(sizes):
        session.add(*file_round(f"c{i}", words(size, i)))
    plan = session.plan()
    for turn, pick in enumerate(picks):
        left_out = [decision.part.id for decision in plan.decisions if decision.sent is not decision.part]
        if not left_out:
            return
        asking = asks("expand", f"e{turn}", {"ref": left_out[pick % len(left_out)]})
        (answered,) = session.answer_expand(asking["tool_calls"])
        session.add(asking, answered)
        plan = session.plan()
        assert plan.prompt_tokens <= window
        last = plan.decisions[-1]
        assert last.kept
        assert last.part.content == answered["content"]
        alone = len(answered["content"].split()) + 60 < 0.8 * window
        assert last.level == "full" or not alone, "what would fit is there in whole"


def test_the_tool_is_offered_exactly_while_a_handle_can_be_seen() -> None:
    session, plan = after_three_rounds()
    assert plan.tools == (EXPAND,)
    session, plan = after_three_rounds(expandable=False)
    assert plan.tools == ()
    session, plan = after_three_rounds(compressors=())
    assert not plan.decision("m2").kept
    assert plan.tools == (), "dropped, and nothing in the prompt says so"


def test_lines_of_a_ref_are_given_alone() -> None:
    session = Session(budget=Budget(120), counter=WhitespaceCounter())
    lines = [f"line {i} says nothing of interest" for i in range(1, 101)]
    session.add(user("task"), *file_round("a", "\n".join(lines)))
    session.plan()
    assert session.expand("m2:40-42") == "\n".join(lines[39:42])
    assert session.expand('"m2"') == "\n".join(lines)


def test_an_unknown_ref_is_refused_with_the_known_ones() -> None:
    session, _ = after_three_rounds()
    with pytest.raises(PartError, match=r"no ref 'm77' in this session; known refs are .*\"m2\""):
        session.expand("m77")
    fresh = Session(budget=Budget(100), counter=WhitespaceCounter())
    with pytest.raises(PartError, match="nothing was left out"):
        fresh.expand("m1")


@pytest.mark.parametrize("arguments", ['{"ref": "m99"}', '{"ref"', "[]", "{}", '{"ref": null}', '{"ref": "m2:9"}', ""])
def test_a_mistake_of_the_model_is_answered_with_what_is_wrong(arguments: str) -> None:
    session, _ = after_three_rounds()
    asking = asks("expand", "e", arguments)
    (answered,) = session.answer_expand(asking["tool_calls"])
    assert answered["tool_call_id"] == "e"
    assert answered["content"].startswith("Error: ")
    assert '"m2"' in answered["content"]
    session.add(asking, answered)
    assert openai_problems(session.plan().to_messages()) == ()


def test_lines_that_do_not_exist_are_said_to_hold_nothing() -> None:
    session, _ = after_three_rounds()
    (answered,) = session.answer_expand(asks("expand", "e", {"ref": "m2:900-901"})["tool_calls"])
    assert answered["content"] == "(nothing stands at 'm2:900-901')"


def test_only_calls_of_expand_are_answered() -> None:
    session, _ = after_three_rounds()
    both = [*asks("read", "r", {})["tool_calls"], *asks("expand", "e", {"ref": "m2"})["tool_calls"], {"id": "x"}]
    (answered,) = session.answer_expand(both)
    assert answered == {"role": "tool", "tool_call_id": "e", "content": words(150, 0)}


def test_a_session_of_the_same_id_finds_its_originals_in_the_file(tmp_path: Path) -> None:
    with SqliteOriginals(tmp_path / "o.sqlite") as store:
        after_three_rounds(store=store, session_id="one")
    with SqliteOriginals(tmp_path / "o.sqlite") as store:
        again = Session(budget=Budget(400), counter=WhitespaceCounter(), store=store, session_id="one")
        other = Session(budget=Budget(400), counter=WhitespaceCounter(), store=store, session_id="two")
        assert again.expand("m2") == words(150, 0)
        with pytest.raises(PartError):
            other.expand("m2")


def test_a_text_with_lone_surrogates_comes_back_from_the_file_byte_for_byte(tmp_path: Path) -> None:
    text = words(200) + "\n\ud83d \x00 end"
    with SqliteOriginals(tmp_path / "o.sqlite") as store:
        session = Session(budget=Budget(120), counter=WhitespaceCounter(), store=store)
        session.add(user("task"), *file_round("a", text))
        session.plan()
        assert session.expand("m2") == text
