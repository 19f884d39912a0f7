"""Every path of the attention kernels computes what the torch reference computes in float64."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from ctxkit_kernels import build  # noqa: E402
from ctxkit_kernels.attention import (  # noqa: E402
    AttentionKernels,
    Gathered,
    Pages,
    Table,
    TorchAttention,
    Turns,
    all_attention_kernels,
    attention_kernels,
    merge_state,
    shift_turns,
    turned,
    with_sink,
)

REFERENCE = TorchAttention()
each_path = pytest.mark.parametrize("kernels", all_attention_kernels(), ids=lambda kernels: kernels.name)
each_kind = pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.int8], ids=str)
# heads in a group, dims, value dims, rotated pairs: whole vectors, parts of one, more heads than registers hold
SHAPES = [(3, 64, 64, 32), (1, 80, 80, 40), (4, 128, 128, 64), (8, 20, 33, 8), (5, 7, 7, 3), (2, 1, 1, 0)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
FAR = 2**62
PAGE = 16


class Case:
    """Random pages, and a table whose runs name any of them: none or part of a page, turns of a million positions."""

    def __init__(
        self, seed: int, kind: torch.dtype, shape: tuple[int, int, int, int], runs: int = 25, shared: bool = False
    ) -> None:
        torch.manual_seed(seed)
        heads, dims, value_dims, pairs = shape
        rows, pages = 3, 30
        (keys, key_scales), (values, value_scales) = numbers(kind, pages, dims), numbers(kind, pages, value_dims)
        self.pages = Pages(keys, values, key_scales, value_scales)
        self.turns = shift_turns(torch.tensor([0, 1_000_000, -17]), torch.rand(pairs))
        wide = 1 if shared else rows
        count = torch.randint(0, PAGE + 1, (wide, runs))
        count[torch.rand(wide, runs) < 0.5] = PAGE
        count[-1] *= torch.rand(runs) < 0.5
        first = ((PAGE + 1 - count) * torch.rand(wide, runs)).long()
        turn = torch.randint(0, 3, (wide, runs)).sort(1).values
        names = torch.randint(0, pages, (rows, runs)).masked_fill(count == 0, 10**6)
        bias = torch.randn(wide, 1 if shared else heads, runs)
        self.table = Table(*(part.int() for part in (names, first, count, turn)), bias)
        self.q = torch.randn(rows, heads, dims)
        self.scale = dims**-0.5

    @property
    def exact(self) -> tuple[torch.Tensor, Pages, Table, Turns]:
        """The same in float64."""
        whole = (self.pages.keys, self.pages.values, self.pages.key_scales, self.pages.value_scales)
        pages = Pages(*(None if part is None else part.double() for part in whole))
        table = replace(self.table, bias=self.table.bias.double())
        return self.q.double(), pages, table, Turns(self.turns.cos.double(), self.turns.sin.double())

    @property
    def given(self) -> tuple[torch.Tensor, Pages, Table, Turns]:
        return self.q, self.pages, self.table, self.turns


def numbers(kind: torch.dtype, pages: int, dims: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    values = torch.randn(pages, PAGE, dims)
    if kind != torch.int8:
        return values.to(kind), None
    return (values * 40).clamp(-127, 127).to(kind), torch.rand(pages, PAGE) / 40


def close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got.double(), wanted.double(), rtol=1e-5, atol=1e-5)


@each_path
@each_kind
@each_shape
def test_one_query_per_head_sees_what_the_table_lists(
    kernels: AttentionKernels, kind: torch.dtype, shape: tuple[int, int, int, int]
) -> None:
    for seed, softcap, shared in ((0, 0.0, False), (1, 5.0, True)):
        case = Case(seed, kind, shape, shared=shared)
        wanted = REFERENCE.paged_attention(*case.exact, scale=case.scale, softcap=softcap)
        got = kernels.paged_attention(*case.given, scale=case.scale, softcap=softcap)
        assert got[0].dtype == got[1].dtype == torch.float32
        for mine, other in zip(got, wanted, strict=True):
            close(mine, other)
        close(
            kernels.token_logits(*case.given, scale=case.scale, softcap=softcap),
            REFERENCE.token_logits(*case.exact, scale=case.scale, softcap=softcap),
        )


@each_path
@each_kind
@each_shape
def test_gathered_runs_lie_side_by_side_turned_back(
    kernels: AttentionKernels, kind: torch.dtype, shape: tuple[int, int, int, int]
) -> None:
    case = Case(2, kind, shape)
    length = int(case.table.count.sum(1).max()) + 3
    for mine, other in zip(
        kernels.gather(*case.given[1:], length), REFERENCE.gather(*case.exact[1:], length), strict=True
    ):
        assert mine.dtype == torch.float32
        close(mine, other)


@each_path
def test_long_rows_are_the_same_on_two_threads(kernels: AttentionKernels) -> None:
    case = Case(3, torch.float32, (2, 64, 64, 32), runs=1200)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            logits = kernels.token_logits(*case.given, scale=case.scale)
            length = int(case.table.count.sum(1).max())
            gathered = kernels.gather(*case.given[1:], length)
            results.append((*kernels.paged_attention(*case.given, scale=case.scale), logits, *gathered))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*results, strict=True):
        close(one, two)


@each_path
def test_a_row_that_sees_nothing_gives_zeros(kernels: AttentionKernels) -> None:
    case = Case(4, torch.float32, SHAPES[0])
    nothing = replace(case.table, count=torch.zeros_like(case.table.count))
    no_runs = Table(*(part[:, :0] for part in (nothing.pages, nothing.first, nothing.count, nothing.turn)))
    forbidden = replace(case.table, bias=torch.full_like(case.table.bias, -torch.inf))
    for table in (nothing, no_runs, forbidden):
        out, lse = kernels.paged_attention(case.q, case.pages, table, case.turns, scale=1.0)
        assert (out == 0).all() and (lse == -torch.inf).all()
    logits = kernels.token_logits(case.q, case.pages, nothing, case.turns, scale=1.0)
    assert (logits == -torch.inf).all()
    keys, values = kernels.gather(case.pages, nothing, case.turns, 5)
    assert keys.shape[1] == 5 and not keys.any() and not values.any()


@each_path
def test_a_number_that_is_none_is_not_hidden(kernels: AttentionKernels) -> None:
    case = Case(5, torch.float32, SHAPES[0])
    out, lse = kernels.paged_attention(case.q * torch.nan, *case.given[1:], scale=1.0)
    assert out[0].isnan().all() and lse[0].isnan().all()


def fast_paths() -> list[AttentionKernels]:
    return [kernels for kernels in all_attention_kernels() if kernels.name != "torch"]


@pytest.mark.parametrize("kernels", fast_paths(), ids=lambda kernels: kernels.name)
@pytest.mark.parametrize(
    ("field", "value"), [("pages", 30), ("pages", -1), ("first", PAGE), ("first", -1), ("turn", 3), ("turn", -1)]
)
def test_a_table_that_names_what_is_not_there_is_refused(kernels: AttentionKernels, field: str, value: int) -> None:
    case = Case(6, torch.float32, SHAPES[0])
    wrong = getattr(case.table, field).clone()
    wrong[0, int(case.table.count[0].argmax())] = value
    table = replace(case.table, **{field: wrong})
    with pytest.raises(IndexError, match="not there"):
        kernels.paged_attention(case.q, case.pages, table, case.turns, scale=1.0)
    with pytest.raises(IndexError, match="not there"):
        kernels.token_logits(case.q, case.pages, table, case.turns, scale=1.0)
    with pytest.raises(IndexError, match="not there"):
        kernels.gather(case.pages, table, case.turns, 500)


@each_path
def test_pages_may_be_one_layer_of_a_pool(kernels: AttentionKernels) -> None:
    case = Case(7, torch.bfloat16, (3, 64, 64, 32))
    pool = torch.stack([case.pages.keys, case.pages.values], dim=1)
    pages = Pages(pool[:, 0], pool[:, 1])
    close(
        kernels.paged_attention(case.q, pages, case.table, case.turns, scale=case.scale)[0],
        kernels.paged_attention(*case.given, scale=case.scale)[0],
    )


@pytest.mark.parametrize(
    "kernels", [one for one in fast_paths() if one.name.startswith("c++")], ids=lambda kernels: kernels.name
)
def test_pages_that_would_have_to_be_copied_are_refused(kernels: AttentionKernels) -> None:
    case = Case(8, torch.float32, (3, 64, 64, 32))
    apart = torch.zeros(30, 64, PAGE).transpose(1, 2)
    for pages in (Pages(apart, apart), Pages(case.pages.keys.double(), case.pages.values.double())):
        with pytest.raises(ValueError, match="each page contiguous"):
            kernels.paged_attention(case.q, pages, case.table, case.turns, scale=1.0)


def seen_by(rows: int, heads: int, tokens: int, dims: int, value_dims: int, last: int) -> Gathered:
    """Tokens at any place up to `last` and beyond it, some padding, some of limited reach, some held."""
    wide = torch.rand(rows, tokens)
    reach = torch.where(wide < 0.4, FAR, torch.where(wide < 0.8, 60, 0))
    hold = torch.where(torch.rand(rows, tokens) < 0.8, FAR, torch.where(torch.rand(rows, tokens) < 0.5, last - 20, 5))
    return Gathered(
        torch.randn(rows, tokens, dims),
        torch.randn(rows, tokens, value_dims),
        torch.randint(-1, last + 20, (rows, tokens)),
        reach,
        hold,
        torch.randn(rows, heads, tokens),
    )


def dense(q: torch.Tensor, first: int, seen: Gathered, frequencies: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention in float64 by a mask and a rotated key per pair of query and token."""
    place = first + torch.arange(q.shape[2])[:, None]  # [queries, 1]
    beyond = (place - seen.hold[:, None]).clamp_min(0)  # [rows, queries, tokens]
    turns = shift_turns(beyond.flatten(), frequencies)
    angles = [part.double().reshape(*beyond.shape, -1) for part in (turns.cos, turns.sin)]
    keys = turned(seen.keys.double()[:, None].expand(-1, q.shape[2], -1, -1), *angles)
    distance = place - seen.positions[:, None]
    mask = (distance >= 0) & (distance < seen.reach[:, None]) & (seen.positions[:, None] >= 0)
    logits = torch.einsum("rgqd,rqtd->rgqt", q.double(), keys) * scale + seen.bias.double()[:, :, None]
    weights = logits.masked_fill(~mask[:, None], -torch.inf).softmax(-1).nan_to_num(0)
    return torch.einsum("rgqt,rtv->rgqv", weights, seen.values.double())


