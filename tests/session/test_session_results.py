"""Sessions of agents: new results come in reduced, all of them stay named, and pinned tasks stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxkit import Budget, Session
from ctxkit.testing import WhitespaceCounter


def read(n: int, lines: int = 60, name: str = "read", **arguments: Any) -> list[dict[str, Any]]:
    text = "\n".join(f"file {n} line {line}: open, read, close" for line in range(lines))
    call = {"id": f"c{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{n}", "content": text},
    ]


def session(window: int = 900, **options: Any) -> Session:
    made = Session(budget=Budget(window, 40), counter=WhitespaceCounter(), session_id="s", **options)
    made.add({"role": "system", "content": "You read."}, {"role": "user", "content": "Which file leaks?"}, pinned=True)
    return made


def results(made: Session) -> dict[str, str]:
    return {part.tool_call_id or "": part.content for part in made.plan().messages if part.role == "tool"}


def test_a_new_result_comes_in_with_so_many_tokens_at_most() -> None:
    made = session(4000, result_tokens=80)
    made.add(*read(1), *read(2, lines=3))
    sent, counter = results(made), WhitespaceCounter()
    assert 20 < counter.count(sent["c1"]) <= 80 and 'expand("m3")' in sent["c1"]
    assert sent["c2"] == read(2, lines=3)[1]["content"], "what is short enough is whole"
    assert made.expand("m3") == read(1)[1]["content"]


def test_a_reduced_result_is_sent_as_it_was_and_the_prompt_before_is_reused() -> None:
    made = session(4000, result_tokens=80)
    made.add(*read(1))
    first = results(made)["c1"]
    made.add(*read(2))
    assert results(made)["c1"] == first
    made.add(*read(3))
    before = made.plan().prompt_tokens
    assert made.cache.broke_at is None and made.cache.reused_tokens > 0
    made.add(*read(4))
    made.plan()
    assert made.cache.reused_tokens >= before - 2, "all but the generation prompt"


def test_what_expand_gave_back_comes_in_whole() -> None:
    made = session(4000, result_tokens=80)
    made.add(*read(1))
    made.plan()
    asked = read(2, name="expand", ref="m3")[0]
    made.add(asked, *made.answer_expand(asked["tool_calls"]))
    assert results(made)["c2"] == read(1)[1]["content"]


def test_a_result_that_no_compressor_makes_shorter_comes_in_whole() -> None:
    made = session(4000, result_tokens=80, compressors=())
    made.add(*read(1))
    assert results(made)["c1"] == read(1)[1]["content"]


def test_kept_results_stay_named_through_compactions() -> None:
    made = session(keep_results=True, result_tokens=120, target=0.5)
    for n in range(1, 9):
        made.add(*read(n))
        plan = made.plan()
        assert plan.prompt_tokens <= 860
    sent = results(made)
    assert made.cache.compactions > 0
    assert all(f'expand("m{2 * n + 1}' in sent[f"c{n}"] for n in range(1, 9))


def test_without_room_the_oldest_results_go_and_do_not_come_back() -> None:
    made = session(420, keep_results=True, target=0.5)
    counts = []
    for n in range(1, 13):
        made.add(*read(n))
        assert made.plan().prompt_tokens <= 380
        counts.append(list(results(made)))
    assert "c1" not in counts[-1] and counts[-1][-1] == "c12"
    gone = counts[-1][0]
    assert counts[-1] == [f"c{n}" for n in range(int(gone[1:]), 13)], "those that stay are the newest"


def test_a_pinned_message_of_the_user_stays_when_others_follow() -> None:
    made = session(420)
    for n in range(1, 5):
        made.add(*read(n))
    made.add({"role": "assistant", "content": ""}, {"role": "user", "content": "Your answer was empty."})
    contents = [message.content for message in made.plan().messages]
    assert "Which file leaks?" in contents and "Your answer was empty." in contents


def test_a_message_that_is_not_pinned_may_go() -> None:
    made = Session(budget=Budget(300, 40), counter=WhitespaceCounter(), expandable=False, compressors=())
    made.add({"role": "user", "content": "word " * 100}, *read(1, lines=20))
    made.add({"role": "user", "content": "other " * 150})
    assert "word" not in "".join(message.content for message in made.plan().messages)


def test_no_tokens_for_results_is_refused() -> None:
    with pytest.raises(ValueError, match="result_tokens"):
        session(result_tokens=0)
