"""Tasks that need something from far back: what each policy still finds, by the log-probability of the right answer.

    python benchmarks/attention/ruler.py [--tasks single multikey ...] [--lengths 1024 2048] [--cases 2] [--aware]
        [--policies "StreamingLLM(4, 508)" ...] [--peers SnapKVPress ...] [--keep 512] [--check]

The context is read as a prompt, under the policy; then the question; then the answer token by token, as in decoding.
With --aware the question is part of the prompt, so that what the policy drops can depend on it. Reported per policy:
nats per answer token, less those of full attention on the same cases (its own row has them as they are); how often
greedy decoding gives exactly the answer; KL divergence of full attention's first answer token from the policy's; and
the bytes of keys and values that are left. --peers: presses of kvpress 0.5.5 in an environment of its own, at a ratio
that keeps --keep tokens of each context; their differences are to full attention in that environment. --check: only
tests the generators.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from kvpress_process import Kvpress
from platformdirs import user_cache_dir
from subject import ids_of, log_probability, model_of, parser_of, policy_of, row_of, setting, write_json
from tasks import TASKS, Fits, Task, check
from tqdm.auto import tqdm

from ctxkit.models.local import LocalModel
from ctxkit.models.prepare import resolve

FULL = "Full"
POLICIES = (
    "StreamingLLM(4, 508)",
    "StreamingLLM(0, 512)",
    "RandomSelection(4, 128, 380)",
    "RandomRetention(4, 128, 380)",
)
PRESSES = ("SnapKVPress", "StreamingLLMPress", "ExpectedAttentionPress", "KnormPress", "RandomPress")


@dataclass(frozen=True)
class Case:
    """A task in token ids. length: what the context was to have at most."""

    name: str
    length: int
    context: list[int]
    question: list[int]
    answer: list[int]
    stands: float


@dataclass(frozen=True)
class Score:
    """nats: log-probability per answer token. kl: of the first answer token, from full attention's; nats."""

    policy: str
    task: str
    length: int
    case: int
    nats: float
    exact: bool
    kl: float
    kv_bytes: int
    stands: float


def main() -> None:
    arguments = parse()
    if arguments.check:
        print(f"{check(arguments.tasks)} tasks made twice and solved by rule")
        return
    model = model_of(arguments.model, dtype=arguments.dtype)
    print(setting(model), flush=True)
    cases = list(made(model, arguments))
    scores: list[Score] = []
    with Kvpress(arguments.venv, model_folder(arguments), model.model.dtype, bool(arguments.peers)) as peers:
        for number, case in enumerate(tqdm(cases, disable=None)):
            scores += ours(model, case, number, arguments)
            scores += theirs(peers, case, number, arguments)
    write_json(arguments.json, [row_of(score) for score in scores])
    report(scores, arguments)


def made(model: LocalModel, arguments: Any) -> Iterator[Case]:
    for length in arguments.lengths:
        for name in arguments.tasks:
            for number in range(arguments.cases):
                rng = random.Random(f"{arguments.seed} {name} {length} {number}")
                yield case_of(model, TASKS[name](rng, within(model, length)), name, length)


def within(model: LocalModel, length: int) -> Fits:
    return lambda text: len(ids_of(model, text)) <= length


def case_of(model: LocalModel, task: Task, name: str, length: int) -> Case:
    context, question, answer = (ids_of(model, text) for text in (task.context, task.question, task.answer))
    return Case(name, length, context, question, answer, task.stands)


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(model: LocalModel, case: Case, number: int, arguments: Any) -> Iterator[Score]:
    first: torch.Tensor | None = None
    for name in dict.fromkeys((FULL, *arguments.policies)):
        rows, kv_bytes = answered(model, case, name, aware=arguments.aware)
        first = rows[0] if first is None else first
        nats = statistics.mean(log_probability(row, token) for row, token in zip(rows, case.answer, strict=True))
        exact = all(int(row.argmax()) == token for row, token in zip(rows, case.answer, strict=True))
        yield Score(
            name, case.name, case.length, number, nats, exact, divergence(first, rows[0]), kv_bytes, case.stands
        )


