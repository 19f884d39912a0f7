"""A tool agent of fifty steps in a small window against full replay: tokens at a prompt cache's prices, facts kept.

    python benchmarks/agents/tool_agent.py --results 341 1024

An agent reads fifty files (logs, JSON, code; 500 to 4,000 tokens each), one a step, and is then asked for a fact from
each of the first ten. Where its prompt does not show one it calls `expand` for the whole file, or `find_in_results` for
the line that names it (`--by`). Each file holds one fact. `--careful` is an agent that needs the fact of every file as
soon as it has read it, and gets it at once where it was left out.

Full replay is the same conversation without these calls, which it does not need: every step sends all messages so far.
It keeps every prompt as the beginning of the next one, which is the best a cache can get, and it needs a window
of all results. Both pay for the prompts of all their steps; what they write is the same but for these calls.

Columns: prompt tokens in all; the share that a cache holds; tokens at the prices of a cache (read, write), relative to
an input token without one; and by how much they are fewer than those of full replay. `shown` and `reached`: facts of
all files in the last prompt, and behind a handle that it shows. `asked`: the ten facts that the agent found.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import platformdirs

from ctxkit.context import Budget
from ctxkit.context.expand import lines_of, parse_ref
from ctxkit.models.requests import Request
from ctxkit.protocols import Counter
from ctxkit.session import CachePrices, Session
from ctxkit.testing import TINY_TEMPLATE, ScriptedModel
from ctxkit.testing.scripted import Line
from ctxkit.tokens import EstimatingCounter, TemplateCounter
from ctxkit_agents.agent import Agent, AgentAnswer
from ctxkit_agents.result_search import FIND_NAME

PRICES = {"0.1/1.25": CachePrices(), "0.1/1.0": CachePrices(0.1, 1.0), "no cache": CachePrices(1.0, 1.0)}
ASKED = 10
REF = re.compile(r'expand\(\\?"([^"\\]+)')
TASK = "Find out why payments are slow since Monday, and what was changed. Read every file of the incident."
SERVICES = ("payments", "search", "auth", "mail", "billing")
VERBS = ("load", "store", "check", "merge", "retry", "flush")


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """clue: what a reader knows of the fact's line without the fact."""

    path: str
    text: str
    fact: str
    clue: str


def log_line(rng: random.Random, n: int) -> str:
    service = rng.choice(SERVICES)
    return (
        f"2026-03-02T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z INFO {service}-{rng.randrange(9)} "
        f"GET /v1/{service}/{rng.randrange(10**6):06} 200 in {rng.randrange(3, 900)} ms"
    )


def json_row(rng: random.Random, n: int) -> str:
    row = {"id": f"ord-{rng.randrange(10**8):08}", "service": rng.choice(SERVICES), "ms": rng.randrange(900), "row": n}
    return json.dumps(row)


def code_block(rng: random.Random, n: int) -> str:
    verb, service = rng.choice(VERBS), rng.choice(SERVICES)
    return (
        f"def {verb}_{service}_{n}(request, limit={rng.randrange(90)}):\n"
        f'    """{verb.title()}s one request of {service}."""\n'
        f"    connection = pool.take(timeout={rng.randrange(1, 30)})\n"
        f"    return connection.run(request.body[:limit])\n"
    )


def with_fact(kind: str, pieces: list[str], number: int, rng: random.Random) -> tuple[str, str, str]:
    """The file's text, the fact that was put somewhere into it, and the clue to it."""
    value = f"{rng.getrandbits(40):010x}"
    place = rng.randrange(len(pieces))
    if kind == "log":
        clue, fact = f"pool {number} exhausted", f"trace {value}"
        pieces.insert(place, f"2026-03-02T12:00:00Z ERROR payments-3 {clue}, {fact}")
    elif kind == "json":
        clue, fact = f"timeout of pool {number}", f"inc-{value}"
        pieces[place] = json.dumps({"id": fact, "service": "payments", "ms": 30_000, "error": clue})
    else:
        clue, fact = f"POOL_KEY_{number}", f"'{value}'"
        pieces.insert(place, f"{clue} = {fact}\n")
    text = "[" + ",\n".join(pieces) + "]" if kind == "json" else "\n".join(pieces)
    return text, fact, clue


