"""Many generated and sliced texts through `compress`: never over the budget, and how much of it is left unused.

    python benchmarks/fuzz_compress.py --cases 100000 --jobs 2
    python benchmarks/fuzz_compress.py --cases 20000 --ranks o200k_base.tiktoken --model FOLDER    # real counters, too
    python benchmarks/fuzz_compress.py --first 4711 --cases 1                                      # one case again

A case is a seed: one to three texts (tool outputs, prose of the collections at CTXKIT_DATA, odd Unicode), a budget, a
compressor and a counter. Exits 1 where a budget is exceeded. Unused: share of the budget, over the cases with texts
larger than it and room for 50 tokens or more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from fuzz_fit import Sources, openai_counter, template_counter
from fuzzing import run_chunks
from tool_outputs import KINDS, document
from tqdm.auto import tqdm

from ctxkit.compression import ContentCompressor, ExtractiveCompressor, StructuralCompressor
from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.prepared import compress
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.protocols import Counter
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import EstimatingCounter

CHUNK = 200  # cases of one task of a worker
COMPRESSORS: tuple[TextCompressor, ...] = (
    RandomWords(),
    Head(),
    RareWords(),
    NoStopWords(),
    StructuralCompressor(),
    ExtractiveCompressor(),
    ContentCompressor(),
)
ODD = [
    "a",
    " ",
    "\n",
    "\r\n",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "🇩🇪",
    "क्षि ",
    "ไทย",
    "漢字。",
    "שלום ",
    "\u202e",
    "\ud800",
    "{",
    '"',
    "```\n",
]
ODD += ["word ", "INV-20931 ", "17 ms. ", "https://a.org/b?c=d ", "[1,2]", "| a | b |\n", "ERROR x\n", "\\", "\ufeff"]


@dataclass(frozen=True)
class Result:
    """unused: share of the budget; None where nothing had to go, or the budget is tiny."""

    seed: int
    method: str
    over: int
    unused: float | None


def case(seed: int, sources: Sources) -> Result:
    rng = random.Random(f"compress {seed}")
    texts = [text_of(rng) for _ in range(rng.choices((1, 2, 3), (8, 1, 1))[0])]
    compressor = COMPRESSORS[seed % len(COMPRESSORS)]
    counter = TotalCounter(counter_of(rng, sources))
    total = sum(counter.count_batch(texts))
    tokens = rng.choice((rng.randint(0, 20), int(total * rng.random()), int(total * rng.choice((0.2, 0.33, 0.5, 0.7)))))
    question = rng.choice(("", "", "How long does the request wait?"))
    made = compress(texts, compressor, tokens=tokens, question=question, counter=counter)
    taken = sum(counter.count_batch(made.texts))
    unused = (tokens - taken) / tokens if total > tokens >= 50 else None
    return Result(seed, compressor.name, max(taken - tokens, 0), unused)


def text_of(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        text = document(rng.choice(list(KINDS)), rng.randrange(500)).text
        return text if rng.random() < 0.3 else text[: rng.randint(50, 3_000)]
    if draw < 0.7:
        prose = collections()
        start = rng.randrange(max(len(prose) - 3_000, 1))
        return prose[start : start + int(2 ** rng.uniform(2, 11.5))]
    return "".join(rng.choice(ODD) for _ in range(rng.randint(0, 80)))


@lru_cache
def collections() -> str:
    """Passages of the test collections; without them, generated prose."""
    folder = Path(os.environ.get("CTXKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    files = [folder / name / "corpus.jsonl" for name in ("xquad-en", "cranfield")]
    found = [json.loads(line)["text"] for file in files if file.exists() for line in file.open(encoding="utf-8")]
    return "\n\n".join(found) or "\n\n".join(document("report", seed).text for seed in range(100))


def counter_of(rng: random.Random, sources: Sources) -> Counter:
    draw = rng.random()
    if sources.ranks and draw < 0.4:
        return openai_counter(sources.ranks)
    if sources.model and draw < 0.6:
        return template_counter(sources.model)
    return EstimatingCounter() if draw < 0.85 else WhitespaceCounter()


def run(seeds: range, sources: Sources) -> list[Result]:
    return [case(seed, sources) for seed in seeds]


def run_all(arguments: argparse.Namespace, sources: Sources) -> Iterator[list[Result]]:
    seeds = range(arguments.first, arguments.first + arguments.cases)
    return run_chunks(partial(run, sources=sources), seeds, CHUNK, arguments.jobs)


def table(results: list[Result]) -> str:
    by_method: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_method[result.method].append(result)
    lines = [
        "| compressor | cases | over the budget | cut, 50 tokens or more | unused, median | 95th |",
        "|" + "---|" * 6,
    ]
    for method, found in by_method.items():
        unused = sorted(one.unused for one in found if one.unused is not None) or [0.0]
        over = sum(one.over > 0 for one in found)
        median, high = statistics.median(unused), unused[int(0.95 * (len(unused) - 1))]
        lines.append(f"| {method} | {len(found):,} | {over} | {len(unused):,} | {median:.2%} | {high:.1%} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--ranks", type=Path, help="o200k rank file of tiktoken")
    parser.add_argument("--model", type=Path, help="folder with a tokenizer and its chat template")
    arguments = parser.parse_args()
    results: list[Result] = []
    with tqdm(total=arguments.cases, unit="case", disable=not sys.stderr.isatty()) as bar:
        for found in run_all(arguments, Sources(arguments.ranks, arguments.model)):
            results += found
            bar.update(len(found))
    print(table(results))
    broken = [one.seed for one in results if one.over]
    if broken:
        print(f"over the budget: seeds {broken[:10]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
