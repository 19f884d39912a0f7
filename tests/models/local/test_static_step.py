"""Static decoding passes give what passes made anew give, wait for nothing, and step aside where they cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctxkit.errors import MemoryInsufficient, PolicyError
from ctxkit.models.local import Engine
from ctxkit.models.local.adapter import probe
from ctxkit.models.local.graphs import Graphs
from ctxkit.models.local.paging import context as contexts
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.policies import H2O, LMInfinite, LogN, Policy, Quest, SirLLM, SnapKV, StreamingLLM, ZeroTuning
from ctxkit.models.local.static_step import Size, StaticStep
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_llama, tiny_model
from ctxkit_kernels.attention import TorchAttention
from tests.models.policies.architectures import FIXED, PLACEABLE, dynamic, gpt_oss, made

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
MOST = 1e-5 if DEVICE == "cpu" else 1e-4  # a GPU multiplies other numbers of rows by other kernels
WINDOW = StreamingLLM(sinks=4, recent=60)
DRAW = np.random.default_rng(5)
PROMPTS = [DRAW.integers(3, 119, length).tolist() for length in (150, 7, 61)]
TOKENS = DRAW.integers(3, 119, (200, 3)).tolist()


@pytest.fixture(scope="module")
def llama() -> Any:
    return tiny_llama(window_tokens=1 << 20).to(DEVICE)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "FRAME_TOKENS", 32)


class Pair:
    """The same texts in two engines, of which one makes static passes."""

    def __init__(self, model: Any, policy: Policy, prompts: list[list[int]] = PROMPTS, **options: Any) -> None:
        self.plain = Engine(model, policy=policy, cuda_graphs=False, **options)
        self.static = Engine(model, policy=policy, cuda_graphs=True, **options)
        self.texts: list[tuple[KVContext, KVContext]] = []
        for prompt in prompts:
            self.join(prompt)

    def join(self, prompt: list[int]) -> None:
        both = self.plain.new_context(), self.static.new_context()
        self.plain.prefill(prompt, both[0])
        self.static.prefill(prompt, both[1])
        self.texts.append(both)

    def leave(self, index: int) -> None:
        plain, static = self.texts.pop(index)
        self.plain.close(plain)
        self.static.close(static)

    def step(self, tokens: list[int], which: list[int] | None = None) -> float:
        """How far the logits are apart, of the largest."""
        chosen = range(len(self.texts)) if which is None else which
        ids = [tokens[index] for index in chosen]
        wanted = self.plain.step([self.texts[index][0] for index in chosen], ids)
        return error(self.static.step([self.texts[index][1] for index in chosen], ids), wanted)


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape and found.dtype == torch.float32
    return float((found - wanted).abs().max() / wanted.abs().max())


def test_hundreds_of_steps_of_texts_that_come_and_go_are_those_of_passes_made_anew(llama: Any) -> None:
    pair = Pair(llama, WINDOW, [[3 + n % 100 for n in range(4000)], *PROMPTS[1:]])
    for number, tokens in enumerate(TOKENS[:200]):  # over the frame's end at 4,096, and several times round the window
        which = {0: [2, 0], 5: [1], 6: [0, 1, 2]}.get(number % 9, [1, 0, 2])
        assert pair.step(tokens, which) < MOST
    for plain, static in pair.texts:
        assert plain.bytes_touched == static.bytes_touched and plain.used_bytes == static.used_bytes
    assert len(pair.texts[0][1]) > contexts.FRAME_TOKENS + 60
    assert pair.static.static is not None
    assert sorted(size.rows for size in pair.static.static.steps) == [2, 4]  # one text has room in a step for two
    assert {size.widths for size in pair.static.static.steps} == {(16,)}  # not one more, however long the text


@pytest.mark.parametrize("policy", [Policy(), LMInfinite(5, 40), SirLLM(4, 8, 24)], ids=lambda one: type(one).__name__)
def test_whatever_is_kept_by_position_can_be_read_statically(policy: Policy, llama: Any, small_frames: None) -> None:
    pair = Pair(llama, policy)
    for tokens in TOKENS[:40]:
        assert pair.step(tokens) < MOST


@pytest.mark.parametrize("make", [make for make in (*PLACEABLE, *FIXED) if make is not dynamic])
def test_every_kind_of_attention_can_be_read_statically(make: Callable[[], Any], small_frames: None) -> None:
    model = made(make())
    pair = Pair(model, WINDOW if make in PLACEABLE else Policy(), [prompt[:50] for prompt in PROMPTS[:2]])
    for tokens in TOKENS[:20]:
        assert pair.step(tokens) < MOST


@pytest.mark.parametrize("kv_dtype, most", [(torch.int8, 1e-2), (torch.bfloat16, 1e-2)])
def test_pages_of_other_types_are_written_alike(kv_dtype: torch.dtype, most: float, llama: Any) -> None:
    pair = Pair(llama, WINDOW, PROMPTS[:1], kv_dtype=kv_dtype)
    assert max(pair.step(tokens) for tokens in TOKENS[:30]) < most  # a last bit may round otherwise


def test_a_branch_and_a_text_that_goes_back_are_followed(llama: Any) -> None:
    pair = Pair(llama, Policy(), PROMPTS[:2])
    pair.step(TOKENS[0])
    assert pair.plain.crop(pair.texts[0][0], 140) and pair.static.crop(pair.texts[0][1], 140)
    branch = pair.plain.fork(pair.texts[0][0]), pair.static.fork(pair.texts[0][1])
    pair.texts.append(branch)  # writes to a page of its own from here on
    for tokens in TOKENS[1:30]:
        assert pair.step(tokens) < MOST
    pair.leave(1)
    pair.join(PROMPTS[2])  # takes the pages that became free
    for tokens in TOKENS[30:50]:
        assert pair.step(tokens) < MOST


def test_pages_that_move_are_found_again(llama: Any) -> None:
    """A graph would go on reading where they were: it is captured anew."""
    pair = Pair(llama, Policy(), PROMPTS[:1])
    made: list[StaticStep] = []
    for tokens in TOKENS[:12]:
        pair.static.pool.reserve(pair.static.pool.capacity - pair.static.pool.used + 1)
        assert pair.step(tokens) < MOST
        assert pair.static.static is not None
        made += pair.static.static.steps.values()
    assert len({id(step) for step in made}) == 12 and [step.stale for step in made] == [True] * 11 + [False]


def test_a_page_that_another_head_takes_is_not_taken_for_the_same(llama: Any) -> None:
    pair = Pair(llama, Policy(), PROMPTS[1:2])
    pair.step(TOKENS[0])
    pool = pair.static.pool
    pages = pair.texts[0][1].tracks[0].pages[:, 0].tolist()
    pair.leave(0)
    pool._free = [page for page in pool._free if page not in pages] + [*pages[1:], pages[0]]  # from the end on
    pair.join(PROMPTS[1])
    assert pair.texts[0][1].tracks[0].pages[:, 0].tolist() == [pages[0], *reversed(pages[1:])]
    assert pair.step(TOKENS[1]) < MOST


def test_only_a_few_sizes_are_kept(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(llama, policy=StreamingLLM(2, 6), cuda_graphs=True)
    monkeypatch.setattr("ctxkit.models.local.static_decoding._MOST_STEPS", 2)
    texts = [engine.new_context() for _ in range(33)]
    kept = []
    for count in (33, 20, 3, 4, 1, 8, 1, 33):
        engine.step(texts[:count], [5] * count)
        assert engine.static is not None
        kept.append([size.rows for size in engine.static.steps])
    assert kept == [[64], [64], [64, 4], [64, 4], [64, 4], [4, 8], [8, 4], [4, 64]]


# --- what a graph must not do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make for make in (*PLACEABLE, *FIXED) if make not in (dynamic, gpt_oss)])
def test_a_pass_reads_nothing_back_and_copies_nothing_from_the_host(make: Callable[[], Any]) -> None:
    """On the device "meta", which has no numbers to read."""
    model = made(make())
    shape = probe(model)
    nowhere = torch.device("meta")
    layers = tuple(
        replace(layer, frequencies=None if layer.frequencies is None else layer.frequencies.to(nowhere))
        for layer in shape.layers
    )
    kinds = [[n for n, one in enumerate(layers) if one.sliding == kind] for kind in {one.sliding for one in layers}]
    with torch.inference_mode():
        pool = PagePool(layers[0].dims, layers[0].value_dims, device=nowhere)
        size = Size(4, tuple(map(tuple, kinds)), (8,) * len(kinds), 32)
        seen = replace(shape, layers=layers, device=nowhere)
        step = StaticStep(model.to(nowhere), seen, TorchAttention(), pool, size, graphs=Graphs(nowhere), scratch=0)
        assert Graphs(nowhere).captured(step.forward)().shape == (4, model.config.vocab_size)


# --- what cannot be static ------------------------------------------------------------------------------------------

REFUSED = {
    "select": (Quest(32), {}),
    "bias": (WINDOW | ZeroTuning(0.5), {}),
    "query_scale": (WINDOW | LogN(64), {}),
    "attention": (H2O(40, 8), {}),
    "heads of a layer": (SnapKV(40, 8), {}),
    "host's memory": (Policy(), {"max_kv_bytes": 1 << 18, "host_kv_bytes": 1 << 24}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_static_is_refused_before_anything_changes(reason: str, llama: Any) -> None:
    policy, options = REFUSED[reason]
    engine = Engine(llama, policy=policy, cuda_graphs=True, **options)
    context = engine.new_context()
    engine.prefill(PROMPTS[0], context)
    pages = [track.pages.copy() for track in context.tracks]
    with pytest.raises(PolicyError, match=reason):
        engine.step([context], [5])
    assert len(context) == 150 and all(map(np.array_equal, pages, [track.pages for track in context.tracks]))


def _by_default(model: Any, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """As on a GPU: static where it can be."""
    pair = Pair(model, policy, PROMPTS[:2])
    assert pair.static.static is not None
    monkeypatch.setattr(pair.static.static, "insist", False)
    return pair


def test_other_policies_are_read_as_before_and_the_log_says_why_once(
    llama: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pair = _by_default(llama, Quest(32), monkeypatch)
    with caplog.at_level(logging.INFO, logger="ctxkit"):
        assert all(pair.step(tokens) < 1e-6 for tokens in TOKENS[:5])
    said = [record.getMessage() for record in caplog.records if "CUDA graphs" in record.getMessage()]
    assert len(said) == 1 and "Quest" in said[0]


def test_a_model_that_waits_for_the_device_is_read_as_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pair = _by_default(made(dynamic()), Policy(), monkeypatch)
    assert all(pair.step(tokens) < 1e-6 for tokens in TOKENS[:5])
    said = [record for record in caplog.records if "cannot be captured" in record.getMessage()]
    assert len(said) == 1 and said[0].levelno == logging.WARNING


def test_texts_too_long_for_a_table_are_read_as_before(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxkit.models.local.static_decoding._MOST_RUNS", 16)
    pair = _by_default(llama, Policy(), monkeypatch)
    assert pair.static.static is not None
    assert pair.step(TOKENS[0]) < 1e-6 and not pair.static.static.steps
    assert pair.step(TOKENS[1], [1]) < MOST and len(pair.static.static.steps) == 1


def test_a_pass_that_fails_leaves_the_texts_as_they_were(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(llama, WINDOW)
    pair.step(TOKENS[0])
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StaticStep, "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        pair.static.step([static for _, static in pair.texts], TOKENS[1])
    for tokens in TOKENS[1:20]:
        assert pair.step(tokens) < MOST


def test_no_memory_for_the_next_page_leaves_the_texts_as_they_were(llama: Any) -> None:
    pair = Pair(llama, Policy(), [[5] * 47, [6] * 48])  # the first has room for a token, the second has not
    engine, texts = pair.static, [static for _, static in pair.texts]
    engine.pool.max_bytes = engine.pool.allocated_bytes
    engine.pool.reserve(0)
    taken = engine.pool.take(engine.pool.capacity - engine.pool.used)
    with pytest.raises(MemoryInsufficient):
        engine.step(texts, [7, 8])
    assert [len(text) for text in texts] == [47, 48] and [text.tracks[0].tokens for text in texts] == [47, 48]
    engine.pool.release(taken)
    engine.pool.max_bytes = None
    assert pair.step([7, 8]) < MOST


def test_a_step_that_needs_the_last_page_is_made_anew(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = _by_default(llama, Policy(), monkeypatch)
    engine = pair.static
    engine.pool.max_bytes = engine.pool.allocated_bytes
    engine.pool.take(engine.pool.capacity - engine.pool.used)  # none is left for rows that nobody uses
    assert pair.step(TOKENS[0]) < 1e-6
    assert engine.static is not None and not engine.static.steps


def test_answers_are_the_same_with_and_without() -> None:
    prompts = ["Hello 42", "Other " * 40]
    sampling = Sampling(max_tokens=24)
    plain, static = (tiny_model(policy=StreamingLLM(4, 28), cuda_graphs=graphs) for graphs in (False, True))
    for prompt in prompts:
        assert static.generate(prompt, sampling).text == plain.generate(prompt, sampling).text
    assert static.engine.static is not None and static.engine.static.steps


def test_a_pass_of_nothing_says_so(llama: Any) -> None:
    engine = Engine(llama)
    context = engine.new_context()
    with pytest.raises(ValueError, match="`ids` is empty"):
        engine.forward([], context)
    for given, ids in (([], []), ([context], []), ([context], [1, 2])):
        with pytest.raises(ValueError, match="one for each context"):
            engine.step(given, ids)
    assert len(context) == 0 and engine.pool.used == 0


@with_triton
def test_tritons_kernels_read_static_tables(llama: Any, small_frames: None) -> None:
    pair = Pair(llama, StreamingLLM(2, 20), [prompt[:30] for prompt in PROMPTS])
    from ctxkit_kernels.attention.triton_attention import TritonAttention

    pair.static.kernels = TritonAttention()  # type: ignore[misc]
    for tokens in TOKENS[:6]:
        assert pair.step(tokens) < MOST


@pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA device")
def test_on_a_gpu_steps_are_replayed_by_default(llama: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(llama, policy=WINDOW)
    text = engine.new_context()
    engine.prefill(PROMPTS[0], text)
    passes: list[int] = []
    hook = llama.register_forward_pre_hook(lambda module, given: passes.append(1))
    for tokens in TOKENS[:40]:
        engine.step([text], tokens[:1])
    hook.remove()
    assert 0 < len(passes) < 10 and not [record for record in caplog.records if record.levelno >= logging.WARNING]
