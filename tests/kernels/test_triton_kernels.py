"""The kernels of an accelerator: torch's are numpy's, Triton's are torch's, and Triton's compile for real cards.

Without a GPU, Triton's run in its interpreter (see tests/conftest.py). With one, they run there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxkit_kernels import (
    ByteRows,
    CodedTokens,
    DeviceRows,
    DeviceTokens,
    QueryBatch,
    choose,
    device_kernels,
    padded_dims,
)
from ctxkit_kernels.reference import ReferenceKernels

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
with_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
UNITS = (0.01, 0.002)


@dataclass(frozen=True)
class Case:
    """Random documents and a batch of queries of `counts` lanes, as numpy and as tensors."""

    counts: list[int]
    query: np.ndarray  # int8 [queries, lanes, dims]
    centroids: np.ndarray  # int8 [centroids, dims]
    tokens: CodedTokens
    rows: ByteRows
    on_device: DeviceTokens
    rows_on_device: DeviceRows

    @property
    def documents(self) -> Any:
        """Int32 [queries, documents], all documents backwards for every query, the rows one and the same."""
        count = len(self.tokens.offsets) - 1
        return torch.arange(count - 1, -1, -1, dtype=torch.int32, device=DEVICE).expand(len(self.counts), count)

    def queries(self, dtype: Any) -> QueryBatch:
        """The lanes as fractions, padded to 8 dims; exact in float16."""
        dims = self.query.shape[2]
        lanes = torch.zeros((*self.query.shape[:2], -(-dims // 8) * 8), dtype=torch.float64)
        lanes[..., :dims] = torch.from_numpy(self.query / 128)
        return QueryBatch(lanes.to(DEVICE, dtype), torch.tensor(self.counts, dtype=torch.int32, device=DEVICE))

    def table(self, dtype: Any) -> Any:
        """[queries, centroids, lanes], products that float16 has rounded."""
        products = np.einsum("cd,qld->qcl", self.centroids / 1.0, self.query / 128)
        return torch.from_numpy(products).to(DEVICE, torch.float16).to(dtype)


def make_case(counts: list[int], dims: int, bits: int, lengths: list[int], seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *lengths]).astype(np.int64)
    tokens, most = int(offsets[-1]), max(counts)
    coded = CodedTokens(
        offsets,
        rng.integers(0, 37, tokens).astype(np.uint16),
        rng.integers(0, 256, (tokens, padded_dims(dims, bits) * bits // 8)).astype(np.uint8),
        rng.uniform(0, 2, tokens).astype(np.float16),
        np.sort(rng.integers(-127, 128, 2**bits)).astype(np.int8),
    )
    rows = np.zeros((tokens, padded_dims(dims)), np.int8)
    rows[:, :dims] = rng.integers(-127, 128, (tokens, dims))
    query = rng.integers(-127, 128, (len(counts), most, dims)).astype(np.int8)
    for own, count in zip(query, counts, strict=True):
        own[count:] = 0
    plain = ByteRows(offsets, rows, rng.random(tokens).astype(np.float32))
    longest = max(lengths, default=0)
    arrays = (offsets, coded.codes.astype(np.int32), coded.residuals, coded.norms)
    on_device = DeviceTokens(*map(tensor, arrays), tensor(coded.levels).half(), longest)
    rows_on_device = DeviceRows(tensor(offsets), tensor(rows), tensor(plain.scales), longest)
    centroids = rng.integers(-127, 128, (37, dims)).astype(np.int8)
    return Case(counts, query, centroids, coded, plain, on_device, rows_on_device)


def tensor(array: np.ndarray) -> Any:
    return torch.from_numpy(array).to(DEVICE)


CASES = {
    "usual": ([18, 32, 24], 128, 4, [58, 20, 96, 64, 65, 1]),
    "empty documents": ([5], 64, 4, [0, 3, 0, 0, 70, 0]),
    "only empty documents": ([5], 64, 4, [0, 0]),
    "one token": ([1], 16, 4, [1]),
    "one lane": ([1, 1], 128, 4, [33, 2]),
    "lanes beyond a block": ([40, 1, 70, 0], 48, 4, [9, 130]),
    "two bits": ([40, 3], 128, 2, [70, 5, 0]),
    "96 dims": ([7], 96, 4, [40, 80]),
    "96 dims, two bits": ([7], 96, 2, [40, 80]),
    "130 dims": ([7, 2], 130, 4, [40, 80]),
    "130 dims, two bits": ([7], 130, 2, [40, 80]),
    "one dim": ([2], 1, 2, [3, 4]),
    "no documents": ([4], 32, 4, []),
}
each_case = pytest.mark.parametrize("case", [make_case(*case) for case in CASES.values()], ids=list(CASES))


def close(found: Any, expected: Any, tolerance: float) -> None:
    found, expected = found.double().cpu().numpy(), expected.double().cpu().numpy()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max(initial=1e-30))


@each_case
def test_the_torch_path_computes_what_numpy_s_does(case: Case) -> None:
    torch_path = device_kernels(DEVICE, "torch")
    queries, table = case.queries(torch.float64), case.table(torch.float64)
    coarse = torch_path.coarse(table, queries.counts, case.documents, case.on_device)
    scores, winners = torch_path.rerank(table, queries, UNITS, case.documents, case.on_device, evidence=True)
    scanned, seen = torch_path.scan(queries, case.documents, case.rows_on_device, evidence=True)
    for number, count in enumerate(case.counts):
        documents = case.documents[number].cpu().numpy()
        own = case.query[number, :count]
        near = case.table(torch.float64)[number, :, :count].cpu().numpy()
        for place, document in enumerate(documents):
            tokens = slice(*case.tokens.offsets[document : document + 2])
            best = (
                near[case.tokens.codes[tokens]].max(axis=0, initial=-np.inf).sum() if tokens.stop > tokens.start else 0
            )
            np.testing.assert_allclose(coarse[number, place].item(), best, rtol=1e-12)
        expected, right = ReferenceKernels().scan(case.rows, own, 1 / 128, documents, evidence=True)
        np.testing.assert_allclose(scanned[number].cpu().numpy(), expected, rtol=1e-6)
        np.testing.assert_array_equal(seen[number, :, :count].cpu().numpy(), right)
        assert (winners[number, :, count:] == -1).all() and (seen[number, :, count:] == -1).all()
        expected, right = by_hand(case, near, own, documents)
        np.testing.assert_allclose(scores[number].cpu().numpy(), expected, rtol=1e-12)
        np.testing.assert_array_equal(winners[number, :, :count].cpu().numpy(), right)


def by_hand(case: Case, near: np.ndarray, own: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the numpy reference's rerank does, on centroid scores that are not integers."""
    from ctxkit_kernels.reference import maxsim, multiply, unpack

    def similar(first: int, last: int) -> np.ndarray:
        residuals = multiply(unpack(case.tokens.residuals[first:last], case.tokens.levels), own) / 128
        whole = near[case.tokens.codes[first:last]] * UNITS[0] + residuals * UNITS[1]
        return whole * case.tokens.norms[first:last, None].astype(np.float64)

    totals, winners = maxsim(similar, documents, case.tokens.offsets, len(own), True)
    exact = [similar(*case.tokens.offsets[document : document + 2]) for document in documents]
    sums = [table.max(axis=0).sum() if len(table) else 0.0 for table in exact]
    np.testing.assert_allclose(totals, sums, rtol=1e-6)
    return np.array(sums), winners


