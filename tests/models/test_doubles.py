"""The test doubles that ctxkit ships."""

from __future__ import annotations

import doctest

import pytest
import torch

import ctxkit.models.text
import ctxkit.testing.counter
import ctxkit.testing.scripted
from ctxkit.errors import ModelError, PromptError, RemoteUnavailable
from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Sampling, Segment
from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_llama


def test_words_are_charged_to_the_owner_of_their_first_character() -> None:
    message = PromptMessage("user", (Segment("one tw", "a"), Segment("o three", "b"), Segment(" glue")), owner="a")
    called = PromptMessage("assistant", (), tool_calls=({"id": "1"},), owner="c")
    rendering = WhitespaceCounter().render([message, called], tools=[{"type": "function"}])
    assert rendering.by_owner == {"a": 2, "b": 1, "c": 2, TOOLS: 2, TEMPLATE: 3 + 3 + 2 + 1}
    assert rendering.ids is not None
    assert rendering.tokens == len(rendering.ids) == sum(rendering.by_owner.values())


def test_ids_are_stable_and_tell_words_apart() -> None:
    def ids(text: str) -> tuple[int, ...] | None:
        return WhitespaceCounter().render([PromptMessage("user", (Segment(text),))]).ids

    assert ids("a b") == ids("a b")
    assert ids("a b") != ids("a c")


def test_a_scripted_model_records_what_it_saw_and_runs_out() -> None:
    model = ScriptedModel(["one", RemoteUnavailable("down"), [{"id": "1"}]])
    assert model.generate("first").text == "one"
    with pytest.raises(RemoteUnavailable, match="down"):
        model.generate("second")
    reply = model.generate([{"role": "system", "content": "third"}])
    assert (reply.finish_reason, reply.tool_calls) == ("tool_calls", ({"id": "1"},))
    with pytest.raises(ModelError, match="3 replies"):
        model.generate("fourth")
    assert [request.messages[0].content for request in model.prompts] == ["first", "second", "third", "fourth"]


def test_a_scripted_model_can_answer_by_a_function() -> None:
    model = ScriptedModel(lambda request: request.messages[-1].content.upper())
    assert model.generate("shout").text == "SHOUT"


def test_a_scripted_model_keeps_to_its_window() -> None:
    model = ScriptedModel(["x"], window_tokens=10)
    with pytest.raises(PromptError, match=r"6 tokens and `max_tokens` is 5"):
        model.generate("one", Sampling(max_tokens=5))
    assert model.generate("one", Sampling(max_tokens=4)).prompt_tokens == 6


def test_a_tiny_llama_is_the_same_for_a_seed_and_leaves_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    one, same, other = tiny_llama(1).state_dict(), tiny_llama(1).state_dict(), tiny_llama(2).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("module", [ctxkit.models.text, ctxkit.testing.counter, ctxkit.testing.scripted])
def test_the_examples_in_the_docstrings_run(module: object) -> None:
    outcome = doctest.testmod(module)  # pyright: ignore[reportArgumentType]
    assert outcome.attempted > 0
    assert outcome.failed == 0
