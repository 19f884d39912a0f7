"""LocalModel against transformers itself, on a tiny random Llama."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ctxkit.errors import ModelNotFound, ModelNotPrepared, PromptError
from ctxkit.models import DEFAULT_MODEL, LocalModel, prepare
from ctxkit.models.prepare import is_prepared, model_folder
from ctxkit.protocols import PromptMessage, Sampling, Segment
from ctxkit.testing import tiny_counter, tiny_llama, tiny_model

PROMPTS = ["Hello 42", "", "naïve café 🎉 日本 " * 40, "<|im_end|> is text"]


class Passes(list[int]):
    """Positions of each forward pass."""


@pytest.fixture
def passes(tiny: LocalModel) -> Iterator[Passes]:
    seen = Passes()

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["input_ids"].shape[1])

    hook = tiny.model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def _transformers_greedy(model: LocalModel, ids: tuple[int, ...], n: int) -> list[int]:
    batch = torch.tensor([ids])
    out = model.model.generate(  # pyright: ignore[reportCallIssue]
        batch, attention_mask=torch.ones_like(batch), do_sample=False, max_new_tokens=n
    )
    return out[0, len(ids) :].tolist()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_greedy_text_is_that_of_transformers_generate(prompt: str, seed: int) -> None:
    model = tiny_model(seed)
    theirs = _transformers_greedy(model, model.prompt_ids(prompt), 48)
    reply = model.generate(prompt, Sampling(max_tokens=48))
    assert reply.text == model.counter.tokenizer.decode(theirs).rstrip("\ufffd")
    assert reply.completion_tokens == len(theirs)


def test_the_prompt_is_read_in_chunks_and_the_answer_is_the_same(tiny: LocalModel, passes: Passes) -> None:
    whole = tiny.generate("word " * 60, Sampling(max_tokens=8))
    length = sum(passes) - 7
    small = LocalModel(tiny.model, tiny.counter, prefill_tokens=50)
    passes.clear()
    assert small.generate("word " * 60, Sampling(max_tokens=8)) == whole
    assert passes == [50] * (length // 50) + [length % 50] + [1] * 7


def test_prompt_tokens_are_the_ids_fed(tiny: LocalModel, passes: Passes) -> None:
    prompt = "What nobody has asked before"
    reply = tiny.generate(prompt, Sampling(max_tokens=1))
    message = PromptMessage("user", (Segment(prompt),))
    assert passes == [reply.prompt_tokens] == [tiny.render([message]).tokens] == [len(tiny.prompt_ids(prompt))]


def test_an_eos_token_ends_the_answer_and_counts_but_does_not_show(tiny: LocalModel) -> None:
    ids = _transformers_greedy(tiny, tiny.prompt_ids("Hello 42"), 6)
    ending = LocalModel(tiny.model, tiny.counter, eos_ids={ids[5]})
    reply = ending.generate("Hello 42", Sampling(max_tokens=40))
    assert reply.finish_reason == "stop"
    assert reply.completion_tokens == ids.index(ids[5]) + 1
    assert reply.text == tiny.counter.tokenizer.decode(ids[: ids.index(ids[5])]).rstrip("\ufffd")


def test_eos_ids_come_from_config_and_tokenizer() -> None:
    weights = tiny_llama()
    weights.generation_config.eos_token_id = [7, 8]  # pyright: ignore[reportOptionalMemberAccess]
    weights.config.eos_token_id = 9
    assert LocalModel(weights, tiny_counter()).eos_ids == {7, 8, 9, 2}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=16, temperature=1.0, seed=3),
        Sampling(max_tokens=16, temperature=0.7, top_p=0.9, top_k=20, seed=4),
    ],
)
def test_a_seed_reproduces_and_leaves_the_global_generator_alone(tiny: LocalModel, sampling: Sampling) -> None:
    before = torch.random.get_rng_state()
    first = tiny.generate("Hello", sampling)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert tiny.generate("Hello", sampling) == first


def test_another_seed_gives_another_answer(tiny: LocalModel) -> None:
    texts = {tiny.generate("Hello", Sampling(max_tokens=16, temperature=1.0, seed=seed)).text for seed in range(4)}
    assert len(texts) > 1


def test_top_k_of_one_is_greedy(tiny: LocalModel) -> None:
    greedy = tiny.generate("Hello", Sampling(max_tokens=16))
    assert tiny.generate("Hello", Sampling(max_tokens=16, temperature=2.0, top_k=1)) == greedy


def test_a_dropped_stream_stops_computing(tiny: LocalModel, passes: Passes) -> None:
    stream = tiny.stream("Hello", Sampling(max_tokens=200))
    next(stream)
    done = len(passes)
    assert 1 <= done < 10
    del stream
    gc.collect()
    tiny.generate("Hello", Sampling(max_tokens=1))  # the lock is free
    assert len(passes) == done + 1


def test_a_cancelled_task_stops_computing(tiny: LocalModel, passes: Passes) -> None:
    async def cancel_after_the_prompt() -> None:
        task = asyncio.create_task(tiny.agenerate("Hello", Sampling(max_tokens=1000)))
        while not passes:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_after_the_prompt())  # waits for the worker thread
    assert len(passes) < 900
    done = len(passes)
    tiny.generate("Hello", Sampling(max_tokens=1))
    assert len(passes) == done + 1


def test_two_streams_take_turns(tiny: LocalModel) -> None:
    sampling = Sampling(max_tokens=24)
    alone = [list(tiny.stream(prompt, sampling)) for prompt in ("Hello", "Other")]
    one, two = tiny.stream("Hello", sampling), tiny.stream("Other", sampling)
    first = [next(one), next(two)]
    assert [[first[0], *one], [first[1], *two]] == alone


def test_a_prompt_too_long_for_window_and_answer_is_refused_with_both_numbers() -> None:
    model = tiny_model(window_tokens=64)
    prompt_tokens = len(model.prompt_ids("Hello"))
    assert model.generate("Hello", Sampling(max_tokens=64 - prompt_tokens)).prompt_tokens == prompt_tokens
    with pytest.raises(PromptError, match=rf"{prompt_tokens} tokens and `max_tokens` is {65 - prompt_tokens}.* 64\b"):
        model.stream("Hello", Sampling(max_tokens=65 - prompt_tokens))


@dataclass
class PlanLike:
    messages: tuple[PromptMessage, ...]
    ids: tuple[int, ...] | None
    counter_name: str
    tools: tuple[Any, ...] = ()


def test_the_ids_of_a_plan_made_with_this_counter_are_fed_and_others_are_not(tiny: LocalModel) -> None:
    messages = (PromptMessage("user", (Segment("Hello"),)),)
    own = PlanLike(messages, ids=(5, 6, 7), counter_name=tiny.name)
    foreign = PlanLike(messages, ids=(5, 6, 7), counter_name="another")
    estimated = PlanLike(messages, ids=None, counter_name=tiny.name)
    assert tiny.prompt_ids(own) == (5, 6, 7)
    assert tiny.prompt_ids(foreign) == tiny.prompt_ids(estimated) == tiny.prompt_ids("Hello")


def test_ids_outside_the_vocabulary_are_refused(tiny: LocalModel) -> None:
    with pytest.raises(PromptError, match="made for this model"):
        tiny.generate(PlanLike((PromptMessage("user", ()),), (10**6,), tiny.name))


def test_it_counts_as_its_counter_does(tiny: LocalModel) -> None:
    assert tiny.exact
    assert tiny.count("Hello 42") == tiny.counter.count("Hello 42")
    assert tiny.count_batch(["a", "bc 1"]) == tiny.counter.count_batch(["a", "bc 1"])


def test_tools_reach_the_prompt(tiny: LocalModel) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    messages = (PromptMessage("user", (Segment("Hello"),)),)
    plan = PlanLike(messages, None, tiny.name, tools=(tool,))
    assert "look_up" in tiny.counter.tokenizer.decode(list(tiny.prompt_ids(plan)))


@pytest.mark.parametrize("split", [1, 30, 89])
def test_score_is_the_log_softmax_of_a_plain_forward_pass(split: int) -> None:
    weights = tiny_llama().double()
    model = LocalModel(weights, tiny_counter(), prefill_tokens=16)
    ids = torch.randint(0, 260, (90,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.inference_mode():
        rows = weights(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)  # float64 [90, vocabulary]
    expected = [rows[i - 1, ids[i]].item() for i in range(split, 90)]
    scores = model.score(ids[:split], ids[split:])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_score_of_nothing_is_empty_and_of_no_prompt_an_error(tiny: LocalModel) -> None:
    assert tiny.score([1, 2], []).shape == (0,)
    with pytest.raises(PromptError, match="empty"):
        tiny.score([], [1])


def test_logits_are_those_of_a_plain_forward_pass(tiny: LocalModel) -> None:
    ids = list(range(3, 43))
    with torch.inference_mode():
        plain = tiny.model(input_ids=torch.tensor([ids])).logits[0].numpy()
    chunked = LocalModel(tiny.model, tiny.counter, prefill_tokens=7)
    np.testing.assert_allclose(chunked.logits(ids, last=20), plain[-20:], atol=1e-4)
    assert chunked.logits(ids).shape == (1, plain.shape[1])


def test_a_saved_model_loads_and_answers_the_same(tiny: LocalModel, tmp_path: Any) -> None:
    tiny.model.save_pretrained(tmp_path)
    tiny.counter.tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}')
    (tmp_path / "chat_template.jinja").write_text(tiny.counter.chat_template)
    loaded = LocalModel.load(tmp_path, device="cpu")
    assert (
        loaded.generate("Hello 42", Sampling(max_tokens=8)).text
        == tiny.generate("Hello 42", Sampling(max_tokens=8)).text
    )
    assert LocalModel.load(tmp_path, device="cpu", dtype="bfloat16").model.dtype is torch.bfloat16
    with pytest.raises(ValueError, match="dtype"):
        LocalModel.load(tmp_path, dtype="int8")


def test_what_cannot_be_loaded_says_why(tmp_path: Any) -> None:
    with pytest.raises(ModelNotPrepared, match=f"ctxkit models prepare {DEFAULT_MODEL}"):
        LocalModel.load(cache_dir=tmp_path)
    with pytest.raises(ModelNotFound, match="config.json"):
        LocalModel.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tiny_counter().tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("x")
    with pytest.raises(ModelNotFound, match="can be loaded"):
        LocalModel.load(tmp_path)


def test_an_image_is_refused_by_name(tiny: LocalModel) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(PromptError, match="reads text only; leave out the blocks of type image_url"):
        tiny.generate([{"role": "user", "content": [{"type": "text", "text": "Look"}, image]}])


@pytest.fixture(scope="module")
def smollm2() -> LocalModel:
    if not is_prepared(model_folder(DEFAULT_MODEL)):
        pytest.skip(f"{DEFAULT_MODEL} is not prepared; run: ctxkit models prepare {DEFAULT_MODEL}")
    return LocalModel.load()


def test_the_default_model_answers_sensibly(smollm2: LocalModel) -> None:
    reply = smollm2.generate("What is the capital of France?", Sampling(max_tokens=12))
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"


def test_the_default_tokenizer_splits_as_the_model_was_trained(smollm2: LocalModel) -> None:
    tokenizer = smollm2.counter.tokenizer
    # White space before digits stays together, and digits stand alone: the rule that GGUF loading drops.
    assert tokenizer.encode("a  12\n\n34", add_special_tokens=False).tokens == ["a", "ĠĠ", "1", "2", "ĊĊ", "3", "4"]
    assert smollm2.eos_ids == {2}
    text = tokenizer.decode(list(smollm2.prompt_ids("Hi")), skip_special_tokens=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert prepare(DEFAULT_MODEL) == model_folder(DEFAULT_MODEL)