def files(count: int, counter: Counter, seed: int) -> list[File]:
    """Logs, JSON and code in turn; sizes are drawn evenly from 500 to 4,000 tokens."""
    rng, made = random.Random(seed), []
    kinds: dict[str, Callable[[random.Random, int], str]] = {"log": log_line, "json": json_row, "py": code_block}
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        tokens, pieces, size = rng.randrange(500, 4000), [], 0
        while size < tokens:
            pieces.append(kinds[kind](rng, len(pieces)))
            size += counter.count(pieces[-1]) + 1
        text, fact, clue = with_fact(kind, pieces, number, rng)
        made.append(File(f"incident/{rng.choice(SERVICES)}_{number:02}.{kind}", text, fact, clue))
    return made


# --- the agent --------------------------------------------------------------------------------------------------------


class Reader:
    """The script of the model. found: the facts that it could read when it needed them."""

    def __init__(self, given: Sequence[File], *, by: str, careful: bool) -> None:
        self.given = given
        self.by = by
        self.careful = careful
        self.found: set[str] = set()
        self.expands = 0
        self.hidden = 0
        self._script = self._steps()
        self._request: Request | None = None

    def __call__(self, request: Request) -> Line:
        self._request = request
        return next(self._script)

    def _steps(self) -> Iterator[Line]:
        for number, file in enumerate(self.given):
            yield [_call(f"r{number}", "read", path=file.path)]
            self.hidden += file.fact not in self._prompt
            if self.careful:
                yield from self._needs(number)
        for number in range(ASKED):
            yield from self._needs(number)
        yield "The pool was exhausted; its key was changed."

    def _needs(self, number: int) -> Iterator[Line]:
        """Finds a fact, in the prompt or behind the handle that stands in the place of its file."""
        fact = self.given[number].fact
        if fact not in self._prompt and self.by == "find":
            self.expands += 1
            yield [_call(f"e{self.expands}", FIND_NAME, text=self.given[number].clue)]
        elif fact not in self._prompt:
            shown = next((m.content for m in self._messages if m.tool_call_id == f"r{number}"), "")
            refs = REF.findall(shown)
            if refs:
                self.expands += 1
                yield [_call(f"e{self.expands}", "expand", ref=parse_ref(refs[0])[0])]
        if fact in self._prompt:
            self.found.add(fact)

    @property
    def _messages(self) -> Sequence[Any]:
        return self._request.messages if self._request else ()

    @property
    def _prompt(self) -> str:
        return "\n".join(_plain(message.content) for message in self._messages)


def _plain(text: str) -> str:
    """Without the escapes of JSON, which a reader sees through."""
    return text.replace('\\"', '"')