@with_triton
@each_case
def test_triton_computes_what_the_torch_path_does(case: Case) -> None:
    fast, plain = device_kernels(DEVICE, "triton"), device_kernels(DEVICE, "torch")
    half, double = case.queries(torch.float16), case.queries(torch.float64)
    narrow, wide = case.table(torch.float16), case.table(torch.float64)
    where = case.documents, case.on_device
    close(fast.coarse(narrow, half.counts, *where), plain.coarse(wide, double.counts, *where), 1e-5)
    same(
        fast.rerank(narrow, half, UNITS, *where, evidence=True),
        plain.rerank(wide, double, UNITS, *where, evidence=True),
    )
    rows = case.documents, case.rows_on_device
    same(fast.scan(half, *rows, evidence=True), plain.scan(double, *rows, evidence=True))
    assert fast.rerank(narrow, half, UNITS, *where)[1] is fast.scan(half, *rows)[1] is None


def same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    close(found[0], expected[0], 1e-5)
    assert ((found[1] < 0) == (expected[1] < 0)).all()
    if found[1].numel():  # float32 may see a tie, or another order, where float64 does not
        assert (found[1] == expected[1]).double().mean() > 0.99


@with_triton
def test_each_query_may_ask_for_documents_of_its_own() -> None:
    case = make_case([6, 9], 32, 4, [5, 30, 0, 70, 8])
    fast, queries, table = device_kernels(DEVICE, "triton"), case.queries(torch.float16), case.table(torch.float16)
    whole = fast.rerank(table, queries, UNITS, case.documents, case.on_device)[0].flip(1)  # by document
    own = torch.tensor([[3, 0], [1, 4]], dtype=torch.int32, device=DEVICE)
    strided = torch.stack([own, own + 1], dim=2)[..., 0]  # every second number
    for documents in (own, strided):
        found = fast.rerank(table, queries, UNITS, documents, case.on_device)[0]
        assert torch.equal(found, whole.gather(1, own.long()))


