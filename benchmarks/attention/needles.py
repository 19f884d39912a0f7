"""Needle prompts: numbers hidden in a long text, asked for in completion format, which a small model can answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
CITIES = "Lisbon Oslo Cairo Lima Quito Hanoi Delhi Seoul Turin Porto Malmo Basel Dakar Accra Perth Boise".split()


@dataclass(frozen=True)
class Needle:
    """question: what follows the text, up to the answer. answer: the ids that are right."""

    question: list[int]
    answer: list[int]


@dataclass(frozen=True)
class Haystack:
    text: list[int]
    needles: list[Needle]


def haystack(tokenizer: Tokenizer, tokens: int, seed: int, passages: Sequence[str] = (), needles: int = 5) -> Haystack:
    """About `tokens` ids with `needles` numbers of five digits at equal depths, among passages or, without any, noise.

    The same for the same seed.
    """
    dice = random.Random(seed)
    keys = dice.sample(CITIES, needles)
    numbers = [str(dice.randrange(10000, 100000)) for _ in keys]
    room = (tokens - 100) // (needles + 1)
    chosen = dice.sample(list(passages), len(passages)) if passages else []
    filler = tokenizer.encode(" ".join(chosen) or NOISE * (tokens // 20), add_special_tokens=False).ids
    text: list[int] = []
    for at, (key, number) in enumerate(zip(keys, numbers, strict=True)):
        text += filler[at * room : (at + 1) * room]
        text += tokenizer.encode(f"\nThe special magic number for {key} is {number}.\n", add_special_tokens=False).ids
    text += filler[needles * room : (needles + 1) * room]
    return Haystack(text, [_asked(tokenizer, *one) for one in zip(keys, numbers, strict=True)])


def _asked(tokenizer: Tokenizer, key: str, number: str) -> Needle:
    question = (
        f"\n\nQuestion: What is the special magic number for {key}?\nAnswer: The special magic number for {key} is"
    )
    asked = tokenizer.encode(question, add_special_tokens=False).ids
    return Needle(asked, tokenizer.encode(f" {number}", add_special_tokens=False).ids)
