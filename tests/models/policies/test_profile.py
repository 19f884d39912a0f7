"""The head profile: what heads do with repeated random tokens, kept on disk, and what RazorAttention makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctxkit.errors import ModelError, PolicyError
from ctxkit.models.local import Engine
from ctxkit.models.local.inspection import inspect_model
from ctxkit.models.local.policies import Policy, RazorAttention
from ctxkit.models.local.profile import HeadProfile, cached_head_profile, fingerprint, head_profile
from ctxkit.testing import tiny_llama, tiny_model
from tests.models.policies import architectures
from tests.models.policies.architectures import made


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_llama(), prefill_tokens=50)


def scored(**best: dict[tuple[int, int], float]) -> HeadProfile:
    """Of 10 layers of 6 heads."""
    arrays = {name: np.zeros((10, 6), np.float32) for name in ("echo", "induction", "sink")}
    for name, values in best.items():
        for at, value in values.items():
            arrays[name][at] = value
    return HeadProfile(**arrays, tokens=100)


def test_scores_are_those_of_the_attention_that_transformers_computes(engine: Engine) -> None:
    found = head_profile(engine, tokens=120, copies=3)
    ids = np.tile(np.random.default_rng(0).integers(0, 273, 40), 3)
    model = tiny_llama()
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        every = model(torch.tensor(ids)[None], output_attentions=True).attentions
    for layer, probabilities in enumerate(one[0].numpy() for one in every):  # [heads, queries, tokens]
        queries = range(40, 120)
        earlier = [np.arange(query % 40, query, 40) for query in queries]
        for offset, score in ((0, found.echo), (1, found.induction)):
            pairs = zip(queries, earlier, strict=True)
            sums = [probabilities[:, query, at + offset].sum(-1) for query, at in pairs]
            np.testing.assert_allclose(score[layer], np.mean(sums, axis=0), rtol=1e-4)
        np.testing.assert_allclose(found.sink[layer], probabilities[:, 40:, :4].sum(-1).mean(-1), rtol=1e-4)
    assert found.tokens == 120


def test_it_does_not_matter_how_the_tokens_were_cut(engine: Engine) -> None:
    one, other = head_profile(engine, tokens=120), head_profile(Engine(tiny_llama()), tokens=120)
    for name in ("echo", "induction", "sink"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4)


def test_a_profile_leaves_no_memory_behind(engine: Engine) -> None:
    before = engine.pool.used
    head_profile(engine, tokens=40)
    assert engine.pool.used == before


def test_heads_of_layers_that_slide_retrieve_nothing_from_behind_their_window() -> None:
    found = head_profile(Engine(made(architectures.gemma2())), tokens=120, copies=2)  # 60 tokens back, window 24
    assert not found.echo[0].any() and not found.sink[0].any()
    assert found.echo[1].all() and found.sink[1].all()


@pytest.mark.parametrize(("tokens", "copies"), [(100, 1), (3, 2), (0, 4)])
def test_nothing_that_comes_again_is_no_profile(engine: Engine, tokens: int, copies: int) -> None:
    with pytest.raises(ValueError, match="at least 2 `copies`"):
        head_profile(engine, tokens=tokens, copies=copies)


def test_retrieval_heads_are_the_best_of_either_score() -> None:
    profile = scored(echo={(3, 0): 0.9, (4, 0): 0.5}, induction={(5, 5): 0.8, (6, 2): 0.7, (7, 1): 0.6})
    chosen = profile.retrieval_heads(3, echo_share=0.01, induction_share=2 / 60)
    assert [tuple(pair) for pair in np.argwhere(chosen).tolist()] == [(3, 0), (5, 2), (6, 1)]


def test_a_share_of_all_is_all_and_of_none_is_the_best_head() -> None:
    assert scored().retrieval_heads(3, echo_share=1.0).all()
    assert scored().retrieval_heads(3, echo_share=0, induction_share=0).sum() == 1


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_at_most_all(share: float) -> None:
    with pytest.raises(ValueError, match="shares must be in"):
        scored().retrieval_heads(3, induction_share=share)


def test_a_profile_comes_back_from_disk_as_it_was(tmp_path: Path, engine: Engine) -> None:
    profile = head_profile(engine, tokens=40)
    profile.save(tmp_path / "deep" / "one.npz")
    again = HeadProfile.load(tmp_path / "deep" / "one.npz")
    for name in ("echo", "induction", "sink", "tokens"):
        assert np.array_equal(getattr(again, name), getattr(profile, name))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.npz"]


def test_a_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    with pytest.raises(ModelError, match="holds no head profile"):
        HeadProfile.load(path)
    for content in (b"", b"PK\x03\x04 cut off", b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="holds no head profile"):
            HeadProfile.load(path)
    np.savez(path, echo=np.zeros((2, 2)), induction=np.zeros((3, 2)), sink=np.zeros((2, 2)), tokens=4)
    with pytest.raises(ModelError, match="not of one model"):
        HeadProfile.load(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", echo=np.array([print], dtype=object), induction=0, sink=0, tokens=0)
    with pytest.raises(ModelError, match="holds no head profile"):
        HeadProfile.load(tmp_path / "one.npz")


def test_a_model_is_measured_once(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached_head_profile(engine, tmp_path)
    monkeypatch.setattr(Engine, "forward", None)  # another measurement would fail
    assert np.array_equal(cached_head_profile(engine, tmp_path).echo, first.echo)


def test_a_damaged_file_is_measured_anew(tmp_path: Path, engine: Engine) -> None:
    (path,) = (tmp_path / f"{fingerprint(engine)}.npz",)
    path.write_bytes(b"half of")
    measured = cached_head_profile(engine, tmp_path)
    assert np.array_equal(HeadProfile.load(path).echo, measured.echo)


def test_other_weights_are_another_model(engine: Engine) -> None:
    assert fingerprint(engine) == fingerprint(Engine(tiny_llama()))
    assert fingerprint(engine) != fingerprint(Engine(tiny_llama(seed=1)))
    assert fingerprint(engine) != fingerprint(Engine(tiny_llama(window_tokens=4096)))


def test_streaming_heads_give_their_memory_back(engine: Engine) -> None:
    """Seven of eight KV-head pairs stream in a window of 20: a real eviction, head by head."""
    razor = RazorAttention(head_profile(engine, tokens=80), induction_share=0.01, sinks=2, recent=20)
    chosen = int(razor.profile.retrieval_heads(2, 0.01, 0.01).sum())
    contexts = [engine.new_context(policy) for policy in (razor, Policy())]
    for context in contexts:
        engine.prefill(list(range(3, 203)) * 3, context)
    kept = sorted(track.tokens for track in contexts[0].tracks)
    assert kept[0] < 20 + 2 + contexts[0].slack_tokens and kept[-1] == 600
    assert contexts[0].used_bytes < (chosen / 4 + 0.25) * contexts[1].used_bytes
    for context in contexts:
        engine.close(context)


def test_the_profile_of_another_model_is_refused(engine: Engine) -> None:
    with pytest.raises(PolicyError, match="10 layers of 6 heads, and the model has 2 of 4"):
        engine.new_context(RazorAttention(scored()))


def test_an_inspection_says_what_a_model_is(tmp_path: Path) -> None:
    found = inspect_model(tiny_model(), tmp_path)
    assert (found.architecture, found.layers, found.heads, found.kv_heads) == ("LlamaForCausalLM", 2, 4, 2)
    assert found.token_bytes == 2 * 2 * (16 + 16) * 4
    assert found.turnable and not found.sliding
    told: dict[str, Any] = found.as_json()
    assert np.allclose(told["sink"], found.profile.sink, atol=1e-4)
    assert told["retrieval_heads"] and "profile" not in told


def test_an_inspection_can_be_drawn(tmp_path: Path) -> None:
    figure = inspect_model(tiny_model(), tmp_path).plot(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["sink", "induction", "echo"]
