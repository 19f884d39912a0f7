"""Tool calls and thinking of a local model, and answers of a given form."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from ctxkit.errors import MissingExtra, ModelError, PromptError
from ctxkit.models import LocalModel
from ctxkit.models.local import NGram
from ctxkit.models.local.answer import Answer
from ctxkit.models.local.forms import Forms
from ctxkit.models.streams import PieceStream
from ctxkit.protocols import PromptMessage, Reply, Sampling, Segment
from ctxkit.testing import tiny_counter, tiny_llama, tiny_model
from ctxkit.testing.tiny import TINY_TEMPLATE, tiny_tokenizer
from ctxkit.tokens import TemplateCounter

needs_xgrammar = pytest.mark.skipif(find_spec("xgrammar") is None, reason="the extra `structured` is not installed")

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "sure": {"type": "boolean"}},
            "required": ["a", "sure"],
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}


@dataclass
class Asked:
    messages: tuple[PromptMessage, ...] = (PromptMessage("user", (Segment("Hello"),)),)
    ids: tuple[int, ...] | None = None
    tools: tuple[Any, ...] = ()


class Says:
    """A constraint under which a model can only say one thing, and then ends."""

    def __init__(self, model: LocalModel, text: str) -> None:
        encoded = model.counter.tokenizer.encode(text, add_special_tokens=False).ids
        self.ids = [*encoded, *sorted(model.eos_ids)[:1]]
        self.done = False

    def masked(self, logits: Tensor) -> Tensor:
        return torch.full_like(logits, -torch.inf).index_fill(0, torch.tensor(self.ids[:1]), 0.0)

    def accept(self, token: int) -> None:
        self.ids = self.ids[1:]
        self.done = not self.ids


def _says(
    model: LocalModel, text: str, tools: Sequence[Any] = (), sampling: Sampling | None = None
) -> tuple[list[str], Reply]:
    """(pieces, reply) of a real answer in which the model says `text`."""
    sampling = sampling or Sampling(max_tokens=400)
    ids = model.prompt_ids(Asked(tools=tuple(tools)))
    reader = model._forms.reader(ids, tools, sampling, constrained=False)
    stream = PieceStream(Answer(model, ids, sampling, reader, Says(model, text)))
    return list(stream), stream.reply


# --- calls -----------------------------------------------------------------------------------------------------


def test_a_call_becomes_openais_and_the_text_around_it_is_kept() -> None:
    model = tiny_model()
    text = 'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    pieces, reply = _says(model, text, [ADD, NOW])
    assert "".join(pieces) == reply.text == "I add.\n"
    assert reply.finish_reason == "tool_calls"
    (call,) = reply.tool_calls
    assert call["type"] == "function" and re.fullmatch(r"call_[0-9a-f]{24}", call["id"])
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 1})
    assert all(pieces)
    assert reply.completion_tokens == len(model.counter.tokenizer.encode(text).ids) + 1


def test_a_broken_call_stays_text() -> None:
    text = 'Look: <tool_call>{"name": "add", "arguments": </tool_call> or so'
    pieces, reply = _says(tiny_model(), text, [ADD])
    assert "".join(pieces) == text
    assert (reply.finish_reason, reply.tool_calls) == ("stop", ())


@pytest.mark.parametrize(("tools", "choice"), [([], None), ([ADD], "none")])
def test_without_tools_nothing_is_read_as_a_call(tools: list[Any], choice: str | None) -> None:
    text = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'
    reply = _says(tiny_model(), text, tools, Sampling(max_tokens=400, tool_choice=choice))[1]
    assert (reply.text, reply.finish_reason) == (text, "stop")


def test_a_call_that_the_length_cut_off_stays_text_and_says_length() -> None:
    reply = _says(tiny_model(), '<tool_call>{"name": "add"}</tool_call>', [ADD], Sampling(max_tokens=12))[1]
    assert reply.text.startswith("<tool_call") and reply.finish_reason == "length"


def test_a_stop_string_ends_an_answer_before_its_call() -> None:
    reply = _says(tiny_model(), 'A END <tool_call>{"name": "now"}</tool_call>', [NOW], Sampling(400, stop=("END",)))[1]
    assert (reply.text, reply.finish_reason, reply.tool_calls) == ("A ", "stop", ())


def _with_control_tokens(*tokens: str, hint: str) -> LocalModel:
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    config = tiny_llama().config
    config.vocab_size = tokenizer.get_vocab_size()
    template = TINY_TEMPLATE + "{# " + hint + " #}"
    variables = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    counter = TemplateCounter(tokenizer, template, name="controlled", variables=variables)
    return LocalModel(type(tiny_llama())(config).eval(), counter)


def test_markers_that_are_control_tokens_are_seen_and_do_not_show() -> None:
    model = _with_control_tokens("<tool_call>", "</tool_call>", hint="<tool_call>")
    reply = _says(model, 'Yes <tool_call>{"name": "now"}</tool_call>', [NOW])[1]
    assert reply.text == "Yes "
    assert [call["function"]["name"] for call in reply.tool_calls] == ["now"]
    assert _says(model, 'Yes <tool_call>{"name": "now"}</tool_call>')[1].text == 'Yes {"name": "now"}'


# --- thinking --------------------------------------------------------------------------------------------------


def test_what_a_reasoning_model_thinks_is_kept_apart() -> None:
    model = _with_control_tokens("<think>", "</think>", hint="<think>")
    pieces, reply = _says(model, '<think>Hm. <tool_call>{"name": "now"}</tool_call></think>Two.', [NOW])
    assert "".join(pieces) == reply.text == "Two."
    assert reply.reasoning == 'Hm. <tool_call>{"name": "now"}</tool_call>'
    assert (reply.tool_calls, reply.finish_reason) == ((), "stop")


def test_a_model_whose_template_knows_no_thinking_says_what_it_says() -> None:
    reply = _says(tiny_model(), "<think>Hm</think>Two.")[1]
    assert (reply.text, reply.reasoning) == ("<think>Hm</think>Two.", "")


def test_thinking_that_the_prompt_opened_ends_where_the_answer_begins() -> None:
    plain = tiny_counter()
    opened = TINY_TEMPLATE.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
    counter = TemplateCounter(plain.tokenizer, opened, name="opened", variables=plain.variables)
    assert opened != TINY_TEMPLATE
    reply = _says(LocalModel(tiny_llama(), counter), "Hm</think>Two.")[1]
    assert (reply.text, reply.reasoning) == ("Two.", "Hm")


# --- a given form ----------------------------------------------------------------------------------------------

SCHEMA = ADD["function"]["parameters"]  # type: ignore[index] # pyright: ignore[reportArgumentType, reportIndexIssue]
AS_SCHEMA = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}


@pytest.mark.skipif(find_spec("xgrammar") is not None, reason="the extra `structured` is installed")
def test_the_extra_that_is_missing_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"xgrammar.*\[structured\]"):
        tiny_model().stream("Hello", Sampling(response_format=AS_SCHEMA))


@needs_xgrammar
@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=1.5, seed=3), Sampling(temperature=1.0, top_k=3)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_answer_after_a_schema_is_valid_json_of_it(seed: int, sampling: Sampling) -> None:
    reply = tiny_model(seed).generate("Hello", replace(sampling, max_tokens=250, response_format=AS_SCHEMA))
    assert reply.finish_reason == "stop"
    found = json.loads(reply.text)
    assert set(found) == {"a", "sure"} and found["sure"] in (True, False) and 0 <= found["a"] <= 99


@needs_xgrammar
def test_a_string_holds_neither_control_tokens_nor_raw_control_characters() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "string", "minLength": 3, "maxLength": 6}}}
    for seed in range(16):
        reply = tiny_model(seed % 3).generate(
            "Hello", Sampling(max_tokens=99, response_format=form, temperature=3.0, seed=seed)
        )
        assert 3 <= len(json.loads(reply.text)) <= 6


@needs_xgrammar
def test_a_length_that_is_too_short_is_said() -> None:
    reply = tiny_model().generate("Hello", Sampling(max_tokens=4, response_format=AS_SCHEMA))
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 4)


@needs_xgrammar
@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"type": "regex", "regex": "(ab|cd){2,3}"}, "(ab|cd){2,3}"),
        ({"type": "grammar", "grammar": 'root ::= "yes" | "no"'}, "yes|no"),
    ],
)
def test_a_regex_and_a_grammar_are_kept(form: dict[str, Any], pattern: str) -> None:
    for seed in range(3):
        reply = tiny_model().generate("Hello", Sampling(response_format=form, temperature=1.0, seed=seed))
        assert re.fullmatch(pattern, reply.text) and reply.finish_reason == "stop"


@needs_xgrammar
def test_any_json_object_begins_and_goes_on_as_one() -> None:
    reply = tiny_model().generate("Hello", Sampling(max_tokens=30, response_format={"type": "json_object"}))
    assert reply.text.startswith("{")
    assert reply.finish_reason == "length" or isinstance(json.loads(reply.text), dict)


@needs_xgrammar
def test_speculation_keeps_the_form_and_the_answer() -> None:
    model = tiny_model()
    sampling = Sampling(max_tokens=60, response_format={"type": "regex", "regex": "([a-c]{2} ){12}"})
    plain = model.generate("ab ab ab ab ab ab", sampling)
    model.speculation = NGram(token_cost=0.0)
    assert model.generate("ab ab ab ab ab ab", sampling) == plain


@needs_xgrammar
@pytest.mark.parametrize(("choice", "names"), [("required", {"add", "now"}), ({"function": {"name": "add"}}, {"add"})])
@pytest.mark.parametrize("hint", ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"])
def test_a_call_that_is_required_is_made_and_is_valid(choice: Any, names: set[str], hint: str) -> None:
    plain = tiny_counter()
    template = TINY_TEMPLATE + "{# " + hint + " #}"
    counter = TemplateCounter(plain.tokenizer, template, name="hinted", variables=plain.variables)
    model = LocalModel(tiny_llama(), counter)
    for seed in range(1):
        sampling = Sampling(max_tokens=300, tool_choice=choice, temperature=1.0, seed=seed)
        reply = model.generate(Asked(tools=(ADD, NOW)), sampling)
        assert (reply.text, reply.finish_reason, len(reply.tool_calls)) == ("", "tool_calls", 1)
        function = reply.tool_calls[0]["function"]
        assert function["name"] in names
        assert set(json.loads(function["arguments"])) == ({"a", "sure"} if function["name"] == "add" else set())


@needs_xgrammar
@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}},
        {"type": "regex", "regex": "("},
        {"type": "grammar", "grammar": "root ::= ("},
    ],
)
def test_a_form_that_makes_no_sense_is_refused_before_anything_is_computed(form: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="cannot be made a grammar"):
        tiny_model().stream("Hello", Sampling(response_format=form))


@needs_xgrammar
def test_a_model_that_never_ends_can_give_no_form() -> None:
    with pytest.raises(ModelError, match="eos_ids"):
        LocalModel(tiny_llama(), tiny_counter(), eos_ids=()).stream("Hello", Sampling(response_format=AS_SCHEMA))


def test_a_tool_that_the_request_has_not_cannot_be_required() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "other"}}):
        with pytest.raises(PromptError, match="the request's tools: none"):
            Forms(tiny_counter(), 280, {2}).constraint((), Sampling(tool_choice=choice))


def test_text_is_a_form_that_constrains_nothing() -> None:
    assert Forms(tiny_counter(), 280, {2}).constraint((), Sampling(response_format={"type": "text"})) is None


@pytest.mark.parametrize(
    "form",
    [{}, {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {}}, {"type": "regex"}],
)
def test_a_response_format_of_no_known_type_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="response_format"):
        Sampling(response_format=form)


def test_a_tool_choice_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="tool_choice"):
        Sampling(tool_choice="always")
