"""Speculative decoding: tokens per pass, and how long an answer takes against plain decoding.

    python benchmarks/attention/speculation.py [--model smollm2-135m-instruct] [--dtype float32] [--tokens 96]
        [--draft MODEL_FOLDER]

Three kinds of answers, greedy: `copy`, a file with one
change, where the answer stands in the prompt (its beginning is given, so that a small model does copy); `quote`, a
summary in the text's own sentences; `free`, a story. CPU seconds of the answer's passes, the prompt's left out; share
is that of plain decoding. held: guesses that held, of all. same: tokens that are those of plain decoding; a pass over
several tokens rounds otherwise than passes over one, which a near tie can show in bfloat16.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from ctxkit.models import LocalModel
from ctxkit.models.local import Draft, NGram
from ctxkit.models.local.speculation import Speculation
from ctxkit.models.requests import Request, as_request
from ctxkit.protocols import Sampling

CODE = """def read_rows(path, limit=None):
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file):
            if limit is not None and number >= limit:
                break
            fields = line.rstrip("\\n").split("\\t")
            rows.append({"id": int(fields[0]), "name": fields[1], "score": float(fields[2])})
    return rows


def best_rows(rows, count):
    return sorted(rows, key=lambda row: row["score"], reverse=True)[:count]
"""
RIVERS = (
    "The Nile flows through eleven countries before it reaches the Mediterranean Sea. Its two main branches are the "
    "White Nile and the Blue Nile, which meet in Khartoum. The Blue Nile brings most of the water and of the silt. "
    "Until the High Dam at Aswan was built, the river flooded its valley every summer. The flood left dark mud on the "
    "fields, and the harvest of a whole year depended on how high the water had come."
)


@dataclass(frozen=True)
class Task:
    """A prompt, and the beginning of the answer."""

    name: str
    prompt: str
    begun: str = ""


TASKS = [
    Task("copy", f"Rename `count` to `most` in this file, and give the whole file:\n\n{CODE}", CODE[:60]),
    Task("quote", f"Quote the three most important sentences word by word:\n\n{RIVERS}", '1. "'),
    Task("free", "Write a story about a lighthouse keeper and a storm."),
]


@dataclass(frozen=True)
class Run:
    ids: tuple[int, ...]
    passes: int
    fed: int
    seconds: float


def main() -> None:
    arguments = parse()
    model = LocalModel.load(arguments.model, dtype=arguments.dtype)
    ways: list[tuple[str, Speculation]] = [
        (f"n-gram, token_cost {cost}", NGram(token_cost=cost)) for cost in (0.1, 0.2, 0.4)
    ]
    if arguments.draft:
        ways.append(("draft model", Draft(LocalModel.load(arguments.draft, dtype=arguments.dtype))))
    print("| answer | how | tokens per pass | held | CPU s per token | share of plain | same |\n|" + "---|" * 7)
    for task in TASKS:
        plain = answered(model, task, arguments.tokens, None)
        show(task.name, "plain", plain, plain)
        for name, speculation in ways:
            run = answered(model, task, arguments.tokens, speculation)
            show(task.name, name, run, plain)


def answered(model: LocalModel, task: Task, tokens: int, speculation: Speculation | None) -> Run:
    """The answer, and what its passes after the first token cost."""
    model.speculation = speculation
    begun = tuple(model.counter.tokenizer.encode(task.begun, add_special_tokens=False).ids)
    question = as_request(task.prompt)
    asked = Request(question.messages, ids=(*model.prompt_ids(question), *begun))
    fed: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    stream = model.stream(asked, Sampling(max_tokens=tokens, logprobs=0))
    next(stream)
    passes, fed_before, started = len(fed), sum(fed), time.process_time()
    for _ in stream:
        pass
    seconds = time.process_time() - started
    hook.remove()
    ids = tuple(one.id for one in stream.reply.logprobs if one.id is not None)
    return Run(ids, len(fed) - passes, sum(fed) - fed_before, seconds)


def show(task: str, how: str, run: Run, plain: Run) -> None:
    tokens = len(run.ids) - 1
    drafted = run.fed - run.passes
    held = f"{(tokens - run.passes) / drafted:.2f}" if drafted else "-"
    share = run.seconds / plain.seconds
    same = next((i for i, pair in enumerate(zip(run.ids, plain.ids, strict=False)) if pair[0] != pair[1]), len(run.ids))
    numbers = (
        f"{tokens / run.passes:.2f} | {held} | {run.seconds / tokens:.3f} | {share:.2f} | {same} of {len(run.ids)}"
    )
    print(f"| {task} | {how} | {numbers} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--draft", default="", help="a smaller model over the same vocabulary")
    return parser.parse_args()


if __name__ == "__main__":
    main()