@each_path
@pytest.mark.parametrize("queries", [1, 2, 16, 90])
@each_shape
def test_a_chunk_sees_each_token_within_reach_and_from_its_hold(
    kernels: AttentionKernels, queries: int, shape: tuple[int, int, int, int]
) -> None:
    heads, dims, value_dims, pairs = shape
    torch.manual_seed(queries)
    first, frequencies = 400, torch.rand(pairs)
    seen = seen_by(3, heads, 130, dims, value_dims, first + queries)
    q = torch.randn(3, heads, queries, dims)
    got = kernels.chunk_attention(q, first, seen, frequencies, scale=dims**-0.5)
    close(got[0], dense(q, first, seen, frequencies, dims**-0.5))
    close(got[1], REFERENCE.chunk_attention(q, first, seen, frequencies, scale=dims**-0.5)[1])
    rest = (part[:1] for part in (seen.positions, seen.reach, seen.hold))
    shared = Gathered(seen.keys, seen.values, *rest)
    got = kernels.chunk_attention(q, first, shared, frequencies, scale=1.0, softcap=3.0)
    wanted = REFERENCE.chunk_attention(q, first, shared, frequencies, scale=1.0, softcap=3.0)
    for mine, other in zip(got, wanted, strict=True):
        close(mine, other)


