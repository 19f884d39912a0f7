"""What the fused paged attention kernel gains over torch on this CPU, and how much of the memory's speed it uses.

    OMP_NUM_THREADS=1 python benchmarks/attention/paged_kernel.py --threads 1
    python benchmarks/attention/paged_kernel.py --threads 2

Needs torch and a C++ compiler. The pages of a pool of --pool-mb, much more than the last cache holds, are read at
random places, so that they come from memory. Prints three tables:

1. One query per head over 64 scattered pages of 16 tokens per row: the kernel; torch, which gathers the pages by
   index_select and runs scaled_dot_product_attention with the heads of a group as its queries; and their ratio.
2. Bytes of keys and values per second over much longer rows, against a read of one large buffer in order, which does
   nothing but add (the same number of threads), and the part of it.
3. 512 queries per head and fewer: the kernel, scaled_dot_product_attention with a mask, and their ratio; with a window
   (4 sinks, reach 1,020) and without.

Times are CPU time with one thread and wall time with more. Each ratio is the median of the ratios of --rounds pairs,
the two of a pair one right after the other, because a shared machine's speed changes from second to second.
`--huge-pages` asks the system for large pages for the pool and the buffer, which makes scattered reads faster.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from ctxkit_kernels.attention import Gathered, Pages, Table, all_attention_kernels, shift_turns
from ctxkit_kernels.attention.native import NativeAttention

PAGE = 16
STREAM_BYTES = 1 << 28
FAR = 2**62
_MADV_HUGEPAGE = 14
_HUGE = 1 << 21


@dataclass(frozen=True)
class Shape:
    """Rows (KV heads), query heads for each, dimensions, numbers of the pages."""

    name: str
    rows: int
    heads: int
    dims: int
    kind: torch.dtype

    @property
    def page_bytes(self) -> int:
        return PAGE * self.dims * 2 * self.kind.itemsize


SHAPES = (
    Shape("SmolLM2 float32", 3, 3, 64, torch.float32),
    Shape("SmolLM2 bfloat16", 3, 3, 64, torch.bfloat16),
    Shape("Llama-8B float32", 8, 4, 128, torch.float32),
    Shape("Llama-8B bfloat16", 8, 4, 128, torch.bfloat16),
    Shape("Llama-8B int8", 8, 4, 128, torch.int8),
)
CHUNKS = (
    (512, 1536, True),
    (512, 1536, False),
    (512, 8192, False),
    (512, 32768, False),
    (16, 1536, True),
    (4, 1536, True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Paged attention on the CPU against torch and against the memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--pool-mb", type=int, default=512)
    parser.add_argument("--footprint-mb", type=int, default=64, help="keys and values of one call in table 2")
    parser.add_argument("--kernels", default="", help="part of a path's name: avx512, avx2, neon, scalar")
    parser.add_argument("--huge-pages", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    native = (
        one for one in all_attention_kernels() if isinstance(one, NativeAttention) and arguments.kernels in one.name
    )
    kernels = next(native, None)
    if kernels is None:
        parser.error("no C++ path of that name here")
    print(f"{kernels.name}, {arguments.threads} thread(s), pool {arguments.pool_mb} MB, torch {torch.__version__}")
    decode(kernels, arguments)
    bandwidth(kernels, arguments)
    chunks(kernels, arguments)


def decode(kernels: NativeAttention, arguments: argparse.Namespace) -> None:
    print(f"\n{'64 scattered pages of 16':26}{'kernel us':>11}{'torch us':>10}{'ratio':>7}{'kernel GB/s':>13}")
    for shape in (one for one in SHAPES if one.kind != torch.int8):  # torch has no attention over int8
        case = Case(shape, 64, 64, arguments)
        mine, other = paired(partial(case.kernel, kernels), case.torch, arguments.rounds * 4)
        rate = case.bytes / median(mine) / 1e9
        print(
            f"{shape.name:26}{median(mine) * 1e6:11.0f}{median(other) * 1e6:10.0f}{ratio(other, mine):7.2f}{rate:13.1f}"
        )


def bandwidth(kernels: NativeAttention, arguments: argparse.Namespace) -> None:
    buffer = allocated((STREAM_BYTES // 4,), torch.float32, arguments.huge_pages).normal_()
    print(f"\n{'long rows':26}{'GB/s':>11}{'read GB/s':>10}{'part':>7}")
    for shape in SHAPES:
        case = Case(shape, (arguments.footprint_mb << 20) // (shape.rows * shape.page_bytes), 8, arguments)
        stream = partial(kernels.stream, buffer, arguments.threads)
        mine, other = paired(partial(case.kernel, kernels), stream, arguments.rounds)
        rates, reads = [case.bytes / one / 1e9 for one in mine], [STREAM_BYTES / one / 1e9 for one in other]
        print(f"{shape.name:26}{median(rates):11.1f}{median(reads):10.1f}{ratio(rates, reads):7.2f}")


def chunks(kernels: NativeAttention, arguments: argparse.Namespace) -> None:
    print(f"\n{'queries, tokens, window':26}{'kernel ms':>11}{'torch ms':>10}{'ratio':>7}")
    rows, heads, dims, first = 3, 3, 64, 100_000
    for queries, tokens, window in CHUNKS:
        seen = gathered(rows, tokens, dims, first, queries, window)
        q, frequencies = torch.randn(rows, heads, queries, dims), torch.rand(dims // 2)
        keys, values = (part.repeat_interleave(heads, 0)[None] for part in (seen.keys, seen.values))
        of, mask = (q.reshape(1, rows * heads, queries, dims), keys, values), torch.zeros(queries, tokens)
        mine, other = paired(
            partial(kernels.chunk_attention, q, first, seen, frequencies, scale=dims**-0.5),
            partial(F.scaled_dot_product_attention, *of, attn_mask=mask),
            max(5, arguments.rounds * 1536 // tokens),
        )
        name = f"{queries}, {tokens:,}, {'4 + 1,020' if window else 'none'}"
        print(f"{name:26}{median(mine) * 1e3:11.2f}{median(other) * 1e3:10.2f}{ratio(other, mine):7.2f}")


class Case:
    """A pool of random pages, queries, and tables of different pages, taken in turns."""

    def __init__(self, shape: Shape, runs: int, tables: int, arguments: argparse.Namespace) -> None:
        self.pool = pool_of(shape, arguments)
        self.turns = shift_turns(torch.tensor([0, 5000]), torch.rand(shape.dims // 2))
        self.tables = itertools.cycle([table_of(shape, runs, len(self.pool.keys)) for _ in range(tables)])
        self.q = torch.randn(shape.rows, shape.heads, shape.dims)
        self.bytes = shape.rows * runs * shape.page_bytes

    def kernel(self, kernels: NativeAttention) -> None:
        scale = self.q.shape[-1] ** -0.5
        kernels.paged_attention(self.q, self.pool, next(self.tables), self.turns, scale=scale)

    def torch(self) -> None:
        rows, _, dims = self.q.shape
        which = next(self.tables).pages.flatten()
        keys, values = (
            part.index_select(0, which).view(rows, 1, -1, dims) for part in (self.pool.keys, self.pool.values)
        )
        F.scaled_dot_product_attention(self.q.to(keys.dtype)[:, None], keys, values)


def paired(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each, `rounds` times, in turns."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    one(), other()
    seconds: tuple[list[float], list[float]] = ([], [])
    for call, to in itertools.islice(itertools.cycle(((one, seconds[0]), (other, seconds[1]))), 2 * rounds):
        start = clock()
        call()
        to.append(clock() - start)
    return seconds


def ratio(numerators: list[float], denominators: list[float]) -> float:
    return median(a / b for a, b in zip(numerators, denominators, strict=True))


def pool_of(shape: Shape, arguments: argparse.Namespace) -> Pages:
    pages = (arguments.pool_mb << 20) // shape.page_bytes
    keys, values = (allocated((pages, PAGE, shape.dims), shape.kind, arguments.huge_pages) for _ in range(2))
    if shape.kind == torch.int8:
        scales = torch.rand(2, pages, PAGE) / 127
        return Pages(keys.random_(-127, 128), values.random_(-127, 128), *scales)
    return Pages(keys.normal_(), values.normal_())


def allocated(size: tuple[int, ...], kind: torch.dtype, huge: bool) -> Tensor:
    """An empty tensor; `huge`: in large pages of memory, where the system is Linux and has them."""
    length = torch.Size(size).numel() * kind.itemsize
    raw = torch.empty(length + _HUGE, dtype=torch.uint8)
    raw = raw[-raw.data_ptr() % _HUGE :][:length]
    if huge and ctypes.CDLL(None).madvise(ctypes.c_void_p(raw.data_ptr()), ctypes.c_size_t(length), _MADV_HUGEPAGE):
        raise OSError("this system gives no large pages on request")
    return raw.view(kind).view(size)


def table_of(shape: Shape, runs: int, pages: int) -> Table:
    first, whole = torch.zeros(1, runs, dtype=torch.int32), torch.full((1, runs), PAGE, dtype=torch.int32)
    return Table(torch.randint(0, pages, (shape.rows, runs), dtype=torch.int32), first, whole, first)


def gathered(rows: int, tokens: int, dims: int, first: int, queries: int, window: bool) -> Gathered:
    """The last `tokens` before and within the chunk; with a window, 4 sinks and the rest in reach of 1,020."""
    last = first + queries
    positions = torch.arange(last - tokens, last)[None]
    reach, hold = torch.full_like(positions, FAR), torch.full_like(positions, FAR)
    if window:
        positions[:, :4] = torch.arange(4)
        reach[:, 4:], hold[:, :4] = 1020, 1020
    return Gathered(torch.randn(rows, tokens, dims), torch.randn(rows, tokens, dims), positions, reach, hold)


if __name__ == "__main__":
    main()
