"""What a policy shows through pages, tables and turned queries is what a dense implementation computes of the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ctxkit.models.local import Engine
from ctxkit.models.local.paging import context as contexts
from ctxkit.models.local.paging.part import Part
from ctxkit.models.local.paging.tables import Entries
from ctxkit.models.local.policies import Policy, StreamingLLM
from ctxkit.models.local.policies.base import View
from ctxkit.testing import tiny_llama
from tests.models.policies.cases import CASES, HEADS, KV_HEADS, LAYERS, Case
from tests.models.policies.dense import Seen, dense_logits, distances

TOKENS = 100
CUTS = (45, 3, 1, 31)  # passes of the prompt; the rest is decoded token by token
FRAME = 32  # several frames, and passes that would go over their ends
SLACK = 12  # tokens out of reach leave memory often

IDS = np.random.default_rng(7).integers(3, 250, TOKENS).tolist()


@dataclass
class Noted:
    """What every query was shown, as the store's parts said it to the kernels."""

    tokens: int
    visible: Tensor = field(init=False)
    distance: Tensor = field(init=False)
    bias: Tensor = field(init=False)

    def __post_init__(self) -> None:
        shape = (LAYERS, KV_HEADS, self.tokens, self.tokens)
        self.visible = torch.zeros(shape, dtype=torch.bool)
        self.distance = distances(self.tokens).expand(shape).clone()
        self.bias = torch.zeros(LAYERS, HEADS, self.tokens, self.tokens, dtype=torch.float64)

    def note(self, part: Part, views: list[View], layer: int, found: list[Entries]) -> None:
        heads = part.heads(layer)
        for row, head in enumerate(heads):
            view, bias = (views[0], found[0].bias) if len(views) == 1 else (views[row], found[row].bias)
            columns = view.runs.token_positions()
            reach, gap, hold = (np.repeat(own, view.runs.count) for own in (view.reach, view.gap, view.hold))
            for query in range(part.start, part.start + part.tokens):
                seen = (columns <= query) & (query - columns < reach)
                self.visible[layer, head, query, columns] = torch.from_numpy(seen)
                far = torch.from_numpy(np.minimum(query, hold) - columns - gap)
                self.distance[layer, head, query, columns] = far
                if bias is not None:
                    self._note_bias(layer, int(head), query, columns, np.repeat(bias, view.runs.count, axis=-1), row)

    def _note_bias(self, layer: int, head: int, query: int, columns: Any, bias: Any, row: int) -> None:
        own = bias[row if len(bias) > 1 else 0]
        for group in range(HEADS // KV_HEADS):
            of = own[group if len(own) > 1 else 0]
            self.bias[layer, head * (HEADS // KV_HEADS) + group, query, columns] = torch.from_numpy(of).double()


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "FRAME_TOKENS", FRAME)
    monkeypatch.setattr(contexts.KVContext, "slack_tokens", SLACK)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_llama().double()


def fed(engine: Engine, policy: Policy, ids: Sequence[int], cuts: Sequence[int] = CUTS) -> Tensor:
    """Logits after each id: passes of `cuts` tokens, then one by one."""
    context, logits, done = engine.new_context(policy), [], 0
    for cut in cuts:
        logits.append(engine.forward(ids[done : done + cut], context, keep=cut))
        done += cut
    logits += [engine.step([context], [token]) for token in ids[done:]]
    engine.close(context)
    return torch.cat(logits).double()


def starts(tokens: int, cuts: Sequence[int] = CUTS) -> list[int]:
    """Where passes begin, those that a frame's end makes with them."""
    ends = np.cumsum(cuts)
    return sorted({0, *ends.tolist(), *range(0, int(ends[-1]), FRAME), *range(int(ends[-1]), tokens)})


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pages_show_what_the_policy_says(case: Case, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted(TOKENS)
    entries = Part.entries

    def noting(self: Part, views: list[View], layer: int) -> list[Entries]:
        found = entries(self, views, layer)
        noted.note(self, views, layer, found)
        return found

    monkeypatch.setattr(Part, "entries", noting)
    logits = fed(Engine(model), case.policy, IDS)
    expected = case.expected or _as_noted(noted, case.policy)
    wanted = dense_logits(model, IDS, expected(TOKENS, starts(TOKENS)))
    assert error(logits, wanted) < 1e-5


def _as_noted(noted: Noted, policy: Policy) -> Callable[[int, Sequence[int]], Callable[[int], Seen]]:
    def expected(tokens: int, _: Sequence[int]) -> Callable[[int], Seen]:
        def seen(layer: int) -> Seen:
            scale = policy.query_scale(np.arange(tokens), layer)
            scale = None if scale is None else torch.from_numpy(scale).double()
            return Seen(noted.visible[layer], noted.distance[layer], noted.bias[layer], scale)

        return seen

    return expected


@pytest.mark.parametrize("case", [case for case in CASES if case.expected], ids=str)
def test_float32_pages_are_as_exact_as_float32(case: Case, model: Any) -> None:
    assert case.expected is not None
    logits = fed(Engine(tiny_llama()), case.policy, IDS)
    assert error(logits, dense_logits(model, IDS, case.expected(TOKENS, starts(TOKENS)))) < 1e-5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_contexts_of_a_batch_do_not_see_each_other(case: Case, model: Any) -> None:
    """Three texts of different lengths, in different frames, decoded together: each as if it were alone."""
    engine = Engine(model)
    texts = [IDS[:60], IDS[5:], IDS[90:]]
    made = [engine.new_context(case.policy) for _ in texts]
    for text, context in zip(texts, made, strict=True):
        engine.forward(text[:-5], context)
    together = torch.stack([engine.step(made, [text[at] for text in texts]) for at in range(-5, 0)], 1)
    for text, rows in zip(texts, together, strict=True):
        alone = fed(engine, case.policy, text, cuts=[len(text) - 5])[-5:]
        assert error(rows.double(), alone) < 1e-6


@pytest.mark.parametrize("case", [case for case in CASES if case.expected and not case.policy.needs], ids=str)
def test_it_does_not_matter_how_a_text_is_cut(case: Case, model: Any) -> None:
    engine = Engine(model)
    one_by_one = fed(engine, case.policy, IDS, cuts=())
    assert error(fed(engine, case.policy, IDS, cuts=(TOKENS,)), one_by_one) < 1e-6
    assert error(fed(engine, case.policy, IDS, cuts=(1, 70, 29)), one_by_one) < 1e-6


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 2e-2), (torch.int8, 6e-2)])
@pytest.mark.parametrize("case", [case for case in CASES if case.expected and not case.policy.needs], ids=str)
def test_small_pages_are_wrong_by_their_rounding_only(case: Case, dtype: torch.dtype, most: float, model: Any) -> None:
    assert case.expected is not None
    logits = fed(Engine(tiny_llama(), kv_dtype=dtype), case.policy, IDS)
    assert 1e-4 < error(logits, dense_logits(model, IDS, case.expected(TOKENS, starts(TOKENS)))) < most


