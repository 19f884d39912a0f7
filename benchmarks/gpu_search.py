"""How fast the multi-vector engine searches on a GPU, at what recall, and how much of the memory's speed it uses.

    python benchmarks/gpu_search.py --tokens 1000000
    python benchmarks/gpu_search.py --kernels-only

Needs a CUDA device, torch and numpy; Triton for the kernels that it is about. Prints, in this order:

1. Largest relative difference between Triton's scores and torch's in float64, on random codes, on this card.
2. Each kernel over random codes, every byte read once: microseconds, and bytes of the collection (codes, residuals,
   norms; rows and scales) per second against what a copy of one large tensor reaches on this card. Centroid scores are
   read besides, from the cache if all goes well, and are not counted.
3. Synthetic vectors: ms per query and recall@10 against exact float32 MaxSim, for batches of several sizes: of the GPU
   engine, of a padded float16 brute force in torch on the same card, and of the CPU engine on one thread.

Device time is between CUDA events around all that is enqueued, medians of --rounds after a warm-up; `whole` is wall
time of the call, with checking, padding, both copies and unpacking.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from synthetic import synthetic

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine
from ctxkit.retrieval.multivector.coded import CodedIndex
from ctxkit.retrieval.multivector.exact import ExactScan
from ctxkit.retrieval.multivector.gpu import GpuEngine
from ctxkit.retrieval.multivector.options import GpuOptions
from ctxkit_kernels import DeviceKernels, DeviceRows, DeviceTokens, QueryBatch, best_kernels, device_kernels

try:
    import torch
except ImportError:
    sys.exit("torch is not installed. Install the extra from the checkout: pip install '.[local]'")

K = 10
COPY_BYTES = 1 << 31
CENTROIDS, LANES, DIMS, DOCUMENT_TOKENS = 1 << 14, 32, 128, 58  # of random codes
BRUTE_BYTES = 1 << 33  # of similarities at once
RERANK = (100, 200, 500, 1000)
CPU_QUERIES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed at recall of the multi-vector engine on a GPU")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of the synthetic documents")
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--kernel-tokens", type=int, default=50_000_000, help="random ones; several times the cache")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kernels-only", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"no CUDA device: torch {torch.__version__} sees none. This benchmark measures nothing elsewhere.")
    kernels = device_kernels("cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {versions()}; path: {kernels.name}")
    if kernels.name == "triton":
        check(kernels)
    report_kernels(kernels, arguments.kernel_tokens, arguments.rounds)
    if not arguments.kernels_only:
        report_search(arguments)


def versions() -> str:
    try:
        import triton
    except ImportError:
        return "no Triton"
    return f"Triton {triton.__version__}"


# Kernels, on random codes


def check(kernels: DeviceKernels) -> None:
    for bits in (4, 2):
        tokens, rows = random_tokens(200_000, bits), random_rows(200_000)
        queries, table, documents = random_queries(4, len(tokens.offsets) - 1)
        exact = QueryBatch(queries.lanes.double(), queries.counts)
        plain, units, wide = device_kernels("cuda", "torch"), (0.01, 0.002), table.double()
        pairs = {
            "coarse": (
                kernels.coarse(table, queries.counts, documents, tokens),
                plain.coarse(wide, queries.counts, documents, tokens),
            ),
            "rerank": (
                kernels.rerank(table, queries, units, documents, tokens)[0],
                plain.rerank(wide, exact, units, documents, tokens)[0],
            ),
            "scan": (kernels.scan(queries, documents, rows)[0], plain.scan(exact, documents, rows)[0]),
        }
        apart = {name: float(((one - two).norm() / two.norm()).item()) for name, (one, two) in pairs.items()}
        print(f"{bits} bits, Triton against float64: " + ", ".join(f"{name} {gap:.1e}" for name, gap in apart.items()))
        if max(apart.values()) > 1e-4:
            sys.exit("the kernels do not agree: nothing below would mean anything")


def report_kernels(kernels: DeviceKernels, count: int, rounds: int) -> None:
    most = copy_speed(rounds)
    print(f"copy of {COPY_BYTES >> 30} GiB: {most / 1e9:,.0f} GB/s, read and written: the limit below")
    print(f"{'kernel':14} {'queries':>7} {'ms':>9} {'GB/s':>8} {'of copy':>8}   {count:,} tokens, {LANES} lanes")
    report = partial(kernel_line, most, rounds)
    for bits in (4, 2):
        tokens = random_tokens(count, bits)
        coded = tokens.residuals.nbytes + tokens.codes.nbytes + tokens.norms.nbytes
        for number in (1, 4):
            queries, table, documents = random_queries(number, len(tokens.offsets) - 1)
            rerank = partial(kernels.rerank, table, queries, (0.01, 0.002), documents, tokens)
            report(f"rerank {bits} bits", number, number * coded, rerank)
            if bits == 4:
                coarse = partial(kernels.coarse, table, queries.counts, documents, tokens)
                report("coarse", number, number * tokens.codes.nbytes, coarse)
        del tokens, rerank
    rows = random_rows(count)
    for number in (1, 4):
        queries, _, documents = random_queries(number, len(rows.offsets) - 1)
        read = number * (rows.rows.nbytes + rows.scales.nbytes)
        report("scan int8", number, read, partial(kernels.scan, queries, documents, rows))


def copy_speed(rounds: int) -> float:
    """Bytes per second, read and written, of one large copy on the card."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / device_seconds(partial(target.copy_, source), rounds)


