"""How far `fit` is from the best plan: small instances, every combination of levels tried under the real counter.

    python benchmarks/fit_gap.py --instances 1000
    python benchmarks/fit_gap.py --instances 200 --counter tiny        # a byte-level BPE with a chat template

An instance has 3 to 9 groups, a random window, and (half of them) a compressor that knows one or two cheaper levels of
some groups. The optimum is the most valuable combination whose rendered prompt fits; combinations that put an answer or
a tool before the first message of the user are not counted, where the parts begin with the user. Printed are the true
gap, the share of instances solved exactly, and whether the gap that a plan states is ever below the true one: exits 1
then.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from statistics import fmean, median

from conversations import prose

import ctxkit
from ctxkit import Budget, Level, Part, fit
from ctxkit.context.compose import compose
from ctxkit.context.group import Group
from ctxkit.protocols import Counter
from ctxkit.testing import WhitespaceCounter, tiny_counter

MOST_COMBINATIONS = 20_000
SLACK = 16  # tokens that a group may cost less in company than its own rendering says
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Option:
    """One level of a group: the parts that are sent, and what they are worth."""

    parts: tuple[Part, ...]
    value: float


@dataclass(frozen=True)
class Instance:
    """groups: the parts of each, in order. reduced: by the id of a group's first part, its cheaper levels.

    question: pinned, at the end. values: of each group, whole; the question's is the last.
    """

    groups: tuple[tuple[Part, ...], ...]
    question: Part
    values: tuple[float, ...]
    reduced: Mapping[str, tuple[Level, ...]]
    window: int

    @property
    def parts(self) -> list[Part]:
        return [*(part for group in self.groups for part in group), self.question]

    def options(self) -> list[list[Option]]:
        """The levels of each group, the dropped one first."""
        found = []
        for parts, value in zip(self.groups, self.values[:-1], strict=True):
            cheaper = [Option(level.parts, value * level.utility) for level in self.reduced.get(parts[0].id, ())]
            found.append([Option((), 0.0), *cheaper, Option(parts, value)])
        return found


@dataclass(frozen=True)
class Result:
    """gap: share of the best value that the plan misses. stated: what the plan says it misses at most."""

    gap: float
    stated: float
    reducible: bool


class Scripted:
    """Both a compressor and a utility: the levels and the values of an instance."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def levels(self, group: Group, request: object) -> Iterator[Level]:
        yield from self.instance.reduced.get(group.parts[0].id, ())

    def values(self, groups: Sequence[Group]) -> list[float]:
        worth = {parts[0].id: value for parts, value in zip(self.instance.groups, self.instance.values, strict=False)}
        return [worth.get(group.parts[0].id, self.instance.values[-1]) for group in groups]


# --- instances --------------------------------------------------------------------------------------------------------


def instance(seed: int, counter: Counter) -> Instance:
    rng = random.Random(f"gap {seed}")
    groups = tuple(group_of(rng, n) for n in range(rng.randint(3, 9)))
    reduced: dict[str, tuple[Level, ...]] = {}
    if rng.random() < 0.5:
        reduced = dict(with_room(groups, {parts[0].id: levels_of(rng, parts) for parts in groups}))
    question = ctxkit.question(prose(rng, 6), id="question")
    values = tuple(rng.choice((rng.uniform(0.05, 1), rng.uniform(0.5, 4))) for _ in (*groups, question))
    whole = rendered([part for parts in groups for part in parts], question, counter)
    least = rendered([], question, counter)
    window = least + int((whole - least) * rng.uniform(0.05, 1.0))
    return Instance(groups, question, values, reduced, window)


def group_of(rng: random.Random, number: int) -> tuple[Part, ...]:
    name = f"g{number}"
    text = prose(rng, rng.choice((rng.randint(2, 12), rng.randint(10, 90))))
    kind = rng.random()
    if kind < 0.3:
        return (ctxkit.passage(text, id=name, title=prose(rng, 2)),)
    if kind < 0.7:
        return (ctxkit.turn(rng.choice(("user", "assistant")), text, id=name),)
    arguments = '{"query": "' + prose(rng, 3) + '"}'
    call = {"id": name, "type": "function", "function": {"name": "search", "arguments": arguments}}
    return ctxkit.tool_call([call], id=name), ctxkit.tool_result(name, text, id=f"{name}-result")