def test_cases_bite(model: Any) -> None:
    """Each policy that says what it shows, shows something else than full attention does."""
    whole = dense_logits(model, IDS, lambda layer: Seen(distances(TOKENS) >= 0))
    for case in CASES[1:]:
        assert error(fed(Engine(model), case.policy, IDS, cuts=(50, 50)), whole) > 1e-3, case


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_token_and_none_are_texts_too(case: Case, model: Any) -> None:
    engine = Engine(model)
    wanted = dense_logits(model, IDS[:1], lambda layer: Seen(distances(1) >= 0))
    assert error(fed(engine, case.policy, IDS[:1], cuts=()), wanted) < 1e-5
    assert engine.prefill([], engine.new_context(case.policy)) is None


@pytest.mark.parametrize("case", [case for case in CASES if case.expected and not case.policy.needs], ids=str)
def test_a_text_that_was_cropped_and_forked_goes_on_as_before(case: Case, model: Any) -> None:
    engine = Engine(model)
    context = engine.new_context(case.policy)
    engine.forward(IDS[:90], context)
    engine.forward(IDS[90:95], context)
    wanted = engine.step([context.fork()], [IDS[95]])
    assert context.crop(92)
    engine.forward(IDS[92:95], context)
    assert error(engine.step([context.fork()], [IDS[95]]), wanted) < 1e-6


def test_memory_of_a_window_does_not_grow(model: Any) -> None:
    engine = Engine(model)
    context = engine.new_context(StreamingLLM(sinks=4, recent=40))
    for start in range(0, 100, 5):
        engine.forward(IDS[start : start + 5], context)
        assert max(track.tokens for track in context.tracks) <= 4 + 40 + SLACK + 5
