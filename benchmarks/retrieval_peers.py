"""Multi-vector search engines over the same token vectors, on one thread: speed at recall, building, size, memory.

    python benchmarks/retrieval_peers.py COLLECTION ... --cache /tmp/vectors --tokens 1000000 --settings full
    python benchmarks/retrieval_peers.py --synthetic-tokens 50000 --settings quick --peers ctxkit faiss

The vectors are those of token_vectors.py: collections in BEIR form (text_collections.py makes more of them), or
synthetic. At first use it makes a virtual environment per peer under --venvs and installs the pinned version there
(pip, network); fast-plaid and xtr-warp-rs pin a CUDA build of torch, 5 GB, and are skipped without --with-cuda-wheels.
Every peer builds its own index. One process per peer and method, with one thread.

recall      share of the ten best documents by exact float32 MaxSim that are among the ten found
ms          CPU time of a query, of all threads: warm, the best of five rounds (fewer of what is slow)
build       CPU seconds from the vectors to an index that answers
B/token     the index on disk; + the float32 vectors where a search reads them beside it
peak        of the process's memory, the given vectors (512 B/token) included

What was measured stays in --work: the table shows all that is there for these vectors. Recall of 200 queries is good to
about 0.01.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers.environments import run, virtual_environment
from platformdirs import user_cache_dir
from token_vectors import Data, K, encoded, synthetic

ADAPTERS = Path(__file__).resolve().parent / "peers" / "retrieval"
ROOT = ADAPTERS.parent.parent.parent
# With LANCE_IO_THREADS=1, LanceDB waits forever.
THREADS = (
    "OMP",
    "MKL",
    "OPENBLAS",
    "NUMEXPR",
    "RAYON",
    "TOKIO_WORKER",
    "LANCE_CPU",
    "NUMBA",
)
LEVELS = (0.90, 0.95, 0.985)


@dataclass(frozen=True)
class Peer:
    """adapter: its file. methods: the adapter's names. packages: what each call of pip installs; none: our own."""

    adapter: str
    methods: tuple[str, ...]
    packages: tuple[tuple[str, ...], ...] = ()
    cuda: bool = False

    @property
    def home(self) -> str:
        return self.packages[-1][0]


CUDA = (("fast-plaid==1.7.0.2110", "xtr-warp-rs==2.1.0.2110"),)  # both pin torch 2.11
PEERS = {
    "ctxkit": Peer("ctxkit_engine", ("native", "native-refine", "numba", "numba-refine")),
    "exact": Peer("exact_scan", ("fp32",)),
    "faiss": Peer("faiss_tokens", ("ivf-pq", "ivf-sq8", "hnsw-sq8"), (("faiss-cpu==1.15.1",),)),
    "usearch": Peer("usearch_tokens", ("hnsw-i8",), (("usearch==2.26.6",),)),
    "lancedb": Peer("lancedb_table", ("ivf-pq",), (("lancedb==0.40.0",),)),
    "bm25s": Peer("bm25s_words", ("bm25",), (("bm25s==0.3.16",),)),
    "colbert": Peer(
        "colbert_plaid", ("plaid-4bit",), (("torch==2.13.0",), ("colbert-ai==0.2.22", "faiss-cpu==1.15.1", "ninja"))
    ),
    "fast_plaid": Peer("fast_plaid_index", ("4bit",), CUDA, cuda=True),
    "xtr_warp": Peer("xtr_warp_index", ("4bit",), CUDA, cuda=True),
}


# --- running ----------------------------------------------------------------------------------------------------------


def measure(peer: Peer, method: str, python: Path, given: Path, arguments: argparse.Namespace) -> None:
    """Leaves what the adapter wrote, also where it fails or takes too long."""
    name = f"{peer.adapter} {method}"
    out = given / "results" / f"{name}.jsonl"
    out.parent.mkdir(exist_ok=True)
    command = [python, ADAPTERS / f"{peer.adapter}.py", method, given, out, arguments.settings]
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        run(command, env=environment(python), timeout=60 * arguments.minutes)
    except subprocess.TimeoutExpired:
        note(out, f"stopped after {arguments.minutes} minutes")
    except SystemExit as failure:
        note(out, str(failure).strip().splitlines()[-1])


