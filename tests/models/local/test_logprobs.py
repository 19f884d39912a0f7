"""Log-probabilities of an answer: those of the model itself, whatever the sampling does to them."""

from __future__ import annotations

import pytest
import torch

from ctxkit.models import LocalModel
from ctxkit.models.local import NGram
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_model


def test_none_are_given_unless_asked_for(tiny: LocalModel) -> None:
    assert tiny.generate("Hello", Sampling(max_tokens=4)).logprobs == ()


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_they_are_what_score_gives_for_the_same_tokens(tiny: LocalModel, temperature: float) -> None:
    sampling = Sampling(max_tokens=12, logprobs=0, temperature=temperature, top_k=50, seed=1, frequency_penalty=1.0)
    found = tiny.generate("Hello 42", sampling).logprobs
    ids = [one.id for one in found if one.id is not None]
    assert len(ids) == 12
    expected = tiny.score(tiny.prompt_ids("Hello 42"), ids)
    assert [one.logprob for one in found] == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(one.top == () for one in found)


def test_the_top_are_the_likeliest_in_order_and_greedy_takes_the_first(tiny: LocalModel) -> None:
    found = tiny.generate("Hello 42", Sampling(max_tokens=6, logprobs=5)).logprobs
    first = torch.from_numpy(tiny.logits(tiny.prompt_ids("Hello 42"))[0]).log_softmax(-1).topk(5)
    assert [one.id for one in found[0].top] == first.indices.tolist()
    assert [one.logprob for one in found[0].top] == pytest.approx(first.values.tolist(), abs=1e-4)
    assert all(
        (one.top[0].id, one.top[0].token, one.top[0].logprob) == (one.id, one.token, one.logprob) for one in found
    )


def test_the_tokens_spell_the_text_and_the_end_token_is_not_among_them(tiny: LocalModel) -> None:
    plain = tiny.generate("Hello 42", Sampling(max_tokens=12, logprobs=0))
    ending = LocalModel(tiny.model, tiny.counter, eos_ids={plain.logprobs[7].id or 0})
    reply = ending.generate("Hello 42", Sampling(max_tokens=12, logprobs=0))
    assert reply.completion_tokens == len(reply.logprobs) + 1
    ids = [one.id for one in reply.logprobs if one.id is not None]
    assert tiny.counter.tokenizer.decode(ids).rstrip("\ufffd") == reply.text


def test_speculation_gives_the_same() -> None:
    model = tiny_model()
    sampling = Sampling(max_tokens=30, logprobs=2)
    plain = model.generate("one two one two one two", sampling)
    model.speculation = NGram(token_cost=0.0)
    drafted = model.generate("one two one two one two", sampling)
    assert [one.id for one in drafted.logprobs] == [one.id for one in plain.logprobs]
    for one, other in zip(plain.logprobs, drafted.logprobs, strict=True):
        assert other.logprob == pytest.approx(one.logprob, abs=1e-4)


@pytest.mark.parametrize("wrong", [-1, 21])
def test_a_number_that_no_api_takes_is_refused(wrong: int) -> None:
    with pytest.raises(ValueError, match="logprobs"):
        Sampling(logprobs=wrong)
