"""A prompt that begins as an earlier one is read from where they differ, and answered the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctxkit.models import LocalModel
from ctxkit.models.local.policies import Full, StreamingLLM
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_counter, tiny_llama, tiny_model

SHORT = Sampling(max_tokens=6)


@pytest.fixture
def model() -> LocalModel:
    return tiny_model()


def _read(model: LocalModel, prompt: str) -> tuple[str, int]:
    """The answer, and how many tokens were fed for it."""
    fed = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        fed.append(kwargs["input_ids"].shape[1])

    hook = model.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        return model.generate(prompt, SHORT).text, sum(fed)
    finally:
        hook.remove()


def test_a_second_question_over_a_document_reads_the_question_alone(model: LocalModel) -> None:
    document = "the rain in the lane. " * 30
    _read(model, document + "Where is it?")
    text, fed = _read(model, document + "What is it?")
    fresh, all_fed = _read(tiny_model(), document + "What is it?")
    assert text == fresh
    assert fed < 40 < 300 < all_fed


def test_the_same_prompt_again_is_answered_the_same(model: LocalModel) -> None:
    first, _ = _read(model, "the rain in the lane " * 9)
    second, fed = _read(model, "the rain in the lane " * 9)
    assert second == first
    assert fed == SHORT.max_tokens  # the prompt's last token, and five of the answer


def test_a_dialogue_goes_on_from_its_answer(model: LocalModel) -> None:
    ids = list(np.random.default_rng(0).integers(3, 270, 100))
    context = model.engine.begin(ids)
    model.engine.prefill(ids, context)
    model.engine.finish(context)
    assert len(model.engine.begin([*ids, 5, 6, 7])) == 100
    assert len(model.engine.begin(ids[:60])) == 59
    assert len(model.engine.begin([9, *ids])) == 0


def test_another_policy_starts_anew_and_a_window_that_moved_on_is_not_gone_back_in(model: LocalModel) -> None:
    ids = list(np.random.default_rng(0).integers(3, 270, 300))
    for policy in (Full(), StreamingLLM(4, 40)):
        context = model.engine.begin(ids, policy)
        assert len(context) == 0
        model.engine.prefill(ids, context)
        model.engine.finish(context)
    assert len(model.engine.begin([*ids, 7], StreamingLLM(4, 40))) == 300
    assert len(model.engine.begin(ids[:150], StreamingLLM(4, 40))) == 0


def test_what_is_kept_stays_within_its_bytes_and_leaves_when_memory_is_needed() -> None:
    model = LocalModel(tiny_llama(), tiny_counter(), max_kv_bytes=400_000)
    engine = model.engine
    for seed in range(20):
        ids = list(np.random.default_rng(seed).integers(3, 270, 60))
        context = engine.begin(ids)
        engine.prefill(ids, context)
        engine.finish(context)
    assert 1 <= len(engine.prefixes) < 20
    assert engine.prefixes.used_bytes <= engine.prefixes.max_bytes == 50_000
    with model.session() as session:
        session.step(list(np.random.default_rng(0).integers(3, 270, 700)))
    while engine.prefixes.give_back():
        pass
    assert engine.pool.used == 0


def test_nothing_is_kept_where_nothing_may_be() -> None:
    model = LocalModel(tiny_llama(), tiny_counter(), prefix_bytes=0)
    model.generate("the rain " * 20, SHORT)
    assert len(model.engine.prefixes) == 0 == model.engine.pool.used