def environment(python: Path) -> dict[str, str]:
    """One thread each; compilers' helpers of the environment are found first."""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    roots = os.pathsep.join(str(ROOT / part) for part in ("", "connectors", "agents", "kernels"))
    threads = {f"{name}_THREADS": "1" for name in THREADS} | {f"{name}_NUM_THREADS": "1" for name in THREADS}
    return {**os.environ, **threads, "PATH": path, "PYTHONPATH": roots, "PYTHONHASHSEED": "0"}


def note(out: Path, problem: str) -> None:
    print(f"{out.stem}: {problem}", file=sys.stderr, flush=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"problem": problem[:300]}) + "\n")


def interpreter(peer: Peer, arguments: argparse.Namespace) -> Path | None:
    """None where it is not to be had here; says why."""
    if not peer.packages:
        return Path(sys.executable)
    home = arguments.venvs / peer.home
    if peer.cuda and not arguments.with_cuda_wheels and not (home / "installed").exists():
        print(f"{peer.adapter}: skipped, it needs torch's CUDA wheels (--with-cuda-wheels)", file=sys.stderr)
        return None
    try:
        return virtual_environment(home, *peer.packages)
    except SystemExit as failure:
        print(f"{peer.adapter}: skipped, {str(failure).strip().splitlines()[-1]}", file=sys.stderr)
        return None


# --- vectors ----------------------------------------------------------------------------------------------------------


def vectors(arguments: argparse.Namespace) -> Path:
    """The folder of the vectors, made once for these collections and numbers."""
    names = [folder.name for folder in arguments.collections]
    label = f"synthetic-{arguments.synthetic_tokens}" if arguments.synthetic_tokens else "-".join(names)
    given = arguments.work / f"{label}-{arguments.tokens or 'all'}-{arguments.queries}"
    if not (given / "truth.npy").exists():
        given.mkdir(parents=True, exist_ok=True)
        write(made(arguments), given)
    return given


def made(arguments: argparse.Namespace) -> Data:
    if arguments.synthetic_tokens:
        return synthetic(arguments.synthetic_tokens, arguments.queries)
    return encoded(arguments.collections, arguments.cache, arguments.queries, tokens=arguments.tokens)


