"""Many generated conversations through `fit_messages`, every contract checked. Exits 1 where one is broken.

    python benchmarks/fuzz_fit.py --cases 100000 --jobs 2
    python benchmarks/fuzz_fit.py --cases 20000 --ranks o200k_base.tiktoken --model FOLDER    # real counters, too
    python benchmarks/fuzz_fit.py --first 4711 --cases 1                                      # one case again

A case is a seed: a conversation (half of them broken: orphans, re-used ids, unanswered calls), a window from far below
the minimum to more than everything, sometimes tools and a reserve. Counted are words (`WhitespaceCounter`); with
--ranks or --model one case in ten each is counted by OpenAI's rule or by a model's own template.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import traceback
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from conversations import Conversation, chat, loop, prose, wild
from fuzzing import run_chunks
from tqdm.auto import tqdm

from ctxkit import Budget, BudgetInfeasible, Plan, fit_messages
from ctxkit.context.chat import anthropic_problems, openai_problems, starts_with_user, to_anthropic
from ctxkit.errors import PartError, PromptError
from ctxkit.protocols import Counter, Tool
from ctxkit.testing import WhitespaceCounter
from ctxkit.tokens import messages_from_dicts

CHUNK = 200  # cases of one task of a worker
SHOWN = 5  # failures printed


class Broken(Exception):
    """A contract that a plan does not keep."""


@dataclass(frozen=True)
class Sources:
    """Files of the real counters; None: not used."""

    ranks: Path | None = None
    model: Path | None = None


@dataclass(frozen=True)
class Case:
    seed: int
    messages: Conversation
    window: int
    reserve: int
    tools: tuple[Tool, ...]
    counter: Counter

    def plan(self, window: int | None = None) -> Plan:
        budget = Budget(window_tokens=window or self.window, reserve_tokens=self.reserve)
        return fit_messages(self.messages, budget=budget, counter=self.counter, tools=self.tools)


@dataclass
class Outcome:
    counts: Tally[str] = field(default_factory=Tally)
    failures: list[tuple[int, str]] = field(default_factory=list)


# --- cases ------------------------------------------------------------------------------------------------------------


def case_of(seed: int, sources: Sources) -> Case:
    rng = random.Random(f"fuzz {seed}")
    counter = counter_of(seed, sources)
    messages = conversation_of(rng)
    tools = tuple(tool(rng, n) for n in range(rng.choice((0, 0, 0, 1, 3))))
    everything = tokens_of(messages, tools, counter)
    reserve = rng.choice((0, 0, rng.randint(1, 50)))
    share = rng.choice((rng.uniform(0, 0.3), rng.uniform(0, 1.05), 1.0))
    return Case(seed, messages, reserve + max(int(everything * share), 1), reserve, tools, counter)


def conversation_of(rng: random.Random) -> Conversation:
    make = rng.choices((wild, chat, loop), (97, 2, 1))[0]
    return make(rng.randrange(10**9))


def tool(rng: random.Random, number: int) -> Tool:
    parameters = {"type": "object", "properties": {"query": {"type": "string", "description": prose(rng, 6)}}}
    return {
        "type": "function",
        "function": {"name": f"tool_{number}", "description": prose(rng, 12), "parameters": parameters},
    }


def tokens_of(messages: Conversation, tools: Sequence[Tool], counter: Counter) -> int:
    """About what everything costs; a template may refuse a broken conversation."""
    try:
        return counter.render(messages_from_dicts(messages), tools=tools).tokens
    except PromptError:
        return sum(counter.count(json.dumps(message)) for message in messages)


def counter_of(seed: int, sources: Sources) -> Counter:
    if sources.model and seed % 10 == 0:
        return template_counter(sources.model)
    if sources.ranks and seed % 10 == 1:
        return openai_counter(sources.ranks)
    return WhitespaceCounter()


@lru_cache
def template_counter(folder: Path) -> Counter:
    from ctxkit.tokens import TemplateCounter

    return TemplateCounter.from_folder(folder)


@lru_cache
def openai_counter(ranks: Path) -> Counter:
    from ctxkit.tokens import OpenAIChatCounter

    return OpenAIChatCounter.from_ranks(ranks, pattern="o200k")


# --- contracts --------------------------------------------------------------------------------------------------------


def check(case: Case) -> str:
    """Raises Broken; returns what came of the case."""
    try:
        plan = case.plan()
    except BudgetInfeasible as refusal:
        check_refusal(case, refusal)
        return "refused"
    except PromptError:
        return "refused by the template"
    except PartError as error:
        require("no message is left to send" in str(error), f"PartError: {error}")
        return "nothing left"
    check_plan(case, plan, case.window)
    require(plan.minimum <= case.window, f"minimum {plan.minimum} above the window {case.window} of a plan")
    if case.seed % 8 == 0:
        require(case.plan() == plan, "the same input gives another plan")
        check_minimum(case, plan.minimum)
    return "whole" if not plan.dropped and all(one.level == "full" for one in plan.decisions) else "fitted"


def check_refusal(case: Case, refusal: BudgetInfeasible) -> None:
    require(refusal.minimum > case.window, f"refused {case.window}, though the minimum is {refusal.minimum}")
    check_minimum(case, refusal.minimum)


def check_minimum(case: Case, minimum: int) -> None:
    """At the minimum there is a plan, one token below there is none."""
    plan = case.plan(minimum)
    require(plan.minimum == minimum, f"the plan at the minimum {minimum} names {plan.minimum} as the minimum")
    check_plan(case, plan, minimum)
    if minimum - 1 <= case.reserve:
        return
    try:
        case.plan(minimum - 1)
    except BudgetInfeasible as refusal:
        require(refusal.minimum == minimum, f"minimum {refusal.minimum} in the refusal, {minimum} before")
    else:
        raise Broken(f"a plan below the minimum {minimum}")


def check_plan(case: Case, plan: Plan, window: int) -> None:
    check_size(case, plan, window)
    check_grammar(case, plan)
    check_verbatim(plan)
    check_order(plan)
    check_nothing_lost(case, plan)


def check_size(case: Case, plan: Plan, window: int) -> None:
    again = case.counter.render(plan.messages, tools=plan.tools).tokens
    sent = case.counter.render(messages_from_dicts(plan.to_messages()), tools=plan.tools).tokens
    require(again == plan.prompt_tokens, f"{again} tokens when counted again, the plan says {plan.prompt_tokens}")
    require(sent == plan.prompt_tokens, f"to_messages() has {sent} tokens, the plan says {plan.prompt_tokens}")
    require(plan.prompt_tokens + case.reserve <= window, f"{plan.prompt_tokens} + {case.reserve} over {window}")
    charged = sum(tokens for _, tokens in plan.charges())
    require(charged == plan.prompt_tokens, f"charges() add up to {charged} of {plan.prompt_tokens}")
    require(0 <= plan.gap <= 1, f"a gap of {plan.gap}")


def check_grammar(case: Case, plan: Plan) -> None:
    """Where the history ended with the user or a result, the prompt must, too; other ends are the caller's."""
    sent = plan.to_messages()
    problems = openai_problems(sent, prefill=True)
    if case.messages[-1]["role"] not in ("user", "tool"):
        problems = tuple(problem for problem in problems if "the prompt ends with" not in problem)
    elif sent:
        last = sent[-1]["role"]
        require(last in ("user", "tool"), f"the prompt ends with role {last!r}, the history with user or tool")
    require(not problems, f"OpenAI would refuse: {problems}")
    if starts_with_user(sent):
        refused = anthropic_problems(to_anthropic(sent)[1])
        require(not refused, f"Anthropic would refuse: {refused}")