def _call(call_id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def agent_of(given: Sequence[File], reader: Reader, counter: Counter, window: int, result_tokens: int) -> Agent:
    texts = {file.path: file.text for file in given}

    def read(path: str) -> str:
        """Reads one file of the incident."""
        return texts[path]

    return Agent(
        ScriptedModel(reader, counter=counter, window_tokens=window),
        [read],
        instructions="You are an engineer on call. You read what there is before you judge, and you cite what you say.",
        result_tokens=result_tokens,
        max_steps=4 * len(given),
    )


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    name: str
    steps: int
    prompt_tokens: int
    largest_prompt: int
    cached: float
    weighted: dict[str, float]
    ratios: dict[str, float]
    compactions: int = 0
    hidden: int = 0
    expands: int = 0
    shown: int = 0
    reached: int = 0
    asked: int = 0
    seconds: float = 0.0
    steps_reused: tuple[int, ...] = ()
    steps_prefill: tuple[int, ...] = ()


def replay(answer: AgentAnswer, schema: Any, counter: Counter) -> Row:
    """What it costs to send everything each time; without the steps that only expanded."""
    session = Session(budget=Budget(10**8), counter=counter, tools=[schema], session_id="replay", expandable=False)
    reports = []
    expanding = {use.call.id for use in answer.tool_uses if use.call.name != "read"}
    for message in answer.messages:
        ids = {call["id"] for call in message.get("tool_calls") or ()} | {message.get("tool_call_id")}
        if ids & expanding:
            continue
        if message["role"] == "assistant":
            session.plan()
            reports.append(session.cache)
        session.add(message)
    reused = [report.reused_tokens for report in reports]
    prefill = [report.prefill_tokens for report in reports]
    return row("full replay", reused, prefill, None)


def row(name: str, reused: Sequence[int], prefill: Sequence[int], base: Row | None) -> Row:
    total = sum(reused) + sum(prefill)
    weighted = {label: p.read * sum(reused) + p.write * sum(prefill) for label, p in PRICES.items()}
    ratios = {label: (base.weighted[label] if base else tokens) / tokens for label, tokens in weighted.items()}
    largest = max(map(sum, zip(reused, prefill, strict=True)))
    made = Row(name, len(reused), total, largest, sum(reused) / total, weighted, ratios)
    made.steps_reused, made.steps_prefill = tuple(reused), tuple(prefill)
    return made


def facts_at_the_end(answer: AgentAnswer, given: Sequence[File]) -> tuple[int, int]:
    """Facts that the last prompt shows, and facts behind the handles that it shows."""
    prompt = "\n".join(_plain(message.content) for message in answer.plan.messages)
    refs = {parse_ref(ref) for message in answer.plan.messages for ref in REF.findall(message.content)}
    behind = [lines_of(str(answer.messages[int(part[1:])]["content"]), span) for part, span in refs]
    shown = {file.fact for file in given if file.fact in prompt}
    reached = {file.fact for file in given if any(file.fact in _plain(text) for text in behind)}
    return len(shown), len(reached - shown)


def measured(given: Sequence[File], counter: Counter, window: int, result_tokens: int, **how: Any) -> list[Row]:
    """Full replay, and the agent. how: of the Reader."""
    reader = Reader(given, **how)
    agent, began = agent_of(given, reader, counter, window, result_tokens), time.process_time()
    answer = agent.task(TASK).run().value
    seconds = time.process_time() - began
    base = replay(answer, agent.toolbox["read"].schema, counter)
    reused, prefill = zip(*((one.reused_tokens, one.prefill_tokens) for one in answer.cache), strict=True)
    name = f"{'careful, ' if reader.careful else ''}{reader.by}, {result_tokens:,}"
    made = row(name, reused, prefill, base)
    made.compactions, made.seconds = answer.cache[-1].compactions, seconds
    made.shown, made.reached = facts_at_the_end(answer, given)
    made.hidden, made.expands = reader.hidden, reader.expands
    made.asked = sum(file.fact in reader.found for file in given[:ASKED])
    return [base, made]


def counter_of(name: str) -> Counter:
    """SmolLM2's tokenizer under a template that writes tools and calls, which its own leaves out; else an estimate."""
    folder = Path(platformdirs.user_cache_dir("ctxkit")) / "models" / name
    if not folder.is_dir():
        return EstimatingCounter()
    own = TemplateCounter.from_folder(folder)
    return TemplateCounter(own.tokenizer, TINY_TEMPLATE, name=f"{name} with tools", variables=own.variables)


def per_step(one: Row) -> str:
    pairs = zip(one.steps_reused, one.steps_prefill, strict=True)
    lines = [f"{n:>4}{r + p:>9,}{r / (r + p):>8.1%}" for n, (r, p) in enumerate(pairs, 1)]
    return "\n".join([f"{one.name}\nstep   tokens  cached", *lines])


def table(rows: Sequence[Row], count: int) -> str:
    head = f"{'':<22}{'steps':>6}{'tokens':>11}{'largest':>9}{'cached':>8}"
    lines = [head + "".join(f"{label:>12}{'ratio':>7}" for label in PRICES) + "  facts"]
    for one in rows:
        line = f"{one.name:<22}{one.steps:>6}{one.prompt_tokens:>11,}{one.largest_prompt:>9,}{one.cached:>8.1%}"
        line += "".join(f"{one.weighted[label]:>12,.0f}{one.ratios[label]:>7.2f}" for label in PRICES)
        if one.name != "full replay":
            line += f"  {one.shown} shown + {one.reached} reached of {count}, {one.asked} of {ASKED} asked;"
            line += f" {one.expands} calls for them, {one.hidden} hidden at first, {one.compactions} compactions,"
            line += f" {one.seconds:.0f} s"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--results",
        type=int,
        nargs="*",
        default=[341, 1024],
        help="result_tokens of the agents; 341 is the default of a window of 8,192",
    )
    parser.add_argument("--by", nargs="*", choices=["expand", "find"], default=["expand", "find"])
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--window", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--careful", action="store_true")
    parser.add_argument("--per-step", action="store_true", help="prompt tokens and cached share of each step")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    counter = counter_of("smollm2-135m-instruct")
    given = files(arguments.files, counter, arguments.seed)
    sizes = [counter.count(file.text) for file in given]
    print(f"{len(given)} files of {min(sizes):,} to {max(sizes):,} tokens, {sum(sizes):,} in all ({counter.name})")
    rows: list[Row] = []
    for result_tokens, by in product(arguments.results, arguments.by):
        how = {"by": by, "careful": arguments.careful}
        base, made = measured(given, counter, arguments.window, result_tokens, **how)
        rows += [made] if rows else [base, made]
    print(table(rows, len(given)))
    for one in rows if arguments.per_step else ():
        print(f"\n{per_step(one)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