def write(data: Data, folder: Path) -> None:
    arrays = {
        "documents": data.documents.values,
        "offsets": data.documents.offsets,
        "token_ids": data.token_ids,
        "queries": data.queries.values,
        "query_offsets": data.queries.offsets,
        "query_ids": data.query_ids,
        "truth": data.truth,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def described(given: Path) -> str:
    offsets, asked = np.load(given / "offsets.npy"), np.load(given / "query_offsets.npy")
    lanes = np.diff(asked).mean()
    return f"{len(offsets) - 1:,} passages, {offsets[-1]:,} tokens, {len(asked) - 1} queries of {lanes:.1f} tokens"


# --- report -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """build: the adapter's line. rows: setting, ms, recall. problem: why there is no more."""

    name: str
    build: dict[str, Any]
    rows: list[tuple[str, float, float]]
    peak_bytes: int | None
    problem: str | None

    def cheapest(self, level: float) -> float | None:
        """ms of the fastest setting of this recall or more."""
        return min((ms for _, ms, recall in self.rows if recall >= level - 1e-9), default=None)


def results(given: Path) -> list[Result]:
    truth = np.load(given / "truth.npy")
    order = {f"{peer.adapter} {method}": None for peer in PEERS.values() for method in peer.methods}
    paths = [given / "results" / f"{name}.jsonl" for name in order]
    return [result(path, truth) for path in paths if path.exists()]


def result(path: Path, truth: np.ndarray) -> Result:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    rows = [(label(line["setting"]), line["ms"], recall(line["ids"], truth)) for line in found if "setting" in line]
    first = next((line["build"] for line in found if "build" in line), {})
    peak = next((line["peak_bytes"] for line in found if "peak_bytes" in line), first.get("peak_bytes"))
    problem = next((line["problem"] for line in found if "problem" in line), None)
    return Result(path.stem, first, rows, peak, problem)


def recall(ids: Sequence[Sequence[int]], truth: np.ndarray) -> float:
    return float(np.mean([len(set(found) & set(best.tolist())) / K for found, best in zip(ids, truth, strict=True)]))


def label(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def settings_table(found: Iterable[Result]) -> Iterator[str]:
    for one in found:
        yield f"{one.name}: {built(one)}" + (f"; {one.problem}" if one.problem else "")
        yield from (f"    {setting:64} {ms:9.3f} ms   recall@{K} {share:.3f}" for setting, ms, share in one.rows)


def built(one: Result) -> str:
    if not one.build:
        return "no index"
    beside = one.build["beside_per_token"]
    size = f"{one.build['bytes_per_token']:.1f}" + (f" + {beside:.0f}" if beside else "")
    return f"build {one.build['cpu_seconds']:.1f} CPU-s, {size} B/token, peak {one.peak_bytes / 1e9:.2f} GB"


def levels_table(found: Sequence[Result]) -> Iterator[str]:
    """Of each, ms at the recall levels, and how many times that is of ours."""
    ours = [one for one in found if one.name.startswith("ctxkit_engine native")]
    best = {level: least(one.cheapest(level) for one in ours) for level in LEVELS}
    yield f"{'ms at recall of':34}" + "".join(f"{level:>16}" for level in LEVELS)
    for one in found:
        cells = [cell(one.cheapest(level), best[level]) for level in LEVELS]
        yield f"{one.name:34}" + "".join(f"{text:>16}" for text in cells)


def least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def cell(ms: float | None, ours: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:.2f} ({ms / ours:.1f}x)" if ours else f"{ms:.2f}"


def by_recall(found: Sequence[Result]) -> Iterator[str]:
    """Every setting of the PLAID family, and our fastest of its recall or more."""
    ours = [one for one in found if one.name.startswith("ctxkit_engine native")]
    yield "at the recall of each setting: theirs, ours, times"
    for one in found:
        if not one.name.startswith(("colbert", "fast_plaid", "xtr_warp")):
            continue
        for setting, ms, share in one.rows:
            mine = least(engine.cheapest(share) for engine in ours)
            yield f"    {one.name} {setting}: {share:.3f}, {ms:.2f} ms, {cell(mine, None)} ms" + (
                f", {ms / mine:.0f}x" if mine else ""
            )


# --- the command ------------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="*", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for the encoder's states of the collections")
    parser.add_argument("--synthetic-tokens", type=int)
    parser.add_argument("--tokens", type=int, help="so many of the collections' tokens, chosen at random; else all")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--methods", nargs="*", help="only these of the peers' methods")
    parser.add_argument("--settings", choices=("quick", "full"), default="quick")
    parser.add_argument("--minutes", type=float, default=45, help="one method may take so long")
    parser.add_argument("--work", type=Path, default=Path(user_cache_dir("ctxkit")) / "retrieval_peers")
    parser.add_argument("--venvs", type=Path, default=Path(user_cache_dir("ctxkit")) / "peers" / "retrieval")
    parser.add_argument("--with-cuda-wheels", action="store_true", help="install the peers that pin a CUDA torch")
    arguments = parser.parse_args()
    if not arguments.synthetic_tokens and not (arguments.collections and arguments.cache):
        parser.error("give collections and --cache, or --synthetic-tokens")
    return arguments


def main() -> None:
    arguments = parse()
    given = vectors(arguments)
    print(described(given), flush=True)
    for peer in map(PEERS.__getitem__, arguments.peers):
        python = interpreter(peer, arguments)
        for method in peer.methods if python else ():
            if not arguments.methods or method in arguments.methods:
                measure(peer, method, python, given, arguments)
    found = results(given)
    for table in (settings_table(found), levels_table(found), by_recall(found)):
        print("\n" + "\n".join(table), flush=True)


if __name__ == "__main__":
    main()
