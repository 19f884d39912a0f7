"""Streams without end: flat bytes and step time, logits that do not drift, facts that are still known turns later.

    python benchmarks/attention/stream.py endless [--model tiny] [--tokens 65536] [--policy "StreamingLLM(4, 1020)"]
    python benchmarks/attention/stream.py drift [--model tiny] [--tokens 100000] [--policy "StreamingLLM(4, 252)"]
    python benchmarks/attention/stream.py turns [--turns 12] [--stories 2] [--flood 3] [--policies ...]

endless: a novel, over and over, in chunks of 512; after 4k, 16k, 64k, ... tokens the bytes of keys and values and the
median time of single steps. Flat: the last mark within a tenth of the first. `--tokens 1000000` on a real model is for
a night.

drift: the logits after so many streamed tokens against a fresh context that read the sinks and only as many last tokens
as those logits can depend on, (layers + 1) windows. Relative error, Euclidean; bar 0.5 %. With the tiny model also
against dense attention in float64 over the same tokens, which shares no code with pages and views.

turns: people's codes are told, changed, and drowned in tool output; then a part of them is asked for. Log-probability
per answer token, by how many tokens ago the code was told last, each policy on the same text; and how much more likely
the last code is than the one before it was changed.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from subject import (
    TINY,
    Clock,
    ids_of,
    log_probability,
    median_ms,
    model_of,
    parser_of,
    policy_of,
    repeated,
    row_of,
    setting,
    text_of,
    write_json,
)
from torch import Tensor

from ctxkit.models.local import LocalModel, adapter
from ctxkit.models.local.adapter import AttentionCall
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies.base import Policy
from ctxkit_kernels.attention import shift_turns, turned

CHUNK = 512
FLAT, DRIFT = 1.1, 0.005


def main() -> None:
    arguments = parse()
    model = model_of(arguments.model, dtype=arguments.dtype)
    print(f"{arguments.what}: {setting(model)}", flush=True)
    write_json(arguments.json, {"endless": endless, "drift": drift, "turns": turns}[arguments.what](model, arguments))


def feed(model: LocalModel, context: KVContext, ids: Sequence[int]) -> Tensor:
    """Logits after the last of the ids."""
    for start in range(0, len(ids) - CHUNK, CHUNK):
        model.engine.forward(ids[start : start + CHUNK], context)
    done = max(0, math.ceil(len(ids) / CHUNK) - 1) * CHUNK
    return model.engine.forward(ids[done:], context)[-1]


# --- endless ----------------------------------------------------------------------------------------------------------


def endless(model: LocalModel, arguments: Any) -> list[dict[str, float]]:
    ids = ids_of(model, text_of(arguments.text))
    context = model.engine.new_context(policy_of(arguments.policy))
    marks = [mark for mark in (4096 * 4**n for n in range(20)) if mark < arguments.tokens] + [arguments.tokens]
    print("| tokens | KV bytes | pool bytes | step ms, wall | step ms, CPU | stream tokens per CPU s |", flush=True)
    print("|---|---|---|---|---|---|")
    rows = []
    for mark in marks:
        clock, before = Clock(), len(context)
        with clock.running():
            feed(model, context, repeated(ids, mark)[before:])
        steps = [stepped(model, context, ids[len(context) % len(ids)]) for _ in range(arguments.steps)]
        row = {
            "tokens": mark,
            "kv_bytes": context.used_bytes,
            "pool_bytes": model.engine.pool.allocated_bytes,
            "step_ms": median_ms(steps),
            "step_cpu_ms": median_ms(steps, "cpu"),
            "tokens_per_cpu_second": (mark - before) / clock.cpu,
        }
        rows.append(row)
        print(
            "|",
            " | ".join(f"{value:,.1f}" if value < 1e3 else f"{value:,.0f}" for value in row.values()),
            "|",
            flush=True,
        )
    for name in ("kv_bytes", "step_cpu_ms"):
        print(f"{name}, last to first: {rows[-1][name] / rows[0][name]:.3f}, bar {FLAT}")
    return rows


def stepped(model: LocalModel, context: KVContext, token: int) -> Clock:
    clock = Clock()
    with clock.running():
        model.engine.step([context], [token])
    return clock


# --- drift ------------------------------------------------------------------------------------------------------------


def drift(model: LocalModel, arguments: Any) -> dict[str, float]:
    policy = policy_of(arguments.policy)
    reach = policy.reach(0)
    if reach is None:
        raise SystemExit(f"{policy!r} sees everything: no fresh context is shorter than the stream")
    ids = repeated(ids_of(model, text_of(arguments.text)), arguments.tokens)
    layers = len(model.engine.shape.layers)
    recent = min((layers + 1) * reach.recent, len(ids) - reach.sinks)
    short = [*ids[: reach.sinks], *ids[-recent:]]
    context = model.engine.new_context(policy)
    streamed = feed(model, context, ids)
    model.engine.close(context)
    fresh = feed(model, model.engine.new_context(policy), short)
    found = {"tokens": len(ids), "fresh_tokens": len(short), "streamed_to_fresh": relative(streamed, fresh)}
    if arguments.model == TINY:
        dense = dense_logits(model, short, reach.sinks, reach.recent)
        found |= {"streamed_to_dense": relative(streamed, dense), "fresh_to_dense": relative(fresh, dense)}
    for name, value in found.items():
        bar = f" (bar {DRIFT:g}: {'met' if value <= DRIFT else 'MISSED'})" if "_to_" in name else ""
        print(f"{name}: {value:,.3g}{bar}" if "_to_" in name else f"{name}: {value:,}")
    return found


def relative(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm())


def dense_logits(model: LocalModel, ids: Sequence[int], sinks: int, recent: int) -> Tensor:
    """The same model in float64, with attention that knows only the definition of sinks and window."""
    positions = torch.arange(len(ids))
    positions[sinks:] += sinks + recent  # so that every query is far enough away to hold the sinks at the cache's size
    doing = DenseSinks(positions, sinks, recent, model)
    weights = model.model.double()
    try:
        with torch.inference_mode():
            return adapter.run(weights, torch.tensor([ids]), positions[None], doing, keep=1)[0, -1]
    finally:
        model.model.float()


class DenseSinks:
    """A `Pass`: sinks are seen as from position sinks + recent - 1 at the farthest, the last `recent` as they stand."""

    def __init__(self, positions: Tensor, sinks: int, recent: int, model: LocalModel) -> None:
        self.positions = positions
        self.sinks = sinks
        self.recent = recent
        self.shape = model.engine.shape

    def attend(self, call: AttentionCall) -> Tensor:
        frequencies = self.shape.layers[call.layer].frequencies
        if frequencies is None:
            raise SystemExit("this model's rotation is not known")
        groups = call.query.shape[1] // call.key.shape[1]
        keys, values = (part.repeat_interleave(groups, dim=1)[0] for part in (call.key, call.value))
        query = call.query[0]
        turns = shift_turns(-(self.positions - (self.sinks + self.recent - 1)).clamp_min(0), frequencies)
        held = turned(query, turns.cos.double(), turns.sin.double())
        logits = torch.cat([held @ keys[:, : self.sinks].mT, query @ keys[:, self.sinks :].mT], dim=-1) * call.scale
        distance = self.positions[:, None] - self.positions
        seen = (distance >= 0) & ((distance < self.recent) | (torch.arange(len(self.positions)) < self.sinks))
        out = logits.masked_fill(~seen, -torch.inf).softmax(-1) @ values
        return out.transpose(0, 1)[None]


# --- turns ------------------------------------------------------------------------------------------------------------

PEOPLE = "Anna Boris Clara David Edith Felix Greta Henry Irene Jakob Karla Louis Maria Niels Olive Peter".split()


@dataclass(frozen=True)
class Asked:
    """One question at one moment. before: the code before it was changed, or None."""

    turn: int
    person: str
    code: str
    before: str | None
    ago: int


@dataclass(frozen=True)
class Known:
    """nats: log-probability per token of the last code. over: how much more than the one before; None without one."""

    policy: str
    story: int
    ago: int
    nats: float
    over: float | None
    kv_bytes: int


def turns(model: LocalModel, arguments: Any) -> list[dict[str, Any]]:
    found: list[Known] = []
    for story in range(arguments.stories):
        script = list(written(model, random.Random(f"{arguments.seed} {story}"), arguments))
        print(f"story {story}: {sum(len(ids) for ids, _ in script):,} tokens in {len(script)} turns", flush=True)
        for name in dict.fromkeys(("Full", *arguments.policies)):
            found += played(model, script, name, policy_of(name), story)
    report_turns(found)
    return [row_of(one) for one in found]


def written(model: LocalModel, rng: random.Random, arguments: Any) -> Iterator[tuple[list[int], list[Asked]]]:
    """The turns' token ids, and what is asked after each."""
    codes: dict[str, tuple[str, str | None, int]] = {}
    done = 0
    for turn in range(arguments.turns):
        person = rng.choice(PEOPLE[: max(3, arguments.turns // 2)])
        before = codes[person][0] if person in codes else None
        code = str(rng.randrange(10_000, 100_000))
        told = f"The new code of {person} is {code}.\n" if before else f"The code of {person} is {code}.\n"
        told_ids = ids_of(model, told)
        codes[person] = (code, before, done)
        flood = "".join(json.dumps(output(rng)) + "\n" for _ in range(rng.randrange(1, 2 * arguments.flood + 1)))
        ids = [*told_ids, *ids_of(model, flood)]
        done += len(ids)
        asked = rng.sample(sorted(codes), min(arguments.asked, len(codes)))
        yield ids, [Asked(turn, one, *codes[one][:2], done - codes[one][2]) for one in asked]


def output(rng: random.Random) -> dict[str, Any]:
    """A tool's row."""
    names = ("cpu", "memory", "disk", "errors", "latency_ms")
    return {"tool": "status", "host": f"node-{rng.randrange(100):02}", **{name: rng.randrange(1000) for name in names}}


def played(
    model: LocalModel, script: Sequence[tuple[list[int], list[Asked]]], name: str, policy: Policy, story: int
) -> Iterator[Known]:
    context = model.engine.new_context(policy)
    for ids, asked in script:
        feed(model, context, ids)
        model.engine.settle(context, "turn")
        for one in asked:
            nats = recalled(model, context, one.person, one.code)
            over = nats - recalled(model, context, one.person, one.before) if one.before else None
            yield Known(name, story, one.ago, nats, over, context.used_bytes)
    model.engine.close(context)


def recalled(model: LocalModel, context: KVContext, person: str, code: str) -> float:
    """Nats per token of the code, asked for in a fork of the context."""
    fork = context.fork()
    question, answer = ids_of(model, f"The code of {person} is"), ids_of(model, f" {code}")
    logits = [model.engine.forward(question, fork)[-1]]
    logits += [model.engine.step([fork], [token])[0] for token in answer[:-1]]
    model.engine.close(fork)
    return statistics.mean(log_probability(row, token) for row, token in zip(logits, answer, strict=True))


def report_turns(found: Sequence[Known]) -> None:
    edges = [0, 256, 512, 1024, 2048, 4096, 1 << 40]
    parts = [
        (low, high) for low, high in zip(edges, edges[1:], strict=False) if any(low <= one.ago < high for one in found)
    ]
    heads = [f"{low:,} tokens ago or more" if low else f"less than {high:,}" for low, high in parts]
    print("| nats per token |", " | ".join(heads), "| all | last over changed | KV MB at the end |")
    print("|" + "---|" * (len(parts) + 4))
    for name in dict.fromkeys(one.policy for one in found):
        mine = [one for one in found if one.policy == name]
        cells = [mean(one.nats for one in mine if low <= one.ago < high) for low, high in parts]
        over = mean(one.over for one in mine if one.over is not None)
        print(
            f"| {name} |",
            " | ".join([*cells, mean(one.nats for one in mine), over]),
            f"| {mine[-1].kv_bytes / 1e6:.1f} |",
        )


def mean(values: Iterator[float]) -> str:
    found = list(values)
    return f"{statistics.mean(found):.2f} (n {len(found)})" if found else "-"


def parse() -> Any:
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=("endless", "drift", "turns"))
    parser.add_argument("--text", default="emma", help="a novel or a file")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--policy", default="StreamingLLM(4, 252)")
    parser.add_argument("--steps", type=int, default=16, help="endless: single steps timed at each mark")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--stories", type=int, default=2)
    parser.add_argument("--asked", type=int, default=2, help="questions after each turn")
    parser.add_argument("--flood", type=int, default=3, help="rows of tool output per turn, on average")
    parser.add_argument(
        "--policies",
        nargs="+",
        metavar="EXPRESSION",
        default=["StreamingLLM(4, 252)", "StreamingLLM(0, 256)", "RandomSelection(4, 64, 188)"],
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