def levels_of(rng: random.Random, parts: tuple[Part, ...]) -> tuple[Level, ...]:
    """None, one or two: the last part's text cut to a share of its words."""
    words = parts[-1].content.split()
    shares = sorted(rng.uniform(0.1, 0.8) for _ in range(rng.randint(0, 2)))
    utilities = sorted(rng.uniform(0.1, 0.95) for _ in shares)
    return tuple(
        Level(
            f"cut-{n}",
            (*parts[:-1], replace(parts[-1], content=" ".join(words[: max(int(len(words) * share), 1)]))),
            utility=utility,
            method="scripted",
        )
        for n, (share, utility) in enumerate(zip(shares, utilities, strict=True))
    )


def with_room(
    groups: Sequence[tuple[Part, ...]], reduced: Mapping[str, tuple[Level, ...]]
) -> Iterator[tuple[str, tuple[Level, ...]]]:
    """As many of the levels as keep the number of combinations within what can be tried."""
    sizes = [2] * len(groups)
    for at, parts in enumerate(groups):
        sizes[at] += len(reduced[parts[0].id])
        if prod(sizes) > MOST_COMBINATIONS:
            return
        yield parts[0].id, reduced[parts[0].id]


# --- the optimum ------------------------------------------------------------------------------------------------------


def rendered(parts: Sequence[Part], question: Part, counter: Counter) -> int:
    return counter.render(compose([*parts, question])).tokens


def best_value(given: Instance, counter: Counter) -> float:
    """Of the combinations by falling value, the first whose prompt fits.

    Those that cannot fit, going by what each level costs alone, are not rendered.
    """
    options = given.options()
    least = rendered([], given.question, counter)
    costs = [[rendered(one.parts, given.question, counter) - least - SLACK for one in group] for group in options]
    combinations = sorted(
        product(*(range(len(group)) for group in options)),
        key=lambda picks: -sum(group[pick].value for group, pick in zip(options, picks, strict=True)),
    )
    for picks in combinations:
        if least + sum(cost[pick] for cost, pick in zip(costs, picks, strict=True)) > given.window:
            continue
        chosen = [group[pick] for group, pick in zip(options, picks, strict=True)]
        parts = [part for option in chosen for part in option.parts]
        if given.parts[0].role == "user" and parts and parts[0].role != "user":
            continue  # no provider takes an answer before the first message of the user
        if rendered(parts, given.question, counter) <= given.window:
            return sum(option.value for option in chosen)
    raise AssertionError("nothing but the question fits in every instance")


def solved(seed: int, counter: Counter) -> Result:
    given = instance(seed, counter)
    scripted = Scripted(given)
    plan = fit(
        given.parts,
        budget=Budget(window_tokens=given.window),
        counter=counter,
        compressors=[scripted] if given.reduced else [],
        utility=scripted,
    )
    best = best_value(given, counter)
    gap = (best - plan.value) / best if best > 0 else 0.0
    if gap < -TOLERANCE:
        raise SystemExit(f"seed {seed}: the plan is worth {plan.value}, more than the best combination, {best}")
    return Result(max(gap, 0.0), plan.gap, bool(given.reduced))


# --- report -----------------------------------------------------------------------------------------------------------


def lines(results: Sequence[Result]) -> Iterator[str]:
    yield f"{'':24}{'instances':>10}{'median':>9}{'mean':>9}{'95th':>9}{'worst':>9}{'exact':>9}{'stated':>9}"
    kinds = (("all or nothing", False), ("with levels", True))
    for name, reducible in kinds:
        yield from row(name, [result for result in results if result.reducible == reducible])
    yield from row("all", results)


def row(name: str, results: Sequence[Result]) -> Iterator[str]:
    if not results:
        return
    gaps = sorted(result.gap for result in results)
    figures = (median(gaps), fmean(gaps), gaps[int(0.95 * (len(gaps) - 1))], gaps[-1])
    exact = fmean(gap <= TOLERANCE for gap in gaps)
    stated = fmean(result.stated for result in results)
    yield f"{name:24}{len(gaps):10,}" + "".join(f"{figure:9.2%}" for figure in (*figures, exact, stated))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--counter", choices=("whitespace", "tiny"), default="whitespace")
    arguments = parser.parse_args()
    counter: Counter = WhitespaceCounter() if arguments.counter == "whitespace" else tiny_counter()
    seeds = range(arguments.first, arguments.first + arguments.instances)
    results = {seed: solved(seed, counter) for seed in seeds}
    print("\n".join(lines(list(results.values()))))
    worst = max(results, key=lambda seed: results[seed].gap)
    print(f"worst: seed {worst}, {results[worst].gap:.2%}, stated {results[worst].stated:.2%}")
    wrong = [seed for seed, result in results.items() if result.stated < result.gap - TOLERANCE]
    print(f"stated gap below the true one: {len(wrong)}" + (f", first in seed {wrong[0]}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