def answered(model: LocalModel, case: Case, policy: str, *, aware: bool) -> tuple[list[torch.Tensor], int]:
    """The logits before each token of the answer, float32 [vocabulary] each, and the bytes that are left."""
    engine = model.engine
    context = engine.new_context(policy_of(policy))
    try:
        if aware:
            logits = engine.prefill([*case.context, *case.question], context)
        else:
            engine.prefill(case.context, context)
            logits = engine.forward(case.question, context)[-1]
        rows = [logits]
        rows += [engine.step([context], [token])[0] for token in case.answer[:-1]]
        return [row for row in rows if row is not None], context.used_bytes
    finally:
        engine.close(context)


def divergence(full: torch.Tensor, other: torch.Tensor) -> float:
    return float(
        torch.nn.functional.kl_div(other.log_softmax(-1), full.log_softmax(-1), log_target=True, reduction="sum")
    )


# --- theirs -----------------------------------------------------------------------------------------------------------


def theirs(peers: Kvpress, case: Case, number: int, arguments: Any) -> Iterator[Score]:
    for press in ("", *arguments.peers) if arguments.peers else ():
        ratio = max(0.0, 1 - arguments.keep / len(case.context))
        asked = {"context": case.context, "question": case.question, "answer": case.answer, "aware": arguments.aware}
        found = peers.ask({"case": number, "press": press, "ratio": ratio, **asked})
        if "error" in found:
            print(f"{press}: {found['error']}", flush=True)
            continue
        nats = statistics.mean(found["log_probabilities"])
        name = f"kvpress {press or FULL}"
        seen = (nats, found["exact"], found["kl"], found["kv_bytes"])
        yield Score(name, case.name, case.length, number, *seen, case.stands)


def model_folder(arguments: Any) -> Path:
    return resolve(arguments.model, None) if arguments.peers else Path()


# --- report -----------------------------------------------------------------------------------------------------------


def report(scores: Sequence[Score], arguments: Any) -> None:
    """A table for each length: policies by tasks."""
    names = list(dict.fromkeys(score.policy for score in scores))
    for length in arguments.lengths:
        here = [score for score in scores if score.length == length]
        print(
            f"\n{length:,} tokens, {arguments.cases} cases each: nats per answer token less those of full (share exact)"
        )
        print("| policy |", " | ".join(arguments.tasks), "| all | exact | KL | KV MB |")
        print("|" + "---|" * (len(arguments.tasks) + 5))
        for name in names:
            print(f"| {name} |", row(here, name, arguments.tasks))


def row(scores: Sequence[Score], name: str, tasks: Sequence[str]) -> str:
    base = {
        score.case: score
        for score in scores
        if score.policy == (f"kvpress {FULL}" if name.startswith("kvpress") else FULL)
    }
    mine = [score for score in scores if score.policy == name]
    cells = []
    for task in tasks:
        some = [score for score in mine if score.task == task]
        value = mean(score.nats - (0 if score.policy.endswith(FULL) else base[score.case].nats) for score in some)
        cells.append(f"{value:.2f} ({mean(score.exact for score in some):.2f})")
    value = mean(score.nats - (0 if name.endswith(FULL) else base[score.case].nats) for score in mine)
    kl, size = mean(score.kl for score in mine), mean(score.kv_bytes for score in mine)
    return " | ".join(
        [*cells, f"{value:.3f}", f"{mean(score.exact for score in mine):.3f}", f"{kl:.3f}", f"{size / 1e6:.1f} |"]
    )


def mean(values: Iterator[float]) -> float:
    found = list(values)
    return statistics.mean(map(float, found)) if found else float("nan")


def parse() -> Any:
    parser = parser_of(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--lengths", nargs="+", type=int, default=[1024, 2048])
    parser.add_argument("--cases", type=int, default=2)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), metavar="EXPRESSION")
    parser.add_argument("--aware", action="store_true", help="the question is part of the prompt")
    parser.add_argument("--keep", type=int, default=512, help="tokens that a press keeps of each context")
    parser.add_argument("--peers", nargs="*", metavar="PRESS", help=f"of kvpress; without names: {PRESSES}")
    parser.add_argument("--venv", type=Path, default=Path(user_cache_dir("ctxkit")) / "peers" / "kvpress")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    arguments.peers = list(PRESSES) if arguments.peers == [] else arguments.peers or []
    return arguments


if __name__ == "__main__":
    main()