def check_verbatim(plan: Plan) -> None:
    """Pinned parts, and whatever is said to be there in full, stand in the prompt letter by letter."""
    texts: dict[str, str] = {}
    for message in plan.messages:
        for segment in message.segments:
            if segment.owner is not None:
                texts[segment.owner] = texts.get(segment.owner, "") + segment.text
    for decision in plan.decisions:
        part = decision.part
        require(not part.pinned or decision.level == "full", f"pinned {part.id} is {decision.level}")
        if decision.level == "full":
            require(texts.get(part.id, "").endswith(part.content), f"{part.id} is not verbatim")


def check_order(plan: Plan) -> None:
    place = {decision.part.id: n for n, decision in enumerate(plan.decisions)}
    owners = (segment.owner for message in plan.messages for segment in message.segments)
    places = [place[owner] for owner in owners if owner in place]
    require(places == sorted(places), "the parts are not in the order given")


def check_nothing_lost(case: Case, plan: Plan) -> None:
    """What is not in full has a handle that gives it back; every message is a part, or its repair is on record."""
    for decision in plan.decisions:
        if decision.level == "full":
            continue
        require(decision.handle is not None, f"{decision.part.id} is {decision.level} and has no handle")
        given_back = plan.expand(decision.handle)
        whole = plan.expand(decision.part.id)
        require(given_back in whole, f"the handle of {decision.part.id} gives back something else")
        require(decision.part.content in whole, f"the text of {decision.part.id} cannot be had back")
        if not decision.kept:
            require(given_back == whole, f"{decision.part.id} is dropped and its handle gives back less than all")
    contents = [decision.part.content for decision in plan.decisions]
    for index, message in enumerate(case.messages):
        kept = any((message["content"] or "") in content for content in contents)
        repaired = any(str(index) in repair for repair in plan.repairs)
        require(kept or repaired, f"message {index} is in no part, and no repair names it")