@each_path
def test_a_chunk_of_one_query_is_paged_attention(kernels: AttentionKernels) -> None:
    case = Case(9, torch.float32, (3, 64, 64, 32))
    table = replace(case.table, bias=None)
    length = int(table.count.sum(1).max())
    keys, values = kernels.gather(case.pages, table, case.turns, length)
    inside = torch.arange(length) < table.count.sum(1, keepdim=True)
    far = torch.full_like(inside, FAR, dtype=torch.int64)
    seen = Gathered(keys, values, torch.where(inside, 7, -1), far, far)
    got = kernels.chunk_attention(case.q[:, :, None], 7, seen, torch.rand(32), scale=case.scale)
    wanted = kernels.paged_attention(case.q, case.pages, table, case.turns, scale=case.scale)
    for mine, other in zip(got, wanted, strict=True):
        close(mine[:, :, 0], other)


@each_path
def test_a_chunk_that_sees_nothing_gives_zeros(kernels: AttentionKernels) -> None:
    torch.manual_seed(10)
    q = torch.randn(2, 3, 5, 8)
    for tokens, position in ((70, -1), (70, 200), (1, 0)):
        places = torch.full((1, tokens), position)
        seen = Gathered(
            torch.randn(2, tokens, 8), torch.randn(2, tokens, 8), places, torch.ones_like(places), places + FAR
        )
        out, lse = kernels.chunk_attention(q, 100, seen, torch.rand(4), scale=1.0)
        assert out.shape == (2, 3, 5, 8) and (out == 0).all() and (lse == -torch.inf).all()


