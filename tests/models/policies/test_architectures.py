"""The store reads every architecture's attention as transformers computes it, and refuses what it cannot turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctxkit.errors import ModelError, PolicyError
from ctxkit.models.local import Engine
from ctxkit.models.local.paging import context as contexts
from ctxkit.models.local.policies import LMInfinite, LogN, Policy, StreamingLLM, ZeroTuning
from ctxkit.models.local.policies.base import FAR, SLIDING
from tests.models.policies import architectures
from tests.models.policies.architectures import FIXED, PLACEABLE, SLIDING_KINDS, made

Make = Callable[[], Any]

IDS = np.random.default_rng(3).integers(3, 119, 90).tolist()


def _name(make: Make) -> str:
    return make.__name__


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "FRAME_TOKENS", 32)


def fed(engine: Engine, policy: Policy, cut: int = 40) -> Tensor:
    """Logits after each id: a prompt in uneven passes, then one by one."""
    context = engine.new_context(policy)
    logits = [engine.forward(IDS[a:b], context, keep=b - a) for a, b in ((0, cut), (cut, cut + 1), (cut + 1, 70))]
    logits += [engine.step([context], [token]) for token in IDS[70:]]
    engine.close(context)
    return torch.cat(logits)


def alone(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([IDS])).logits[0]


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("make", [*PLACEABLE, *FIXED], ids=_name)
def test_full_attention_gives_the_logits_of_transformers(make: Make) -> None:
    model = made(make())
    assert error(fed(Engine(model), Policy()), alone(model)) < 1e-4


@pytest.mark.parametrize("make", PLACEABLE, ids=_name)
def test_a_window_as_wide_as_the_text_is_full_attention(make: Make) -> None:
    """Where nothing is out of reach, and no layer slides less far, placing changes nothing."""
    model = made(make())
    assert error(fed(Engine(model), StreamingLLM(4, 200)), alone(model)) < 1e-4


@pytest.mark.parametrize("make", PLACEABLE, ids=_name)
def test_how_a_text_is_cut_does_not_matter_to_a_stream(make: Make) -> None:
    engine = Engine(made(make()))
    assert error(fed(engine, StreamingLLM(2, 10), cut=40), fed(engine, StreamingLLM(2, 10), cut=7)) < 1e-4


@pytest.mark.parametrize("make", SLIDING_KINDS, ids=_name)
def test_layers_that_slide_are_left_alone(make: Make) -> None:
    """A policy that sees one token leaves a sliding layer its window; a model of sliding layers does not change."""
    engine = Engine(made(make()))
    context = engine.new_context(StreamingLLM(0, 1))
    slides = [layer for layer, of in enumerate(engine.shape.layers) if of.sliding is not None]
    tracks = [track for track in context.tracks if track.label == SLIDING]
    assert sorted(layer for track in tracks for layer in track.rows) == slides
    assert {context.reach(track).recent for track in tracks} == {24}  # type: ignore[union-attr]
    difference = error(fed(engine, StreamingLLM(0, 1)), alone(engine.model))
    assert difference < 1e-4 if len(slides) == len(engine.shape.layers) else difference > 1e-2


def test_sliding_layers_forget_what_they_cannot_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts.KVContext, "slack_tokens", 4)
    engine = Engine(made(architectures.gemma3()))
    context = engine.new_context()
    engine.prefill(IDS, context)
    kept = {track.label == SLIDING: track.tokens for track in context.tracks}
    assert kept[False] == len(IDS)
    assert kept[True] < 24 + 4


@pytest.mark.parametrize("make", FIXED, ids=_name)
def test_placing_is_refused_where_the_rotation_is_not_understood(make: Make) -> None:
    engine = Engine(made(make()))
    assert not engine.shape.turnable
    for policy in (StreamingLLM(), LMInfinite(), StreamingLLM() | ZeroTuning(0.5)):
        with pytest.raises(PolicyError, match="cannot be turned"):
            engine.new_context(policy)


@pytest.mark.parametrize("make", FIXED, ids=_name)
def test_policies_that_place_nothing_work_without_rotations(make: Make) -> None:
    engine = Engine(made(make()))
    assert error(fed(engine, ZeroTuning(1.0) | LogN(FAR)), alone(engine.model)) < 1e-4


def test_rotations_are_read_off_each_layer() -> None:
    full, sliding = (Engine(made(architectures.gemma3())).shape.layers[number].frequencies for number in (1, 0))
    assert full is not None and sliding is not None
    assert not torch.equal(full, sliding)


def test_a_padding_token_of_zeros_does_not_hide_the_rotation() -> None:
    """Every rotation explains a query of zeros; the probe must look at others."""
    model = made(architectures.interleaved())
    with torch.no_grad():
        model.get_input_embeddings().weight[0] = 0
    assert not Engine(model).shape.turnable


def test_a_model_whose_queries_are_all_zeros_is_refused() -> None:
    model = made(architectures.llama())
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    with pytest.raises(ModelError, match="no rotation shows"):
        Engine(model)
