"""Synthetic tasks for long contexts, as RULER has them (Hsieh et al. 2024, arXiv 2404.06654), in completion form.

A task is a context, a question that ends where the answer begins, and the answer. The same seed gives the same task.
Needles: one, one of several keys, one key with several values, several keys asked at once. Variables that are assigned
to each other; the most frequent words; UUIDs as key and value in JSON lines; a chain of UUIDs followed forward or
backward (needle threading, Roberts et al. 2024, arXiv 2411.05000).
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

Fits = Callable[[str], bool]
"""Whether a context of this text is still short enough."""

NOISE = (
    "The grass is green. ",
    "The sky is blue. ",
    "The sun is yellow. ",
    "Here we go. ",
    "There and back again. ",
    "Rain fell on the roofs all night. ",
    "The market opened early. ",
    "A dog slept by the door. ",
    "The train was late again. ",
    "She read the paper twice. ",
    "The kettle began to sing. ",
    "Nobody noticed the letter. ",
    "The clock struck nine. ",
    "They walked home along the river. ",
)
THINGS = "ledger orchard lantern harbour compass meadow anvil quarry violin glacier saddle beacon".split()
COLOURS = "amber crimson indigo olive scarlet teal violet ivory cobalt russet silver jade".split()
WORDS = (
    "apple basin candle dune ember fable garden hollow island jacket kitten ladder marble needle ocean pepper quiver "
    "ribbon sponge turnip umbrella velvet walnut yarrow zipper bracket cobweb drizzle falcon goblet hammock icicle"
).split()


@dataclass(frozen=True)
class Task:
    """stands: where in the context, from 0 to 1, the first of what the answer needs stands."""

    name: str
    context: str
    question: str
    answer: str
    stands: float


Generator = Callable[[random.Random, Fits], Task]


# --- needles ----------------------------------------------------------------------------------------------------------


def needle(name: str, keys: int, values: int, asked: int) -> Generator:
    """`keys` keys with `values` numbers each; `asked` keys are asked for, in the order of the text."""

    def make(rng: random.Random, fits: Fits) -> Task:
        chosen = rng.sample([f"{colour} {thing}" for colour in COLOURS for thing in THINGS], keys)
        facts = [(key, str(rng.randrange(10_000, 100_000))) for key in chosen for _ in range(values)]
        order = rng.sample(facts, len(facts))
        context, places = haystack(
            rng, [f"The special magic number for the {key} is {value}. " for key, value in order], fits
        )
        sought = chosen[:asked]
        told = [(at, key, value) for (key, value), at in zip(order, places, strict=True) if key in sought]
        answer = ", ".join(value for wanted in sought for _, key, value in told if key == wanted)
        verb = "number for the {} is" if len(told) == 1 else "numbers for the {} are"
        question = "\nThe special magic " + verb.format(" and the ".join(sought))
        return Task(name, context, question, f" {answer}", min(at for at, _, _ in told))

    return make


def haystack(rng: random.Random, facts: Sequence[str], fits: Fits) -> tuple[str, list[float]]:
    """Facts in their order at random places in as much noise as fits, and where each stands, from 0 to 1."""
    head = "Some facts are hidden in the text. Remember them.\n"
    noise: list[str] = []

    def fit(count: int) -> bool:
        noise.extend(rng.choice(NOISE) for _ in range(count - len(noise)))
        return fits(head + "".join([*noise[:count], *facts]))

    pieces = noise[: largest(fit)]
    spots = [int(spot * len(pieces)) for spot in sorted(rng.random() for _ in facts)]
    for fact, spot in reversed(list(zip(facts, spots, strict=True))):
        pieces.insert(spot, fact)
    context = head + "".join(pieces)
    return context, [context.index(fact) / len(context) for fact in facts]


def largest(good: Callable[[int], bool], start: int = 1) -> int:
    """The largest n >= 0 of which `good` says yes, where it says yes up to some n and no behind it."""
    high = start
    while good(high):
        high *= 2
    low = high // 2 if high > start else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


# --- variables, words -------------------------------------------------------------------------------------------------


def variables(hops: int) -> Generator:
    """A chain of `hops` assignments; which name's value is the last one's?"""

    def make(rng: random.Random, fits: Fits) -> Task:
        names = rng.sample([a + b + c for a in "BDFGKLM" for b in "AEIOU" for c in "NPRSTV"], 2 * (hops + 1))
        chains, values = (names[: hops + 1], names[hops + 1 :]), rng.sample(range(10_000, 100_000), 2)
        lines = [
            [
                f"VAR {chain[0]} = {value}. ",
                *(f"VAR {new} = VAR {old}. " for old, new in zip(chain, chain[1:], strict=False)),
            ]
            for chain, value in zip(chains, values, strict=True)
        ]
        facts = merged(rng, lines)
        context, places = haystack(rng, facts, fits)
        question = f"\nFollowing the assignments in the text, the value of VAR {chains[0][-1]} is"
        first = min(at for fact, at in zip(facts, places, strict=True) if fact in lines[0])
        return Task("variables", context, question, f" {values[0]}", first)

    return make


def merged(rng: random.Random, lines: Sequence[Sequence[str]]) -> list[str]:
    """All lines, each sequence in its own order."""
    turns = [number for number, one in enumerate(lines) for _ in one]
    rng.shuffle(turns)
    streams = [iter(one) for one in lines]
    return [next(streams[turn]) for turn in turns]


def common_words(often: int = 3) -> Generator:
    """A list in which `often` words come up most; the answer names them, the most frequent first."""

    def make(rng: random.Random, fits: Fits) -> Task:
        words = rng.sample(WORDS, len(WORDS))
        head = "A list of words. Count how often each comes up.\n"
        weights = [8 - 2 * at for at in range(often)] + [1] * (len(words) - often)
        block = [word for word, weight in zip(words, weights, strict=True) for _ in range(weight)]
        blocks = largest(lambda n: fits(head + ", ".join(block * n)))
        drawn = block * max(1, blocks)
        rng.shuffle(drawn)
        top = [word for word, _ in Counter(drawn).most_common(often)]
        question = f"\nThe {often} words that come up most in the list, the most frequent first, are:"
        return Task("common words", head + ", ".join(drawn), question, " " + ", ".join(top), 0.0)

    return make


# --- UUIDs ------------------------------------------------------------------------------------------------------------


def key_value() -> Generator:
    """JSON lines of UUIDs; one key's value is asked for."""

    def make(rng: random.Random, fits: Fits) -> Task:
        head = "JSON lines; each has a key and its value.\n"
        pairs = [(uuid(rng), uuid(rng)) for _ in range(largest(lambda n: fits(head + line("0" * 36, "1" * 36) * n)))]
        lines = [line(*pair) for pair in pairs]
        while len(lines) > 1 and not fits(head + "".join(lines)):
            lines.pop()
        at = rng.randrange(len(lines))
        key, value = pairs[at]
        question = f'\nThe line with this key again:\n{{"key": "{key}", "value": "'
        return Task("key value", head + "".join(lines), question, value, at / len(lines))

    return make


