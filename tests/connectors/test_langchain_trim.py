"""trim_messages for LangChain: what LangChain's own does, and nothing that a provider would refuse."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.prompts import ChatPromptTemplate

from ctxkit.context.chat import openai_problems
from ctxkit.errors import BudgetInfeasible
from ctxkit.testing import WhitespaceCounter
from ctxkit_connectors.langchain import OpenAIForm, trim_messages

FAMILY = "👩‍👩‍👧‍👦"


def letters(messages: list[BaseMessage]) -> int:
    return sum(len(message.text) for message in messages)


def words(messages: list[BaseMessage]) -> int:
    """Words, and two for each message."""
    calls = sum(len(str(call["args"]).split()) for m in messages if isinstance(m, AIMessage) for call in m.tool_calls)
    return sum(2 + len(message.text.split()) for message in messages) + calls


def call(*ids: str, text: str = "", words: int = 1) -> AIMessage:
    args = {"q": " ".join(["word"] * words)}
    return AIMessage(text, tool_calls=[{"id": one, "name": "look", "args": args, "type": "tool_call"} for one in ids])


def result(call_id: str, text: str = "found") -> ToolMessage:
    return ToolMessage(text, tool_call_id=call_id)


def broken(messages: list[BaseMessage]) -> list[str]:
    """What a provider would refuse about calls and results."""
    problems = openai_problems(OpenAIForm(messages).dicts, prefill=True)
    return [one for one in problems if one != "no messages" and "the prompt ends with role" not in one]


CHAT = [
    SystemMessage("be brief"),
    HumanMessage("one two three", id="h1"),
    AIMessage([{"type": "text", "text": "four five"}, {"type": "text", "text": "six seven"}], id="a1"),
    HumanMessage("eight nine", id="h2"),
    AIMessage("ten", id="a2"),
]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_tokens": 9, "strategy": "first"}, [0, 1]),
        ({"max_tokens": 8, "strategy": "last"}, [3, 4]),
        ({"max_tokens": 11, "strategy": "last", "include_system": True}, [0, 3, 4]),
        ({"max_tokens": 8, "strategy": "last", "start_on": "ai"}, [4]),
        ({"max_tokens": 8, "strategy": "last", "end_on": HumanMessage}, [3]),
        ({"max_tokens": 9, "strategy": "first", "end_on": "system"}, [0]),
        ({"max_tokens": 99}, [0, 1, 2, 3, 4]),
        ({"max_tokens": 99, "start_on": ["human", AIMessage]}, [1, 2, 3, 4]),
        ({"max_tokens": 1}, []),
        ({"max_tokens": 0}, []),
    ],
)
def test_the_first_or_last_messages_are_kept_as_the_same_objects(options, expected):
    trimmed = trim_messages(CHAT, token_counter=words, **options)
    assert [id(message) for message in trimmed] == [id(CHAT[place]) for place in expected]


def test_of_content_blocks_whole_blocks_are_kept():
    first = trim_messages(CHAT, max_tokens=13, token_counter=words, strategy="first", allow_partial=True)
    assert first[-1].content == [{"type": "text", "text": "four five"}]
    last = trim_messages(CHAT, max_tokens=11, token_counter=words, allow_partial=True)
    assert last[0].content == [{"type": "text", "text": "six seven"}]
    assert last[0].id == "a1"
    assert len(CHAT[2].content) == 2, "the message of the caller is not touched"


def test_a_text_is_cut_by_the_splitter_on_the_side_that_is_left_out():
    options: dict[str, Any] = {"max_tokens": 3, "token_counter": letters, "allow_partial": True, "text_splitter": list}
    assert trim_messages([HumanMessage("abcdef")], strategy="first", **options)[0].content == "abc"
    assert trim_messages([HumanMessage("abcdef")], strategy="last", **options)[0].content == "def"


def test_without_a_splitter_lines_are_kept_and_a_line_that_is_too_long_is_cut():
    options: dict[str, Any] = {"token_counter": letters, "allow_partial": True, "strategy": "first"}
    assert trim_messages([HumanMessage("ab\ncd\nef")], max_tokens=7, **options)[0].content == "ab\ncd\n"
    assert trim_messages([HumanMessage("abcdef")], max_tokens=4, **options)[0].content == "abcd"


@pytest.mark.parametrize("max_tokens", range(12))
@pytest.mark.parametrize("strategy", ["first", "last"])
def test_no_cut_goes_through_a_grapheme(max_tokens, strategy):
    text = f"a{FAMILY}é\u0301b"
    trimmed = trim_messages(
        [HumanMessage(text)],
        max_tokens=max_tokens,
        token_counter=letters,
        strategy=strategy,
        allow_partial=True,
        text_splitter=list,
    )
    kept = trimmed[0].text if trimmed else ""
    sides = [text[:cut] if strategy == "first" else text[len(text) - cut :] for cut in range(len(text) + 1)]
    whole = [side for side in sides if side.count("\u200d") in (0, 3) and ("👩" in side) == (FAMILY in side)]
    assert kept in whole
    assert len(kept) <= max_tokens


def test_nothing_but_white_space_is_no_part():
    options: dict[str, Any] = {"token_counter": letters, "allow_partial": True, "strategy": "first"}
    assert trim_messages([HumanMessage("\n\nabcdef")], max_tokens=2, **options) == []


def test_a_system_message_over_the_budget_is_refused():  # acceptance case 1
    chat = [SystemMessage("word " * 500), HumanMessage("hi")]
    with pytest.raises(BudgetInfeasible, match="502 tokens of 100") as refused:
        trim_messages(chat, max_tokens=100, token_counter=words, include_system=True)
    assert refused.value.minimum == 502
    assert trim_messages(chat, max_tokens=100, token_counter=words) == [chat[1]]


@pytest.mark.parametrize("max_tokens", range(0, 160, 5))
@pytest.mark.parametrize("options", [{}, {"start_on": "human"}, {"strategy": "first"}, {"allow_partial": True}])
def test_a_round_is_whole_or_gone(max_tokens, options):  # acceptance case 2
    chat = [
        SystemMessage("be brief"),
        HumanMessage("look it up"),
        call("a", words=100),
        result("a"),
        AIMessage("done"),
        HumanMessage("thanks"),
    ]
    trimmed = trim_messages(chat, max_tokens=max_tokens, token_counter=words, **options)
    assert not broken(trimmed)
    assert words(trimmed) <= max_tokens


def test_an_orphan_of_a_parallel_round_is_left_out_and_the_round_stays():  # acceptance case 3
    chat = [HumanMessage("go"), call("b"), result("a", "stray"), result("b")]
    trimmed = trim_messages(chat, max_tokens=99, token_counter=words)
    assert trimmed == [chat[0], chat[1], chat[3]]


@pytest.mark.parametrize(
    ("chat", "kept"),
    [
        ([HumanMessage("go"), call("a"), HumanMessage("wait"), result("a")], [0, 2]),
        ([HumanMessage("go"), call("a"), result("a"), call("a"), result("a")], [0, 1, 2, 3, 4]),
        ([HumanMessage("go"), call("a", "b"), result("a"), HumanMessage("so?")], [0, 3]),
        ([HumanMessage("go"), call("a"), result("a"), result("a")], [0, 1, 2]),
        ([HumanMessage("go"), call("a", "a"), result("a")], [0]),
        ([HumanMessage("go"), call("a")], [0]),
        ([result("a"), HumanMessage("go")], [1]),
    ],
    ids=["not adjacent", "id used again", "half answered", "answered twice", "one id twice", "pending", "orphan"],
)
def test_broken_rounds_are_left_out_by_occurrence(chat, kept):  # acceptance case 4
    trimmed = trim_messages(chat, max_tokens=99, token_counter=words)
    assert [id(message) for message in trimmed] == [id(chat[place]) for place in kept]
    assert not broken(trimmed)


def test_a_call_that_could_not_be_parsed_wants_an_answer_too():
    invalid = {"type": "invalid_tool_call", "id": "x", "name": "look", "args": "{", "error": None}
    chat = [HumanMessage("go"), AIMessage("", invalid_tool_calls=[invalid]), HumanMessage("so?")]
    assert trim_messages(chat, max_tokens=99, token_counter=words) == [chat[0], chat[2]]
    answered = [chat[0], chat[1], result("x", "no JSON"), chat[2]]
    assert trim_messages(answered, max_tokens=99, token_counter=words) == answered


def test_of_a_round_that_does_not_fit_the_longest_result_is_cut():  # acceptance case 6
    chat = [HumanMessage("go"), call("a", "b"), result("a", "w " * 1000), result("b", "kept")]
    trimmed = trim_messages(chat, max_tokens=60, token_counter=words, allow_partial=True, text_splitter=_split_on_space)
    assert [message.type for message in trimmed] == ["ai", "tool", "tool"]
    assert trimmed[0] is chat[1] and trimmed[2] is chat[3]
    assert trimmed[1].tool_call_id == "a" and 40 < len(trimmed[1].text.split()) < 60
    assert words(trimmed) <= 60


def _split_on_space(text: str) -> list[str]:
    return [word + " " for word in text.split(" ")]


@pytest.mark.parametrize("end_on", ["ai", "human", ("human", "tool")])
def test_ends_that_are_asked_for_do_not_tear_rounds(end_on):
    chat = [HumanMessage("go"), call("a"), result("a"), AIMessage("so"), call("b"), result("b")]
    for strategy in ("first", "last"):
        trimmed = trim_messages(chat, max_tokens=99, token_counter=words, strategy=strategy, end_on=end_on)
        assert not broken(trimmed)
        assert trimmed[-1].type in end_on


def test_a_big_agent_loop_asks_the_counter_few_times():
    asked = 0

    def counting(messages: list[BaseMessage]) -> int:
        nonlocal asked
        asked += 1
        return words(messages)

    chat = [HumanMessage("go"), *(one for n in range(2000) for one in (call(f"c{n}"), result(f"c{n}")))]
    trimmed = trim_messages(chat, max_tokens=1000, token_counter=counting)
    assert asked <= 14
    assert not broken(trimmed) and words(trimmed) > 980


def test_every_kind_of_counter_is_taken():
    def of_one(message: BaseMessage) -> int:
        return 2 + len(message.text.split())

    class Model(FakeChatModel):
        def get_num_tokens_from_messages(self, messages: Any, tools: Any = None) -> int:
            return words(messages)

    for counter in (words, of_one, Model(), Model().bind(stop=["x"])):
        assert trim_messages(CHAT, max_tokens=8, token_counter=counter) == CHAT[3:]
    assert trim_messages(CHAT, max_tokens=2, token_counter=len) == CHAT[3:]
    counter = WhitespaceCounter(overhead_per_message=2, prompt_overhead=0)
    assert trim_messages(CHAT, max_tokens=8, token_counter=counter) == CHAT[3:]
    by_name = trim_messages(CHAT, max_tokens=20, token_counter="approximate")
    assert by_name == trim_messages(CHAT, max_tokens=20, token_counter=count_tokens_approximately) != []


def test_without_messages_it_is_a_runnable():
    trimmer = trim_messages(max_tokens=8, token_counter=words)
    assert trimmer.invoke(CHAT) == CHAT[3:]
    assert (ChatPromptTemplate.from_messages(CHAT) | trimmer).invoke({}) == CHAT[3:]
    assert trim_messages(max_tokens=8, token_counter=words, include_system=True).invoke([]) == []
    assert trim_messages([("human", "hi there")], max_tokens=8, token_counter=words) == [HumanMessage("hi there")]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"token_counter": {}}, "'token_counter' expected to be a model .* Received object of type <class 'dict'>"),
        ({"token_counter": "exact"}, "Invalid token_counter shortcut 'exact'"),
        ({"strategy": "middle"}, "`strategy` must be 'first' or 'last', got 'middle'"),
        ({"strategy": "first", "start_on": "human"}, "start_on parameter is only valid with strategy='last'"),
        ({"strategy": "first", "include_system": True}, "include_system parameter is only valid"),
    ],
)
def test_wrong_arguments_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        trim_messages(CHAT, **{"max_tokens": 9, "token_counter": words, **options})