@with_triton
def test_what_the_matrix_units_cannot_multiply_is_refused() -> None:
    case = make_case([2], 16, 4, [3])
    with pytest.raises(ValueError, match="must be of 16 bits for the matrix units, got torch.float32"):
        device_kernels(DEVICE, "triton").scan(case.queries(torch.float32), case.documents, case.rows_on_device)
    many = replace(case, counts=[1] * 70_000).documents
    with pytest.raises(ValueError, match="up to 65535 queries, got 70000"):
        device_kernels(DEVICE, "triton").scan(case.queries(torch.float16), many, case.rows_on_device)


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ctxkit_kernels import triton_maxsim

types = dict(
    table="*fp16", queries="*fp16", counts="*i32", documents="*i32", offsets="*i64", codes="*i32", residuals="*u8",
    norms="*fp16", levels="*fp16", values="*i8", scales="*fp32", out="*fp32", evidence="*i32", document_stride="i32",
    centroids="i32", lanes="i32", dims="i32", near_unit="fp32", far_unit="fp32",
)

def build(kernel, aligned, **constants):
    signature = {name: "constexpr" if name in constants else types[name] for name in kernel.arg_names}
    divisible = ["lanes", "dims"] if aligned else []
    attributes = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name not in constants and (signature[name].startswith("*") or name in divisible)
    }
    for chip in (80, 90):
        triton.compile(ASTSource(kernel, signature, constants, attributes), target=GPUTarget("cuda", chip, 32))

for lanes, evidence, aligned in ((16, False, True), (64, True, False)):
    blocks = dict(BLOCK_T=triton_maxsim.BLOCK_TOKENS, BLOCK_L=lanes)
    build(triton_maxsim.coarse_kernel, aligned, **blocks)
    for bits, width in ((4, 64), (2, 32), (4, 68)):
        shape = dict(WIDTH=width, BITS=bits, EVIDENCE=evidence, BLOCK_W=min(64, width))
        build(triton_maxsim.rerank_kernel, aligned, **shape, **blocks)
    build(triton_maxsim.scan_kernel, aligned, WIDTH=128, EVIDENCE=evidence, BLOCK_W=64, **blocks)
build(triton_maxsim.rerank_kernel, False, WIDTH=2, BITS=4, EVIDENCE=True, BLOCK_W=16, BLOCK_T=64, BLOCK_L=16,
      document_stride=1, lanes=1, dims=1, centroids=1)
print("compiled")
"""


@with_triton
def test_the_kernels_compile_for_ampere_and_hopper_without_a_card(repository: Path, tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does: types of loop variables, shapes of products."""
    script = tmp_path / "build.py"
    script.write_text(COMPILE)
    paths = os.pathsep.join([str(repository / "kernels"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert run.stdout.strip() == "compiled", run.stderr[-3000:]


def test_the_path_is_chosen_by_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_kernels("cpu").name == "torch"
    fresh = device_kernels.__wrapped__
    monkeypatch.setattr(choose, "find_spec", lambda name: None)
    assert fresh("cuda").name == "torch"
    if find_spec("triton") is None:
        with pytest.raises(ImportError):
            fresh("cpu", "triton")
        return
    from ctxkit_kernels import triton_maxsim

    monkeypatch.setattr(triton_maxsim, "interpreted", lambda: False)
    with pytest.raises(RuntimeError, match="Triton compiles for CUDA only, got 'cpu'"):
        fresh("cpu", "triton")
    assert fresh("cuda", "triton").name == "triton"


def test_neither_torch_nor_triton_is_loaded_before_it_is_asked_for() -> None:
    code = "import sys, ctxkit_kernels; print(*{'torch', 'triton'} & set(sys.modules))"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