def kernel_line(most: float, rounds: int, name: str, queries: int, read: int, work: Callable[[], object]) -> None:
    seconds = device_seconds(work, rounds)
    speed = read / seconds
    print(f"{name:14} {queries:7} {seconds * 1e3:9.3f} {speed / 1e9:8,.0f} {speed / most:8.1%}", flush=True)


def random_offsets(count: int) -> np.ndarray:
    lengths = np.random.default_rng(0).integers(20, 97, count // DOCUMENT_TOKENS)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def random_tokens(count: int, bits: int) -> DeviceTokens:
    offsets = random_offsets(count)
    total = int(offsets[-1])
    return DeviceTokens(
        torch.from_numpy(offsets).cuda(),
        torch.randint(0, CENTROIDS, (total,), dtype=torch.int32, device="cuda"),
        torch.randint(0, 256, (total, DIMS * bits // 8), dtype=torch.uint8, device="cuda"),
        torch.rand(total, device="cuda").half(),
        torch.linspace(-127, 127, 1 << bits, device="cuda").round().half(),
        96,
    )


def random_rows(count: int) -> DeviceRows:
    offsets = random_offsets(count)
    rows = torch.randint(-127, 128, (int(offsets[-1]), DIMS), dtype=torch.int8, device="cuda")
    return DeviceRows(torch.from_numpy(offsets).cuda(), rows, torch.rand(len(rows), device="cuda"), 96)


def random_queries(number: int, documents: int) -> tuple[QueryBatch, Any, Any]:
    """A batch, its centroid scores, and all documents in random order, one and the same for every query."""
    lanes = torch.nn.functional.normalize(torch.randn(number, LANES, DIMS, device="cuda"), dim=2).half()
    counts = torch.full((number,), LANES, dtype=torch.int32, device="cuda")
    table = (100 * torch.randn(number, CENTROIDS, LANES, device="cuda")).half()
    order = torch.randperm(documents, device="cuda").int()
    return QueryBatch(lanes, counts), table, order.expand(number, -1)


def device_seconds(work: Callable[[], object], rounds: int) -> float:
    """Median time between two events around one call."""
    for _ in range(3):
        work()
    spans = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        spans.append((start, end))
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in spans) / 1e3


# Search, on synthetic vectors


def report_search(arguments: argparse.Namespace) -> None:
    documents, ids, asked, _ = synthetic(arguments.tokens, arguments.queries)
    queries = [asked[number] for number in range(len(asked))]
    brute = BruteForce(documents, torch.float32)
    truth = brute.search_batch(queries)
    started = time.process_time()
    index = CodedIndex.build(best_kernels(), documents, ids, BuildOptions(refine=True))
    lanes = len(queries[0])
    print(f"{len(documents):,} documents, {len(documents.values):,} tokens, {len(queries)} queries of {lanes} tokens")
    print(f"built in {time.process_time() - started:.0f} CPU-s, {len(index.codebook.centroids):,} centroids")
    print(f"{'engine':34} {'batch':>5} {'device ms':>10} {'whole ms':>9} {'recall@10':>9}   per query")
    del brute
    narrow = BruteForce(documents, torch.float16)
    for batch in arguments.batches:
        search_line("torch float16 brute force", narrow, queries, truth, batch, arguments.rounds)
    del narrow
    torch.cuda.empty_cache()
    scan = GpuEngine(ExactScan.build(documents))
    for batch in arguments.batches:
        search_line("GPU exact scan, int8", scan, queries, truth, batch, arguments.rounds)
    del scan
    for refine in (0, 30):
        for rerank in RERANK:
            engine = GpuEngine(index, options=GpuOptions(rerank, refine))
            for batch in arguments.batches:
                search_line(f"GPU coded, {rerank}, refine {refine}", engine, queries, truth, batch, arguments.rounds)
            del engine
    report_cpu(index, queries[:CPU_QUERIES], truth)


def search_line(name: str, engine: Any, queries: list[np.ndarray], truth: list[Any], batch: int, rounds: int) -> None:
    """`engine`: something with `search_batch`, and `enqueue`, or a GpuEngine."""
    some = queries[:batch]
    found = [one for start in range(0, len(queries), 64) for one in engine.search_batch(queries[start : start + 64], K)]
    enqueue = engine.enqueue if isinstance(engine, BruteForce) else enqueued(engine)
    device = device_seconds(lambda: enqueue(some), rounds) / len(some)
    whole = wall_seconds(lambda: engine.search_batch(some, K), rounds) / len(some)
    print(f"{name:34} {len(some):5} {device * 1e3:10.4f} {whole * 1e3:9.4f} {recall(found, truth):9.3f}", flush=True)


def enqueued(engine: GpuEngine) -> Callable[[Sequence[np.ndarray]], object]:
    """What `search_batch` does before it waits."""
    return lambda queries: engine._enqueued(queries, [1.0] * len(queries), K, None)


def report_cpu(index: CodedIndex, queries: list[np.ndarray], truth: list[Any]) -> None:
    engine = MultiVectorEngine(index)
    found = [engine.search(query, K) for query in queries]
    started = time.process_time()
    for query in queries:
        engine.search(query, K)
    took = (time.process_time() - started) / len(queries)
    shown = recall(found, truth)
    print(f"{'CPU engine, one thread, refine 30':34} {1:5} {'':10} {took * 1e3:9.4f} {shown:9.3f}")


class BruteForce:
    """MaxSim over vectors padded to the longest document, a matrix product for as many queries as memory takes."""

    def __init__(self, documents: Vectors, dtype: torch.dtype) -> None:
        counts = np.diff(documents.offsets)
        inside = np.arange(counts.max()) < counts[:, None]  # [documents, tokens]
        self._outside = torch.from_numpy(~inside).cuda()
        self._values = torch.zeros((*inside.shape, documents.values.shape[1]), dtype=dtype, device="cuda")
        self._values[~self._outside] = torch.from_numpy(documents.values).cuda().to(dtype)

    def enqueue(self, queries: Sequence[np.ndarray]) -> torch.Tensor:
        """int64 [queries, K]; all queries have the same number of tokens."""
        lanes = torch.from_numpy(np.stack(queries)).pin_memory().cuda(non_blocking=True).to(self._values.dtype)
        lanes_bytes = self._outside.numel() * lanes.shape[1] * lanes.element_size()
        return torch.cat([self._best(part) for part in lanes.split(max(1, BRUTE_BYTES // lanes_bytes))])

    def _best(self, lanes: torch.Tensor) -> torch.Tensor:
        similar = self._values @ lanes.flatten(0, 1).T  # [documents, tokens, queries * lanes]
        peaks = similar.masked_fill_(self._outside[..., None], -torch.inf).amax(dim=1)
        return peaks.unflatten(1, lanes.shape[:2]).float().sum(dim=2).topk(K, dim=0).indices.T

    def search_batch(self, queries: Sequence[np.ndarray], k: int = K) -> list[np.ndarray]:
        return list(self.enqueue(queries).cpu().numpy())


def wall_seconds(work: Callable[[], object], rounds: int) -> float:
    spans = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        spans.append(time.perf_counter() - started)
    return median(spans)


def recall(found: Sequence[Any], truth: Sequence[Any]) -> float:
    """Share of the true K best that were found. Results are ids, or have them."""
    pairs = zip(found, truth, strict=False)
    return float(np.mean([len({*getattr(one, "ids", one)} & {*two}) / K for one, two in pairs]))


if __name__ == "__main__":
    main()
