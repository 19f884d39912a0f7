"""For any conversation, options and budget: never over, never refused by a provider, nothing out of order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages import trim_messages as theirs

from ctxkit.context.chat import anthropic_problems, from_anthropic, openai_problems, to_anthropic
from ctxkit.errors import BudgetInfeasible, PartError
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import messages_from_dicts
from ctxkit_connectors import anthropic, openai
from ctxkit_connectors.langchain import OpenAIForm, fit_messages, trim_messages

COUNTER = WhitespaceCounter(prompt_overhead=0)
IDS = st.sampled_from(["a", "b", "c", ""])
TEXT = st.text(alphabet="ab \n天é\u0301👩\u200d", max_size=12)
LONG = st.integers(1, 40).map(lambda count: "\n".join(f"line {n} of it" for n in range(count)))
WORDS = st.one_of(TEXT, LONG)
CONTENT: Any = st.one_of(WORDS, st.lists(WORDS.map(lambda words: {"type": "text", "text": words}), max_size=3))
CALLS = st.lists(
    st.builds(lambda one, words: {"id": one, "name": "look", "args": {"q": words}, "type": "tool_call"}, IDS, WORDS),
    max_size=2,
)
MESSAGE: Any = st.one_of(
    CONTENT.map(HumanMessage),
    CONTENT.map(AIMessage),
    st.builds(lambda content, calls: AIMessage(content, tool_calls=calls), CONTENT, CALLS),
    st.builds(lambda content, one: ToolMessage(content, tool_call_id=one), CONTENT, IDS),
    st.builds(lambda content, one: ToolMessage(content, tool_call_id=one), CONTENT, IDS),
)
TYPES: Any = st.one_of(st.none(), st.sampled_from(["human", "ai", "tool", HumanMessage, ("human", "tool")]))


@st.composite
def whole_rounds(draw: st.DrawFn) -> list[BaseMessage]:
    """A call with all of its results."""
    ids = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True))
    calls = [{"id": one, "name": "look", "args": {"q": draw(WORDS)}, "type": "tool_call"} for one in ids]
    return [AIMessage(draw(WORDS), tool_calls=calls), *(ToolMessage(draw(WORDS), tool_call_id=one) for one in ids)]


@st.composite
def conversations(draw: st.DrawFn) -> list[BaseMessage]:
    runs = draw(st.lists(st.one_of(MESSAGE.map(lambda one: [one]), whole_rounds()), max_size=8))
    system = [SystemMessage(draw(WORDS))] if draw(st.booleans()) else []
    messages = [*system, *(message for run in runs for message in run)]
    return [message.model_copy(update={"id": str(place)}) for place, message in enumerate(messages)]


def words(messages: list[BaseMessage]) -> int:
    calls = sum(len(str(call["args"]).split()) for m in messages if isinstance(m, AIMessage) for call in m.tool_calls)
    return sum(2 + len(message.text.split()) for message in messages) + calls


def template(messages: list[BaseMessage]) -> int:
    """Pieces that meet without white space join, so counts do not add up; an opening user message costs less."""
    text = "".join(f"[{message.type}]{message.text}" for message in messages)
    return len(text.split()) + 7 - 5 * (bool(messages) and messages[0].type == "human")


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "max_tokens": draw(st.integers(0, 120)),
        "strategy": draw(st.sampled_from(["first", "last"])),
        "allow_partial": draw(st.booleans()),
        "text_splitter": draw(st.sampled_from([None, list, lambda text: [word + " " for word in text.split(" ")]])),
        "end_on": draw(TYPES),
    }
    if chosen["strategy"] == "last":
        chosen |= {"start_on": draw(TYPES), "include_system": draw(st.booleans())}
    return chosen


def problems(messages: list[BaseMessage]) -> list[str]:
    """About calls and results; trimming may end anywhere, and a message may be empty if it was given so."""
    return [one for one in openai_problems(OpenAIForm(messages).dicts) if "call" in one or "answer" in one]


@given(conversations(), options(), st.sampled_from([words, template]))
def test_trimming_is_never_over_and_never_broken(messages, options, counter):
    before = [message.model_copy(deep=True) for message in messages]
    try:
        sent = trim_messages(messages, token_counter=counter, **options)
    except BudgetInfeasible as refused:
        assert options["include_system"] and refused.minimum == counter(messages[:1]) > options["max_tokens"]
        return
    assert not sent or counter(sent) <= options["max_tokens"]
    assert problems(sent) == []
    places = [int(message.id or "") for message in sent]
    assert places == sorted(set(places))
    reduced = [message for message in sent if message is not messages[int(message.id or "")]]
    assert len(reduced) <= options["allow_partial"]
    assert messages == before
    if options["end_on"] == "human" and sent and options["strategy"] == "first":
        assert sent[-1].type == "human"


ASCII: Any = st.one_of(st.text(alphabet="ab \n", max_size=12), LONG)  # where graphemes are characters
PLAIN: Any = st.one_of(*(st.builds(kind, ASCII) for kind in (HumanMessage, AIMessage)))


@given(st.lists(PLAIN, max_size=8), options())
def test_without_tools_the_result_is_langchains(messages, options):
    chosen = {**options, "text_splitter": lambda text: [word + " " for word in text.split(" ")]}
    mine = trim_messages(messages, token_counter=words, **chosen)
    other = theirs(messages, token_counter=words, **chosen)
    if words(other) <= chosen["max_tokens"] and all(message.text.strip() for message in other):
        assert mine == other


def by_template(messages: list[BaseMessage]) -> int:
    return COUNTER.render(messages_from_dicts(OpenAIForm(messages).dicts)).tokens


@given(conversations(), st.integers(1, 200), st.sampled_from([(words, words), (COUNTER, by_template)]))
def test_fitting_is_never_over_and_always_valid(messages, max_tokens, counters):
    counter, count = counters
    try:
        sent = fit_messages(messages, max_tokens=max_tokens, token_counter=counter)
    except BudgetInfeasible as refused:
        assert refused.minimum > max_tokens
        return
    except PartError:
        assert not messages or all(message.type in ("ai", "tool") for message in messages)
        return
    assert not sent or count(sent) <= max_tokens
    assert not sent or all("the prompt ends" in one for one in openai_problems(OpenAIForm(sent).dicts))
    if messages and messages[0].type == "system":
        assert sent[0] is messages[0]
    humans = [message for message in messages if message.type == "human"]
    assert not humans or any(message is humans[-1] for message in sent)


@given(conversations(), st.integers(1, 200))
def test_plain_messages_are_never_over_and_always_valid(messages, max_tokens):
    dicts = OpenAIForm(messages).dicts
    try:
        sent = openai.trim_messages(dicts, max_tokens=max_tokens, counter=COUNTER)
    except BudgetInfeasible as refused:
        assert refused.minimum > max_tokens
    except PartError:
        assert all(message["role"] in ("assistant", "tool") for message in dicts)
    else:
        assert not sent or COUNTER.render(messages_from_dicts(sent)).tokens <= max_tokens
        assert not sent or all("the prompt ends" in one for one in openai_problems(sent))


@given(conversations(), st.integers(1, 200))
def test_anthropics_messages_are_never_over_and_always_valid(messages, max_tokens):
    system, chat = to_anthropic(OpenAIForm(messages).dicts)
    try:
        sent_system, sent = anthropic.trim_messages(chat, system=system, max_tokens=max_tokens, counter=COUNTER)
    except BudgetInfeasible as refused:
        assert refused.minimum > max_tokens
    except PartError:
        assert anthropic_problems(chat), "only what was not valid in the first place"
    else:
        assert sent_system == system and (not sent or anthropic_problems(sent) == ())
        assert COUNTER.render(messages_from_dicts(from_anthropic(sent, sent_system))).tokens <= max_tokens or not sent
