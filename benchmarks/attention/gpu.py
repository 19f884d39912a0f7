"""The attention kernels on an NVIDIA GPU: right first, then how near to what its memory can deliver, to a JSON file.

    python benchmarks/attention/gpu.py gpu.json        (or bash benchmarks/gpu.sh, which finds a Python and the paths)

Shapes are of Llama-3.1-8B in bfloat16: 32 heads over 8 key/value heads of 128 dimensions. Sections, in this order:

check      every kernel against the torch reference. Where one is wrong, no time is taken.
bandwidth  bytes per second of a large copy, and of a kernel that only reads.
tuning     the decoding kernel cut up in several ways, over one size.
decode     one query per head over 8k to 1M tokens, in 256-token pages in order ("ring") and 16-token pages in random
           order ("pages"). efficiency: bytes of keys and values / (time * bandwidth of reading). Torch's own attention
           over the same memory beside it, and how far the results are apart.
step       a CUDA graph of 32 layers' attention.
static_steps  a whole model's decoding step, replayed from a CUDA graph, beside passes made anew.
flex       torch's compiled flex_attention, beside ours.
chunk      512 queries over many tokens.
tests      the tests that need a GPU.
search     benchmarks/gpu_search.py, if time is left.

Times are medians of CUDA graph replays between events, after a read of memory that empties the cache. A section that
fails leaves its traceback under "errors", and the status is 1. The file is written after each section.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

try:
    import torch
except ImportError:
    sys.exit("torch is not installed. Install the extra from the checkout: pip install '.[local]'")

from attended import PAGE, Pool, chunk_inputs, kernels
from checking import check
from measuring import TINY, Bench, Sizes, apart
from static_steps import static_steps

REPOSITORY = Path(__file__).resolve().parents[2]
TESTS = [
    "tests/kernels/test_triton_kernels.py",
    "tests/kernels/test_triton_attention.py",
    "tests/models/local/test_static_step.py::test_hundreds_of_steps_of_texts_that_come_and_go_are_those_of_passes_made_anew",
    "tests/models/local/test_static_step.py::test_pages_that_move_are_found_again",
    "tests/models/local/test_static_step.py::test_on_a_gpu_steps_are_replayed_by_default",
    "tests/retrieval/multivector/test_multivector_gpu.py",
]
BARS = {"ring": 0.85, "pages": 0.70}


def machine(bench: Bench) -> dict[str, Any]:
    import triton

    found: dict[str, Any] = {"torch": torch.__version__, "triton": triton.__version__, "python": sys.version.split()[0]}
    if bench.device == "cuda":
        seen = torch.cuda.get_device_properties(0)
        found |= {"name": seen.name, "processors": seen.multi_processor_count, "bytes": seen.total_memory}
        found |= {"cache_bytes": getattr(seen, "L2_cache_size", None), "cuda": torch.version.cuda}
    print(found, flush=True)
    return found


def bandwidth(bench: Bench) -> dict[str, float]:
    """Bytes per second."""
    from read_speed import read_by, sum_programs

    source = torch.ones(bench.sizes.copied_bytes // 4, dtype=torch.int32, device=bench.device)
    target = torch.empty_like(source)
    found = {"copy": 2 * source.nbytes / bench.seconds(lambda: target.copy_(source))}
    processors = torch.cuda.get_device_properties(0).multi_processor_count if bench.device == "cuda" else 1
    for each in (4, 8, 16, 64):
        programs = each * processors
        took = bench.seconds(partial(sum_programs, source, programs))
        found[f"read, {each} programs"] = 4 * read_by(source, programs) / took
    found["read"] = max(speed for name, speed in found.items() if name.startswith("read"))
    print({name: f"{speed / 1e9:.0f} GB/s" for name, speed in found.items()}, flush=True)
    return found


TUNINGS = ((64, 4, 5), (64, 4, 3), (32, 4, 7), (64, 8, 5), (32, 4, 5), (64, 4, 7), (32, 2, 5), (128, 8, 3))
TUNED = ("block_tokens", "warps", "stages", "programs")


def tuning(bench: Bench) -> None:
    """Efficiency of each way to cut, or why it cannot be; and the best of each layout."""
    pool, found = Pool.random(bench, 1, bench.sizes.tuned_tokens), bench.results.setdefault("tuning", {})
    ways = [(*way, 4) for way in (TUNINGS if bench.device == "cuda" else TUNINGS[:2])]
    for layout in PAGE:
        least = bench.left - 50  # seconds
        tried: dict[tuple[int, ...], float] = {}
        shown = found[layout] = {}
        for way in ways:
            if bench.left > least:
                try_way(bench, pool, layout, way, tried, shown)
        first = max(tried, key=tried.__getitem__)
        for programs in (2, 3, 6, 8, 16):  # the grid needs no compilation
            try_way(bench, pool, layout, (*first[:3], programs), tried, shown)
        found[f"best {layout}"] = dict(zip(TUNED, max(tried, key=tried.__getitem__), strict=True))
        print(layout, shown, flush=True)


def try_way(bench: Bench, pool: Pool, layout: str, way: tuple[int, ...], tried: Any, shown: Any) -> None:
    try:
        work = pool.step(kernels(**dict(zip(TUNED, way, strict=True))), layout)
        tried[way] = shown[str(way)] = efficiency(bench, pool.read, bench.seconds(work))
    except Exception as error:  # more shared memory than there is, say: known only on the card
        shown[str(way)] = repr(error)[:300]


def efficiency(bench: Bench, read: int, seconds: float) -> float:
    return read / seconds / bench.results["bandwidth"]["read"]


def best_of(bench: Bench, layout: str) -> dict[str, int]:
    return bench.results.get("tuning", {}).get(f"best {layout}", {})


def fits(bench: Bench, batch: int, tokens: int, layers: int = 1) -> bool:
    if bench.device != "cuda":
        return True
    torch.cuda.empty_cache()
    return 4 * batch * tokens * bench.sizes.heads * bench.sizes.dims * layers < 0.7 * torch.cuda.mem_get_info()[0]


def decode(bench: Bench) -> None:
    for batch in bench.sizes.batches:
        for tokens in bench.sizes.tokens:
            if fits(bench, batch, tokens):
                decode_over(bench, Pool.random(bench, batch, tokens), batch, tokens)


def decode_over(bench: Bench, pool: Pool, batch: int, tokens: int) -> None:
    def ours(layout: str, tuning: dict[str, int], turned: str) -> dict[str, float]:
        work = pool.step(kernels(**tuning), layout, turned)
        found = timed(bench, pool, bench.seconds(work))
        if turned == "each":  # of these, torch knows nothing
            return found
        gap = apart(work()[0], pool.packed().flatten(0, 1))
        if not gap < 1e-2:
            raise RuntimeError(f"WRONG: differs from torch's attention by {gap:.1e}")
        return found | {"apart": gap}

    for layout in PAGE:
        ways = [("default", {}, "two"), ("tuned", best_of(bench, layout), "two")]
        if tokens == bench.sizes.tuned_tokens:
            ways += [("nothing turns", best_of(bench, layout), "one"), ("turns differ", best_of(bench, layout), "each")]
        for how, tuning, turned in ways:
            work = partial(ours, layout, tuning, turned)
            bench.attempt("decode", work, batch=batch, tokens=tokens, layout=layout, how=how)
    for how, attention in (("packed", pool.packed), ("enable_gqa", pool.grouped)):
        work = partial(lambda attention: timed(bench, pool, bench.seconds(attention)), attention)
        bench.attempt("decode", work, batch=batch, tokens=tokens, layout="torch", how=how)


def timed(bench: Bench, pool: Pool, seconds: float, layers: int = 1) -> dict[str, float]:
    return {"us": round(seconds * 1e6, 2), "efficiency": round(efficiency(bench, pool.read * layers, seconds), 4)}


def step(bench: Bench) -> None:
    for batch in bench.sizes.batches:
        for tokens in bench.sizes.steps:
            if fits(bench, batch, tokens, bench.sizes.layers):
                pools = [Pool.random(bench, batch, tokens) for _ in range(bench.sizes.layers)]
                for layout in PAGE:
                    work = partial(step_over, bench, pools, layout)
                    bench.attempt("step", work, batch=batch, tokens=tokens, layout=layout)
                del pools, work


def step_over(bench: Bench, pools: list[Pool], layout: str) -> dict[str, float]:
    works = [pool.step(kernels(**best_of(bench, layout)), layout) for pool in pools]
    return timed(bench, pools[0], bench.seconds(lambda: [work() for work in works]), len(pools))


def flex(bench: Bench) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False) if bench.device == "cuda" else flex_attention
    for batch in bench.sizes.batches:
        pool = Pool.random(bench, batch, bench.sizes.tuned_tokens)
        work = partial(compiled, pool.q.flatten(1, 2)[:, :, None], pool.keys, pool.values, enable_gqa=True)
        line = {"batch": batch, "tokens": bench.sizes.tuned_tokens}
        bench.attempt("flex", partial(lambda pool, work: timed(bench, pool, bench.seconds(work)), pool, work), **line)


def chunk(bench: Bench) -> None:
    """Milliseconds, and 1e12 operations per second of both products. Its launch waits for the device: no graph."""
    queries, tokens = bench.sizes.chunk
    for kind in (torch.bfloat16, torch.float32):
        inputs = chunk_inputs(bench, queries, tokens, kind)
        q, keys, values = inputs[0].flatten(1, 2)[None], inputs[2].keys.to(kind)[None], inputs[2].values.to(kind)[None]
        plain = partial(torch.nn.functional.scaled_dot_product_attention, q, keys, values)
        works = {"ours": partial(kernels().chunk_attention, *inputs, scale=0.1), "torch, sees all": plain}
        for how, work in works.items():
            operations = 4 * q[..., 0].numel() * tokens * bench.sizes.dims
            rate = partial(lambda work, operations: waited(bench, work, operations), work, operations)
            bench.attempt("chunk", rate, kind=str(kind), how=how)


def waited(bench: Bench, work: Callable[[], Any], operations: int) -> dict[str, float]:
    def whole() -> None:
        work()
        if bench.device == "cuda":
            torch.cuda.synchronize()

    whole()
    seconds = median(bench.on_cpu(whole) for _ in range(bench.sizes.rounds))
    return {"ms": round(seconds * 1e3, 3), "tera": round(operations / seconds / 1e12, 2)}


def tests(bench: Bench) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "-q", "-p", "no:cacheprovider"]
    command += ["-n", "8"] if find_spec("xdist") is not None else []
    return run(bench, [*command, *TESTS], bench.left - 5)


def search(bench: Bench) -> dict[str, Any]:
    return run(bench, [sys.executable, "benchmarks/gpu_search.py", "--tokens", "1000000"], bench.left, late=True)


def run(bench: Bench, command: list[str], seconds: float, late: bool = False) -> dict[str, Any]:
    """Output of a command in the repository. RuntimeError where it fails, or is late, unless it may be `late`."""
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=max(1.0, seconds)
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        status, output = None, error.stdout or b""
    text = output.decode(errors="replace")[-8000:]
    print(text, flush=True)
    if status != 0 and not (late and status is None):
        raise RuntimeError(f"{' '.join(command)}\nended with {status}\n{text}")
    return {"status": "out of time" if status is None else status, "output": text.splitlines()}


def bars(bench: Bench) -> dict[str, Any]:
    """The efficiencies of each layout over at least 100,000 tokens, and whether the best reaches its bar."""
    found = {}
    for layout, bar in BARS.items():
        lines = [line for line in bench.results["decode"] if line["layout"] == layout and "efficiency" in line]
        rates = [line["efficiency"] for line in lines if line["how"] in ("default", "tuned")]
        long = [line["efficiency"] for line in lines if line["how"] == "tuned" and line["tokens"] >= 100_000] or rates
        found[layout] = {"bar": bar, "least": min(long), "best": max(long), "reached": max(long) >= bar}
    print(found, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="The attention kernels on an NVIDIA GPU: right first, then how fast")
    parser.add_argument("json", type=Path, nargs="?", default=Path("gpu.json"), help="where the figures go")
    parser.add_argument("--seconds", type=float, default=450.0, help="for all of it")
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tiny:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton
    elif not torch.cuda.is_available() or torch.version.cuda is None:
        print(f"No NVIDIA GPU here that torch {torch.__version__} can use: nothing to measure.")
        return 0
    device, sizes = ("cpu", TINY) if arguments.tiny else ("cuda", Sizes())
    bench = Bench(device, sizes, arguments.json, time.monotonic() + arguments.seconds)
    for section in (machine, check):
        bench.section(section.__name__, section)
    if not bench.errors:
        sections = ((bandwidth, 0), (tuning, 200), (decode, 0), (step, 120), (static_steps, 150), (flex, 150))
        for section, needed in (*sections, (chunk, 90)):
            bench.section(section.__name__, section, needed)
        bench.section("bars", bars)
    if not arguments.tiny:
        bench.section("tests", tests, 20)
        bench.section("search", search, 60)
    if bench.errors:
        print(f"FAILED: {', '.join(bench.errors)}. Tracebacks are in {arguments.json}")
    return 1 if bench.errors else 0


if __name__ == "__main__":
    sys.exit(main())
