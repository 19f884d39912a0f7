"""Chat histories to parts: what is pinned, what belongs together, what is repaired."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ctxkit.context.chat import Conversation, conversation, openai_problems, to_anthropic
from ctxkit.context.compose import compose
from ctxkit.context.group import grouped
from ctxkit.errors import PartError

Message = dict[str, Any]


def user(content: Any = "why?") -> Message:
    return {"role": "user", "content": content}


def says(content: Any = "because", **more: Any) -> Message:
    return {"role": "assistant", "content": content, **more}


def calls(*ids: str, content: Any = None, **more: Any) -> Message:
    made = [{"id": one, "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}} for one in ids]
    return {"role": "assistant", "content": content, "tool_calls": made, **more}


def result(call_id: str, content: Any = "seen") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}


def sent(read: Conversation) -> list[dict[str, Any]]:
    return [message.to_dict() for message in compose(read.parts)]


def members(read: Conversation) -> list[list[str]]:
    return [[part.id for part in group.parts] for group in grouped(read.parts)]


def checked(messages: list[Message]) -> Conversation:
    """The conversation, after a look at what every test wants: groups made, and a prompt that is taken."""
    read = conversation(messages)
    grouped(read.parts)
    assert openai_problems(sent(read), prefill=True) == ()
    return read


def test_every_message_is_a_part_named_by_its_position():
    read = checked([SYSTEM, user(), calls("a"), result("a"), says(), user("and?")])
    assert [part.id for part in read.parts] == ["m0", "m1", "m2", "m3", "m4", "m5"]
    assert [part.kind for part in read.parts] == ["system", "turn", "tool_call", "tool_result", "turn", "turn"]
    assert read.repairs == ()


def test_the_messages_are_sent_as_they_were_given_with_keys_nobody_knows():
    messages = [SYSTEM, user([{"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}}]), says(x_id=7)]
    assert sent(checked(messages)) == messages


def test_attachments_stand_at_their_character():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    read = checked([user([{"type": "text", "text": "left"}, image, {"type": "text", "text": "right"}])])
    assert read.parts[0].content == "leftright"
    assert [(one.offset, one.block) for one in read.parts[0].attachments] == [(4, image)]


@pytest.mark.parametrize("messages", [[], [SYSTEM], [result("a")], [calls("a")], [says("")]])
def test_degenerate_histories_give_parts_or_none(messages):
    read = conversation(messages)
    grouped(read.parts)
    assert len(read.parts) <= 1
    assert all(not problem.startswith("message 0: call") for problem in openai_problems(sent(read), prefill=True))


def test_system_messages_are_pinned_and_only_the_first_is_the_system_prompt():
    read = checked([SYSTEM, user(), {"role": "developer", "content": "In French."}, SYSTEM, says(), user()])
    kinds = [(part.kind, part.role, part.pinned) for part in read.parts if part.role in ("system", "developer")]
    assert kinds == [("system", "system", True), ("turn", "developer", True), ("turn", "system", True)]


def test_a_developer_message_first_is_a_pinned_turn():
    first = conversation([{"role": "developer", "content": "Rules."}, user()]).parts[0]
    assert (first.kind, first.role, first.pinned) == ("turn", "developer", True)


def test_the_last_user_message_is_pinned_and_the_first_has_priority():
    read = checked([user("task"), says(), user("more"), says(), user("now?")])
    assert [part.pinned for part in read.parts] == [False, False, False, False, True]
    assert [part.priority for part in read.parts] == [4.0, 1.0, 1.0, 1.0, 1.0]


def test_the_only_user_message_is_pinned_alone():
    read = checked([user("task"), calls("a"), result("a"), calls("b"), result("b")])
    assert members(read) == [["m0"], ["m1", "m2"], ["m3", "m4"]]
    assert [part.pinned for part in read.parts] == [True, False, False, False, False]


def test_the_last_round_is_required_unless_the_caller_says_otherwise():
    messages = [user("task"), calls("a"), result("a"), calls("b", "c"), result("c"), result("b")]
    assert [part.id for part in conversation(messages).parts if part.required] == ["m3", "m4", "m5"]
    assert not any(part.required for part in conversation(messages, keep_last_round=False).parts)


def test_a_round_before_the_last_user_message_is_not_required():
    assert not any(part.required for part in checked([user(), calls("a"), result("a"), says(), user()]).parts)


def test_a_text_at_the_very_end_is_a_prefill_and_pinned():
    assert conversation([user(), says('{"answer":')]).parts[-1].pinned


def test_a_turn_and_its_answer_are_one_group():
    read = checked([user("1"), says(), user("2a"), user("2b"), says(), user("3")])
    assert members(read) == [["m0", "m1"], ["m2", "m3", "m4"], ["m5"]]


def test_with_tool_rounds_question_and_final_text_are_one_group_and_each_round_its_own():
    read = checked(
        [user(), says("I look."), calls("a"), result("a"), calls("b"), result("b"), says("Found."), user("thanks")]
    )
    assert members(read) == [["m0", "m6"], ["m1"], ["m2", "m3"], ["m4", "m5"], ["m7"]]


def test_an_answer_to_the_pinned_message_is_a_group_of_its_own():
    assert members(checked([user("1"), says(), user("2"), says("prefill")])) == [["m0", "m1"], ["m2"], ["m3"]]


def test_reasoning_before_a_call_belongs_to_its_round():
    thought = says([{"type": "thinking", "thinking": "hm", "signature": "s"}])
    plain = says("", reasoning_content="first look")
    read = checked([user(), thought, plain, calls("a"), result("a"), says()])
    assert ["m1", "m2", "m3", "m4"] in members(read)
    assert read.repairs == ()


def test_parallel_calls_and_their_results_are_one_group_in_the_order_given():
    messages = [user(), calls("a", "b", "c"), result("c"), result("a"), result("b")]
    read = checked(messages)
    assert members(read)[1] == ["m1", "m2", "m3", "m4"]
    assert sent(read) == messages


def test_a_result_behind_a_user_turn_is_moved_to_its_call():
    read = checked([user(), calls("a", "b"), result("a"), user("hurry"), result("b")])
    assert [part.id for part in read.parts] == ["m0", "m1", "m2", "m4", "m3"]
    assert [str(repair) for repair in read.repairs] == [
        "message 4: the result of call 'b' does not stand behind its call; moved to behind message 1"
    ]


def test_a_prompt_that_ended_with_a_result_still_does():
    read = checked([user(), calls("a"), says("wait"), result("a")])
    assert [part.id for part in read.parts] == ["m0", "m2", "m1", "m3"]
    assert [repair.index for repair in read.repairs] == [1, 3]


def test_a_call_id_used_twice_is_paired_by_occurrence():
    messages = [user(), calls("a"), result("a", "one"), user(), calls("a"), result("a", "two"), user()]
    read = checked(messages)
    assert ["m1", "m2"] in members(read) and ["m4", "m5"] in members(read)
    assert sent(read) == messages


def test_of_two_open_calls_with_one_id_the_later_gets_the_first_result():
    read = checked([user(), calls("a"), calls("a"), result("a", "later"), result("a", "earlier"), user()])
    assert [part.id for part in read.parts] == ["m0", "m1", "m4", "m2", "m3", "m5"]


def test_a_result_without_a_call_becomes_text_of_the_user_role():
    read = checked([{**result("gone", "42 rows"), "name": "count"}, user()])
    assert sent(read)[0] == {"role": "user", "content": "[result of an earlier tool call of `count`]\n42 rows"}
    assert str(read.repairs[0]) == (
        "message 0: no earlier call has the id 'gone'; its text was sent in the user's role"
    )
    assert read.parts[0].priority == 1.0 and not read.parts[0].pinned


def test_an_image_in_an_orphan_result_is_kept():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    read = checked([user(), says(), result("gone", [{"type": "text", "text": "plot"}, image])])
    part = read.parts[-1]
    assert part.content == "[result of an earlier tool call]\nplot"
    assert part.attachments[0].offset == len(part.content)
    assert sent(read)[-1]["content"][2] == image


def test_a_second_result_of_one_call_becomes_text():
    read = checked([user(), calls("a"), result("a", "first"), result("a", "second"), user()])
    assert [part.kind for part in read.parts] == ["turn", "tool_call", "tool_result", "turn", "turn"]
    assert "has a result already" in str(read.repairs[0])


def test_a_result_whose_parallel_call_was_cut_away_is_folded_behind_the_round():
    read = checked([user(), calls("b"), result("a"), result("b"), says()])
    assert [(part.id, part.role) for part in read.parts][1:4] == [("m1", "assistant"), ("m3", "tool"), ("m2", "user")]


def test_a_call_without_result_in_the_midst_becomes_text():
    read = checked([user(), calls("a", content="I look."), user("never mind")])
    assert sent(read)[1] == says('I look.\n[called tool `look` with {"at": 1}; no result was recorded]')
    assert str(read.repairs[0]) == "message 1: call 'a' of tool 'look' has no result; sent as assistant text"


def test_a_call_without_result_beside_an_answered_one_is_left_out():
    read = checked([user(), calls("a", "b", note=1), result("b"), user()])
    assert [call["id"] for call in sent(read)[1]["tool_calls"]] == ["b"]
    assert sent(read)[1]["note"] == 1
    assert str(read.repairs[0]) == "message 1: call 'a' of tool 'look' has no result; the call was left out"


def test_calls_at_the_end_that_still_wait_are_dropped_with_their_reasoning():
    thought = says(None, reasoning_content="hm")
    read = checked([user(), calls("a"), result("a"), calls("b"), thought, calls("c", content="Let me see")])
    assert [part.id for part in read.parts] == ["m0", "m1", "m2"]
    assert [repair.index for repair in read.repairs] == [3, 4, 5]


def test_a_signed_message_is_never_edited():
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    signed = calls("a", "b", content=[thinking, {"type": "text", "text": "I look."}])
    read = checked([user(), signed, result("a"), user()])
    assert read.parts[1].verbatim and sent(read)[1] == signed
    assert sent(read)[3] == {"role": "tool", "tool_call_id": "b", "content": "[no result was recorded for this call]"}
    assert read.parts[3].id == "m1.1"


def test_a_signed_message_that_cannot_be_sent_is_dropped_whole():
    signed = calls("a", "a", reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}])
    read = checked([user(), signed, result("a", "kept"), user()])
    assert [part.id for part in read.parts] == ["m0", "m2", "m3"]
    assert read.parts[1].content.endswith("kept")


@pytest.mark.parametrize(
    "more",
    [
        {"reasoning_details": [{"type": "x"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s"}]},
        {"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "so"}]},
        {"audio": {"id": "audio_1"}, "content": None},
    ],
)
def test_what_is_signed_is_verbatim(more):
    assert checked([user(), {**says(), **more}, user()]).parts[1].verbatim


def test_hosted_calls_need_no_answer():
    inside = says(
        [
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
            {"type": "text", "text": "Found."},
        ]
    )
    beside = says("Run.", tool_calls=[{"id": "h", "type": "code_interpreter", "code_interpreter": {"input": "1+1"}}])
    messages = [user(), inside, user(), beside, user()]
    read = checked(messages)
    assert read.repairs == () and sent(read) == messages
    assert [part.kind for part in read.parts] == ["turn"] * 5
    assert read.parts[1].verbatim and read.parts[3].verbatim


def test_a_hosted_call_beside_an_own_call_stays():
    mixed = calls("a")
    mixed["tool_calls"].append({"id": "h", "type": "mcp", "mcp": {}})
    read = checked([user(), mixed, result("a")])
    assert sent(read)[1] == mixed and [call["id"] for call in read.parts[1].tool_calls] == ["a"]


def test_custom_calls_are_answered_like_functions():
    custom = says(None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}])
    assert checked([user(), custom, result("c")]).repairs == ()
    assert "select 1" in sent(checked([user(), custom, user()]))[1]["content"]


def test_broken_arguments_stay_and_are_noted():
    broken = calls("a")
    broken["tool_calls"][0]["function"]["arguments"] = '{"at": '
    read = checked([user(), broken, result("a")])
    assert sent(read)[1] == broken
    assert str(read.repairs[0]) == "message 1: arguments of call 'a' are no JSON; kept as they are"


def test_arguments_given_as_an_object_are_written_as_json():
    loose = calls("a")
    loose["tool_calls"][0]["function"]["arguments"] = {"at": "天"}
    read = checked([user(), loose, result("a")])
    assert read.parts[1].tool_calls[0]["function"]["arguments"] == '{"at": "天"}'
    assert loose["tool_calls"][0]["function"]["arguments"] == {"at": "天"}, "the caller's message is not touched"


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
def test_an_assistant_message_that_says_nothing_is_dropped(content):
    read = checked([user(), says(content), user()])
    assert [part.id for part in read.parts] == ["m0", "m2"]
    assert str(read.repairs[0]) == "message 1: assistant message with no content and no tool calls; dropped"


def test_a_refusal_is_something_said():
    messages = [user(), says(None, refusal="I must not."), user()]
    read = checked(messages)
    assert sent(read) == messages and read.parts[1].content == "I must not."


@pytest.mark.parametrize("content", [None, []])
def test_a_user_message_without_content_is_sent_empty(content):
    assert sent(checked([user(content)])) == [user("")]


def test_an_empty_list_of_calls_is_left_out():
    assert sent(checked([user(), says("x", tool_calls=[]), user()]))[1] == says("x")


def test_legacy_functions_become_tools():
    read = checked(
        [
            user(),
            says(None, function_call={"name": "look", "arguments": "{}"}),
            {"role": "function", "name": "look", "content": "seen"},
        ]
    )
    assert [part.kind for part in read.parts] == ["turn", "tool_call", "tool_result"]
    assert [repair.index for repair in read.repairs] == [1, 2]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("hello", "is a str, not a mapping"),
        ({"content": "x"}, "`role` must be one of"),
        ({"role": "bot", "content": "x"}, "got 'bot'"),
        ({"role": ["user"], "content": "x"}, "`role` must be one of"),
        ({"role": "user", "content": 3}, "got int"),
        ({"role": "user", "content": ["x"]}, "mapping with a `type`"),
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a"}]}, "from_anthropic"),
        ({"role": "user", "content": "x", "tool_calls": [{}]}, "only an assistant message"),
        ({"role": "assistant", "tool_calls": "x"}, "must be a list"),
        ({"role": "assistant", "tool_calls": ["x"]}, "must be a mapping"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "with a `name`"),
        ({"role": "tool", "tool_call_id": 3, "content": "x"}, "`tool_call_id` must be a str"),
    ],
)
def test_what_is_no_message_is_refused_with_its_index(message, words):
    with pytest.raises(PartError, match="message 1") as caught:
        conversation([user(), message])
    assert words in str(caught.value)


LONG = {
    "texts": lambda n: [user("short") if place % 2 == 0 else says("short") for place in range(n)],
    "rounds with one id": lambda n: [user(), *(calls("a"), result("a")) * (n // 2)],
    "calls that wait": lambda n: [user(), *(calls(f"c{place}") for place in range(n))],
    "results without calls": lambda n: [user(), *(result(f"c{place}") for place in range(n))],
    "one call, many results": lambda n: [user(), calls("a"), *(result("a") for _ in range(n))],
}


@pytest.mark.parametrize("messages", LONG.values(), ids=LONG.keys())
def test_the_work_grows_with_the_length_only(messages):
    def function_calls(count):
        made = []
        sys.setprofile(lambda frame, event, argument: made.append(None) if "call" in event else None)
        try:
            to_anthropic(sent(conversation(messages(count))))
        finally:
            sys.setprofile(None)
        return len(made)

    assert function_calls(1_000) < 2.3 * function_calls(500)
