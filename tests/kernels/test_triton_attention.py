"""Triton's attention over pages is the torch reference's, whatever a table lists, and compiles for real cards.

Without a GPU it runs in Triton's interpreter (see tests/conftest.py). With one, it runs there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from ctxkit_kernels.attention import (  # noqa: E402
    Gathered,
    Pages,
    Table,
    TorchAttention,
    Turns,
    choose,
    merge_state,
    shift_turns,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
with_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
FAR = 2**62


def triton_path(**tuning: int) -> Any:
    from ctxkit_kernels.attention.triton_attention import TritonAttention, Tuning

    return TritonAttention(Tuning(**tuning))


@dataclass(frozen=True)
class Case:
    """Random pages, and rows that see random runs of them, some of no token. `shared`: one list of spans for all."""

    rows: int = 2
    group: int = 4
    dims: int = 64
    value_dims: int = 64
    page: int = 16
    runs: int = 9
    turns: int = 5
    kind: Any = torch.float32
    biases: int = 0
    softcap: float = 0.0
    shared: bool = False

    def inputs(self) -> tuple[Any, Pages, Table, Turns]:
        draw = torch.Generator().manual_seed(7)
        rows = 1 if self.shared else self.rows
        first = torch.randint(0, self.page, (rows, self.runs), generator=draw)
        count = torch.randint(0, self.page + 1, (rows, self.runs), generator=draw).minimum(self.page - first)
        turn = torch.randint(0, self.turns, (rows, self.runs), generator=draw)
        pages = torch.randint(0, 20, (self.rows, self.runs), generator=draw)
        bias = torch.randn(rows, self.biases, self.runs, generator=draw).to(DEVICE) if self.biases else None
        table = Table(*(part.to(DEVICE, torch.int32) for part in (pages, first, count, turn)), bias)
        q = torch.randn(self.rows, self.group, self.dims, generator=draw).to(DEVICE)
        frequencies = 0.01 ** (torch.arange(self.dims // 2, device=DEVICE) / (self.dims // 2))
        return q, self.stored(draw), table, shift_turns(torch.arange(self.turns, device=DEVICE) * 7, frequencies)

    def stored(self, draw: Any) -> Pages:
        shapes = [(20, self.page, dims) for dims in (self.dims, self.value_dims)]
        if self.kind == torch.int8:
            whole = [torch.randint(-127, 128, shape, dtype=torch.int8, generator=draw).to(DEVICE) for shape in shapes]
            return Pages(*whole, *(torch.rand(shape[:2], generator=draw).to(DEVICE) / 60 for shape in shapes))
        return Pages(*(torch.randn(shape, generator=draw).to(DEVICE, self.kind) for shape in shapes))

    @property
    def tolerance(self) -> float:
        """Weights are rounded to the type of the values."""
        return 1e-4 if self.kind == torch.float32 else 2e-3 if self.kind == torch.float16 else 2e-2


CASES = {
    "usual": Case(),
    "one head, bias and softcap": Case(group=1, biases=1, softcap=4.0),
    "two heads, bias of each": Case(group=2, biases=2, shared=True),
    "three heads, 80 dims, values of 48": Case(group=3, dims=80, value_dims=48, biases=3),
    "eight heads, 128 dims": Case(group=8, dims=128, value_dims=128, softcap=30.0),
    "rows of more heads than 16": Case(group=20, runs=3),
    "small pages": Case(page=5, runs=11),
    "pages of one token": Case(page=1, runs=3),
    "pages longer than a block": Case(page=100, runs=3, biases=4),
    "long pages, one turn": Case(page=128, runs=2, turns=1),
    "nothing turns": Case(turns=1, shared=True),
    "bfloat16": Case(kind=torch.bfloat16, dims=128, value_dims=128, biases=4),
    "float16, shared": Case(kind=torch.float16, shared=True),
    "int8": Case(kind=torch.int8, softcap=20.0),
    "int8, long pages": Case(kind=torch.int8, page=70, runs=2, turns=1),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def close(found: Any, expected: Any, tolerance: float) -> None:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@with_triton
@each_case
def test_attention_is_the_reference_s(case: Case) -> None:
    inputs = case.inputs()
    out, lse = triton_path().paged_attention(*inputs, scale=0.2, softcap=case.softcap)
    expected, expected_lse = TorchAttention().paged_attention(*inputs, scale=0.2, softcap=case.softcap)
    close(out, expected, case.tolerance)
    close(lse, expected_lse, 1e-4)  # no bit of a query is lost, whatever the keys' type


@with_triton
@each_case
def test_logits_are_the_reference_s(case: Case) -> None:
    inputs = case.inputs()
    logits = triton_path().token_logits(*inputs, scale=0.2, softcap=case.softcap)
    close(logits, TorchAttention().token_logits(*inputs, scale=0.2, softcap=case.softcap), 1e-4)


@with_triton
@pytest.mark.parametrize("name", ["usual", "three heads, 80 dims, values of 48", "nothing turns", "bfloat16", "int8"])
@pytest.mark.parametrize("longer", [0, 5])
def test_gathered_tokens_are_the_reference_s(name: str, longer: int) -> None:
    _, pages, table, turns = CASES[name].inputs()
    length = int(table.count.sum(1).max()) + longer
    for found, expected in zip(
        triton_path().gather(pages, table, turns, length),
        TorchAttention().gather(pages, table, turns, length),
        strict=True,
    ):
        close(found, expected, 1e-5)


@with_triton
def test_a_long_page_is_gathered_in_parts() -> None:
    _, pages, table, turns = Case(page=150, runs=3).inputs()
    length = int(table.count.sum(1).max())
    found, expected = (path.gather(pages, table, turns, length) for path in (triton_path(), TorchAttention()))
    close(found[0], expected[0], 1e-5)
    close(found[1], expected[1], 0)


@with_triton
@pytest.mark.parametrize("tuning", [{"programs": 1}, {"programs": 64}, {"block_tokens": 16}, {"block_tokens": 128}])
def test_however_the_work_is_split_the_result_is_the_same(tuning: dict[str, int]) -> None:
    inputs = Case(rows=1, runs=33, biases=1).inputs()
    found, expected = (path.paged_attention(*inputs, scale=0.2) for path in (triton_path(**tuning), TorchAttention()))
    close(found[0], expected[0], 1e-4)
    close(found[1], expected[1], 1e-4)


@with_triton
def test_two_halves_of_a_table_merge_to_the_whole() -> None:
    q, pages, table, turns = Case(runs=8).inputs()
    halves = [
        Table(*(part[:, half] for part in (table.pages, table.first, table.count, table.turn)))
        for half in (slice(0, 3), slice(3, None))
    ]
    path = triton_path()
    merged = merge_state(*(path.paged_attention(q, pages, half, turns, scale=0.2) for half in halves))
    whole = path.paged_attention(q, pages, table, turns, scale=0.2)
    close(merged[0], whole[0], 1e-5)
    close(merged[1], whole[1], 1e-5)


@with_triton
@pytest.mark.parametrize("page", [16, 100])
def test_padding_may_name_any_page_and_a_row_that_sees_nothing_gets_zeros(page: int) -> None:
    q, pages, table, turns = Case(page=page).inputs()
    count = table.count.clone()
    count[0], count[1, ::2] = 0, 0
    wild = table.pages.masked_fill(count == 0, 2**31 - 1)
    wild[0, 0] = -(2**31)
    table = replace(table, pages=wild, count=count)
    out, lse = triton_path().paged_attention(q, pages, table, turns, scale=0.2)
    assert (out[0] == 0).all() and (lse[0] == -torch.inf).all() and lse[1].isfinite().all()
    close(out, TorchAttention().paged_attention(q, pages, table, turns, scale=0.2)[0], 1e-4)
    assert (triton_path().token_logits(q, pages, table, turns, scale=0.2)[0] == -torch.inf).all()
    keys, values = triton_path().gather(pages, table, turns, 4)
    assert (keys[0] == 0).all() and (values[0] == 0).all() and keys[1].any()


@with_triton
def test_what_a_page_holds_beyond_a_run_is_never_read() -> None:
    q, pages, table, turns = Case(rows=1).inputs()
    expected = triton_path().paged_attention(q, pages, table, turns, scale=0.2)
    seen = torch.zeros(pages.keys.shape[:2], dtype=torch.bool)
    for page, first, count in torch.stack([table.pages[0], table.first[0], table.count[0]], dim=1).tolist():
        seen[page, first : first + count] = True
    hidden = ~seen.to(DEVICE)[..., None]
    spoiled = Pages(pages.keys.masked_fill(hidden, torch.nan), pages.values.masked_fill(hidden, torch.inf))
    found = triton_path().paged_attention(q, spoiled, table, turns, scale=0.2)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@with_triton
def test_a_bias_of_minus_infinity_hides_a_run_from_a_head() -> None:
    q, pages, table, turns = Case(biases=4).inputs()
    table.bias[:, 1], table.bias[0, 2, :5] = -torch.inf, -torch.inf
    out, lse = triton_path().paged_attention(q, pages, table, turns, scale=0.2)
    assert (out[:, 1] == 0).all() and (lse[:, 1] == -torch.inf).all()
    close(out, TorchAttention().paged_attention(q, pages, table, turns, scale=0.2)[0], 1e-4)


@with_triton
@pytest.mark.parametrize(
    "case", [Case(runs=0), Case(rows=0), Case(rows=0, shared=True)], ids=["runs", "rows", "shared"]
)
def test_without_runs_or_rows_nothing_is_seen(case: Case) -> None:
    q, pages, table, turns = case.inputs()
    out, lse = triton_path().paged_attention(q, pages, table, turns, scale=1.0)
    assert out.shape == (case.rows, 4, 64) and (out == 0).all() and (lse == -torch.inf).all()
    logits = triton_path().token_logits(q, pages, table, turns, scale=1.0)
    assert logits.shape == (case.rows, 4, case.runs * case.page)
    assert triton_path().gather(pages, table, turns, 3)[0].tolist() == torch.zeros(case.rows, 3, 64).tolist()


@with_triton
def test_pages_may_lie_apart_but_each_in_one_piece() -> None:
    q, pages, table, turns = Case().inputs()
    both = torch.stack([pages.keys, pages.values], dim=1)  # [pages, 2, page, dims]
    found = triton_path().paged_attention(q, Pages(both[:, 0], both[:, 1]), table, turns, scale=0.2)
    close(found[0], TorchAttention().paged_attention(q, pages, table, turns, scale=0.2)[0], 1e-4)
    crossed = pages.keys.transpose(1, 2).contiguous().transpose(1, 2)
    with pytest.raises(ValueError, match="each page must be in one piece"):
        triton_path().paged_attention(q, Pages(crossed, pages.values), table, turns, scale=0.2)
    with pytest.raises(ValueError, match="`values` of pages must be float32, .*, got torch.float64"):
        triton_path().gather(Pages(pages.keys, pages.values.double()), table, turns, 3)


@dataclass(frozen=True)
class Chunk:
    """Queries from `first_position` on, over tokens in any order. Some are held at one of two places, some reach 40."""

    rows: int = 2
    group: int = 3
    queries: int = 13
    tokens: int = 150
    dims: int = 64
    first_position: int = 100
    kind: Any = torch.float32
    biases: int = 0
    softcap: float = 0.0
    shared: bool = False
    held: bool = True

    def inputs(self) -> tuple[Any, int, Gathered, Any]:
        draw = torch.Generator().manual_seed(3)
        rows = 1 if self.shared else self.rows
        shape = (rows, self.tokens)
        positions = torch.randint(-1, self.first_position + self.queries, shape, generator=draw)
        reach = torch.where(torch.rand(shape, generator=draw) < 0.5, FAR, 40)
        places = torch.tensor([self.first_position - 9, self.first_position + 5, FAR])
        hold = places[torch.randint(0 if self.held else 2, 3, shape, generator=draw)]
        hold[:, :70] = FAR  # a block of tokens that none of it holds
        bias = torch.randn(rows, self.biases, self.tokens, generator=draw).to(DEVICE) if self.biases else None
        keys = torch.randn(self.rows, self.tokens, self.dims, generator=draw)
        values = torch.randn(self.rows, self.tokens, 48, generator=draw)
        seen = Gathered(*(part.to(DEVICE) for part in (keys, values, positions, reach, hold)), bias)
        q = torch.randn(self.rows, self.group, self.queries, self.dims, generator=draw).to(DEVICE, self.kind)
        frequencies = 0.01 ** (torch.arange(self.dims // 2, device=DEVICE) / (self.dims // 2))
        return q, self.first_position, seen, frequencies


CHUNKS = {
    "usual": Chunk(),
    "nothing is held": Chunk(held=False, biases=3),
    "shared, bias and softcap": Chunk(shared=True, biases=1, softcap=3.0),
    "more queries than a block": Chunk(group=1, queries=70, tokens=65),
    "one of each": Chunk(rows=1, group=1, queries=1, tokens=1, first_position=0),
    "80 dims": Chunk(dims=80, rows=1),
    "bfloat16": Chunk(kind=torch.bfloat16),
    "float16, 128 dims": Chunk(kind=torch.float16, dims=128, held=False),
}


@with_triton
@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_a_chunk_is_the_reference_s(chunk: Chunk) -> None:
    inputs = chunk.inputs()
    out, lse = triton_path().chunk_attention(*inputs, scale=0.2, softcap=chunk.softcap)
    expected, expected_lse = TorchAttention().chunk_attention(*inputs, scale=0.2, softcap=chunk.softcap)
    tolerance = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}[chunk.kind]
    close(out, expected, tolerance)
    close(lse, expected_lse, tolerance)


@with_triton
def test_a_query_before_every_token_sees_nothing() -> None:
    q, first_position, seen, frequencies = Chunk(rows=1, queries=4).inputs()
    late = replace(seen, positions=torch.full_like(seen.positions, first_position + 2))
    out, lse = triton_path().chunk_attention(q, first_position, late, frequencies, scale=0.2)
    assert (out[:, :, :2] == 0).all() and (lse[:, :, :2] == -torch.inf).all() and lse[:, :, 2:].isfinite().any()
    empty = Gathered(*(part[:, :0] for part in (seen.keys, seen.values, seen.positions, seen.reach, seen.hold)))
    out, lse = triton_path().chunk_attention(q, first_position, empty, frequencies, scale=0.2)
    assert out.shape == (1, 3, 4, 48) and (out == 0).all() and (lse == -torch.inf).all()
    out, lse = triton_path().chunk_attention(q[:, :, :0], first_position, seen, frequencies, scale=0.2)
    assert out.shape == (1, 3, 0, 48) and lse.shape == (1, 3, 0)


@with_triton
def test_without_rotation_holding_changes_nothing() -> None:
    q, first_position, seen, _ = Chunk(rows=1).inputs()
    none = torch.zeros(0, device=DEVICE)
    found = triton_path().chunk_attention(q, first_position, seen, none, scale=0.2)
    free = replace(seen, hold=torch.full_like(seen.hold, FAR))
    close(found[0], triton_path().chunk_attention(q, first_position, free, none, scale=0.2)[0], 0)


@with_triton
@with_gpu
def test_a_captured_step_follows_what_the_table_lists_now() -> None:
    q, pages, table, turns = Case(kind=torch.bfloat16, rows=8, runs=40).inputs()
    path = triton_path()
    path.paged_attention(q, pages, table, turns, scale=0.2)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, lse = path.paged_attention(q, pages, table, turns, scale=0.2)
    table.count.copy_(table.count // 2)
    q.copy_(q.flip(0))
    graph.replay()
    expected = path.paged_attention(q, pages, table, turns, scale=0.2)
    assert torch.equal(out, expected[0]) and torch.equal(lse, expected[1])


def test_a_gpu_gets_triton_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose.attention_kernels.__wrapped__("cpu").name != "triton"
    if find_spec("triton") is not None:
        assert choose.attention_kernels.__wrapped__("cuda").name == "triton"
    monkeypatch.setattr(choose, "find_spec", lambda name: None)
    assert choose.attention_kernels.__wrapped__("cuda").name == "torch"


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ctxkit_kernels.attention import triton_chunk, triton_paged

words = "pages first count turn start stop variant items runs blocks blocks_each first_stride count_stride turn_stride"
words += " bias_row key_page value_page key_scale_page value_scale_page partitions length tokens queries span_row"
pointers = "pages first count turn start stop variant items".split()
types = {name: "*i32" if name in pointers else "i32" for name in words.split()} | {"ends": "*i64"}

def build(kernel, kind, constants, chip=90, **options):
    typed = {"keys": kind, "values": kind, "q": kind if "start" in kernel.arg_names else "fp32"}
    signature = {
        name: "constexpr" if name in constants else types.get(name) or "*" + typed.get(name, "fp32")
        for name in kernel.arg_names
    }
    signature |= {name: "fp32" for name in ("factor", "cap") if name in signature}
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if signature[name].startswith("*") or name.endswith("_page")
    }
    source = ASTSource(kernel, signature, constants, attributes)
    triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)

sizes = dict(PAIRS=32, REST=0, VALUES=64, BLOCK_PAIRS=32, BLOCK_REST=16, BLOCK_VALUES=64)
still = sizes | dict(PAIRS=0, REST=80, BLOCK_REST=128)
paged = dict(GROUP=3, PAGE=16, BIASES=3, SCALED=False, CAPPED=True, RUNS=4, SPAN=16, PARTS=1, ROWS=16, WEIGHED=True)
long = paged | dict(PAGE=100, BIASES=0, SCALED=True, CAPPED=False, RUNS=1, SPAN=64, PARTS=2)
for chip in (80, 90):
    build(triton_paged.paged_kernel, "bf16", paged | sizes, chip, num_stages=5)
build(triton_paged.paged_kernel, "i8", long | still, num_stages=5)
build(triton_paged.paged_kernel, "fp32", paged | sizes | dict(WEIGHED=False))
build(triton_paged.merge_kernel, "fp32", dict(VALUES=64, BLOCK_PARTS=32, BLOCK_VALUES=32))
build(triton_paged.gather_kernel, "i8", sizes | dict(PAGE=100, SCALED=True, SPAN=64, PARTS=2))
chunk = dict(HELD=True, DIMS=80, VALUES=64, BIASES=1, CAPPED=True, BLOCK_DIMS=128, BLOCK_VALUES=64)
build(triton_chunk.chunk_kernel, "bf16", chunk | dict(ROWS=128, BLOCK=64), num_warps=8)
build(triton_chunk.chunk_kernel, "fp32", chunk | dict(ROWS=16, BLOCK=32, HELD=False), num_stages=2)
print("compiled")
"""


@with_triton
def test_the_kernels_compile_without_a_card(repository: Path, tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does: types of loop variables, shapes of products."""
    script = tmp_path / "build.py"
    script.write_text(COMPILE)
    paths = os.pathsep.join([str(repository / "kernels"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "compiled", run.stderr[-3000:]