def threading(hops: int, backward: bool = False) -> Generator:
    """Each line's value is another line's key; where does the thread end after `hops` steps?

    Backward: the lines of the thread stand in the text in the opposite order.
    """

    def make(rng: random.Random, fits: Fits) -> Task:
        head = "JSON lines; a value may be the key of another line.\n"
        count = largest(lambda n: fits(head + line("0" * 36, "1" * 36) * n))
        thread = [uuid(rng) for _ in range(hops + 1)]
        links = [line(key, value) for key, value in zip(thread, thread[1:], strict=False)]
        others = [line(uuid(rng), uuid(rng)) for _ in range(max(0, count - hops))]
        while others and not fits(head + "".join([*links, *others])):
            others.pop()
        lines = merged(rng, [links[::-1] if backward else links, others])
        start = f'\nFollow the values from line to line. The thread\n{{"key": "{thread[0]}", '
        question = start + f'"value": ...}} ends after {hops} lines with the value "'
        name = f"thread {'backward' if backward else 'forward'} {hops}"
        first = min(lines.index(link) for link in links)
        return Task(name, head + "".join(lines), question, thread[-1], first / len(lines))

    return make


def line(key: str, value: str) -> str:
    return json.dumps({"key": key, "value": value}) + "\n"


def uuid(rng: random.Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


TASKS: dict[str, Generator] = {
    "single": needle("single", keys=1, values=1, asked=1),
    "multikey": needle("multikey", keys=8, values=1, asked=1),
    "multivalue": needle("multivalue", keys=3, values=3, asked=1),
    "multiquery": needle("multiquery", keys=8, values=1, asked=2),
    "variables": variables(hops=2),
    "words": common_words(),
    "keyvalue": key_value(),
    "forward": threading(hops=2),
    "backward": threading(hops=2, backward=True),
}


# --- self-check -------------------------------------------------------------------------------------------------------


def check(names: Sequence[str], seeds: int = 20) -> int:
    """Makes tasks of several sizes and solves each from its context alone. Returns how many; raises ValueError."""
    done = 0
    for name in names:
        for seed in range(seeds):
            limit = 1_500 + 400 * seed  # characters
            made, again = (TASKS[name](random.Random(seed), no_longer(limit)) for _ in range(2))
            if made != again:
                raise ValueError(f"{name}, seed {seed}: the same seed gave two tasks")
            if len(made.context) > limit:
                raise ValueError(f"{name}, seed {seed}: {len(made.context)} characters, {limit} were allowed")
            if solved(name, made) != made.answer:
                raise ValueError(f"{name}, seed {seed}: the context says {solved(name, made)!r}, not {made.answer!r}")
            done += 1
    return done


def no_longer(characters: int) -> Fits:
    return lambda text: len(text) <= characters


def solved(name: str, task: Task) -> str:
    """The answer, read off the context and the question by rule."""
    solver = SOLVERS.get(name, _solved_needle)
    return solver(task)


def _solved_needle(task: Task) -> str:
    asked = re.findall(r"the (\w+ \w+)(?= and| is| are)", task.question)
    facts = re.findall(r"magic number for the (\w+ \w+) is (\d+)\.", task.context)
    return " " + ", ".join(value for one in asked for key, value in facts if key == one)


def _solved_variables(task: Task) -> str:
    given = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", task.context))
    value = task.question.split("VAR ")[1].removesuffix(" is")
    while value in given:
        value = given[value]
    return f" {value}"


def _solved_words(task: Task) -> str:
    counted = Counter(task.context.split("\n")[1].split(", "))
    return " " + ", ".join(word for word, _ in counted.most_common(3))


def _solved_lines(task: Task) -> str:
    given = {one["key"]: one["value"] for one in map(json.loads, task.context.splitlines()[1:])}
    value = task.question.split('"key": "')[1].split('"')[0]
    while value in given:
        value = given[value]
    return value


SOLVERS: dict[str, Callable[[Task], str]] = {
    "variables": _solved_variables,
    "words": _solved_words,
    "keyvalue": _solved_lines,
    "forward": _solved_lines,
    "backward": _solved_lines,
}