def test_merging_is_associative_and_knows_the_empty_state() -> None:
    torch.manual_seed(11)
    one, two, three = ((torch.randn(4, 3, 8).double(), torch.randn(4, 3).double()) for _ in range(3))
    empty = torch.zeros(4, 3, 8).double(), torch.full((4, 3), -torch.inf).double()
    for left, right in (
        (merge_state(merge_state(one, two), three), merge_state(one, merge_state(two, three))),
        (merge_state(one, two), merge_state(two, one)),
        (merge_state(one, empty), one),
        (merge_state(empty, empty), empty),
    ):
        for mine, other in zip(left, right, strict=True):
            close(mine, other)


@each_path
def test_halves_merged_are_the_whole(kernels: AttentionKernels) -> None:
    case = Case(12, torch.float32, SHAPES[0])
    halves = []
    for some in (slice(0, 11), slice(11, None)):
        parts = (case.table.pages, case.table.first, case.table.count, case.table.turn)
        table = Table(*(part[:, some] for part in parts), case.table.bias[..., some])
        halves.append(kernels.paged_attention(case.q, case.pages, table, case.turns, scale=case.scale))
    whole = kernels.paged_attention(*case.given, scale=case.scale)
    for mine, other in zip(merge_state(*halves), whole, strict=True):
        close(mine, other)


def test_a_learned_sink_takes_its_share() -> None:
    torch.manual_seed(13)
    logits, values, sink = torch.randn(2, 3, 9), torch.randn(2, 3, 9, 4), torch.randn(3)
    weights = torch.cat([logits, sink.expand(2, 3)[..., None]], dim=-1).softmax(-1)[..., :-1]
    out, lse = with_sink(((logits.softmax(-1)[..., None] * values).sum(2), logits.logsumexp(-1)), sink)
    close(out, (weights[..., None] * values).sum(2))
    close(lse, torch.cat([logits, sink.expand(2, 3)[..., None]], dim=-1).logsumexp(-1))


def test_without_a_compiler_another_path_runs_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    attention_kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            kernels = attention_kernels("cpu")
            attention_kernels("cpu")
    finally:
        attention_kernels.cache_clear()
    assert kernels.name in ("numba", "torch")
    (message,) = [record.getMessage() for record in caplog.records if "attention" in record.getMessage()]
    assert "no C++ compiler on PATH" in message