def require(condition: bool, claim: str) -> None:
    if not condition:
        raise Broken(claim)


# --- the command ------------------------------------------------------------------------------------------------------


def run(seeds: range, sources: Sources) -> Outcome:
    outcome = Outcome()
    for seed in seeds:
        try:
            outcome.counts[check(case_of(seed, sources))] += 1
        except Exception as error:  # any exception but a refusal is a finding
            outcome.counts["BROKEN"] += 1
            outcome.failures.append((seed, described(error)))
    return outcome


def described(error: Exception) -> str:
    if isinstance(error, Broken):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"


def run_all(arguments: argparse.Namespace, sources: Sources) -> Iterator[Outcome]:
    seeds = range(arguments.first, arguments.first + arguments.cases)
    return run_chunks(partial(run, sources=sources), seeds, CHUNK, arguments.jobs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--ranks", type=Path, help="o200k rank file of tiktoken")
    parser.add_argument("--model", type=Path, help="folder with a tokenizer and its chat template")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    total = Outcome()
    with tqdm(total=arguments.cases, unit="case", disable=not sys.stderr.isatty()) as bar:
        for outcome in run_all(arguments, Sources(arguments.ranks, arguments.model)):
            total.counts.update(outcome.counts)
            total.failures += outcome.failures
            bar.update(outcome.counts.total())
    print(", ".join(f"{count:,} {name}" for name, count in sorted(total.counts.items())))
    for seed, what in total.failures[:SHOWN]:
        print(f"\nseed {seed}: {what[:600]}\n    {command(seed, arguments)}")
    return 1 if total.failures else 0


def command(seed: int, arguments: argparse.Namespace) -> str:
    """The command that runs one case again."""
    named = (("--ranks", arguments.ranks), ("--model", arguments.model))
    options = [word for name, path in named if path for word in (name, str(path))]
    return shlex.join(["python", "benchmarks/fuzz_fit.py", "--first", str(seed), "--cases", "1", *options])


if __name__ == "__main__":
    sys.exit(main())
