"""Passages as words with the encoder's states, and where in them the answers stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import regex
from articles import HELD_OUT, in_order
from tqdm.auto import tqdm

from ctxkit.compression.facts.encoder import minilm_reader
from ctxkit.compression.facts.shapes import word_shapes
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.words import Words
from ctxkit.protocols import Counter


@dataclass(frozen=True)
class Passage:
    """A text with its words.

    states: float32 [words, dims]. shapes: [words, SHAPES]. pieces: the encoder's tokens, costs: the target's, [words].
    tokens: of the whole text, by the target. answers: the right strings of each question.
    """

    article: str
    text: str
    answers: tuple[tuple[str, ...], ...]
    bounds: np.ndarray
    states: np.ndarray
    shapes: np.ndarray
    pieces: np.ndarray
    costs: np.ndarray
    tokens: int

    @cached_property
    def words(self) -> list[str]:
        return [self.text[a:b] for a, b in zip(self.bounds, self.bounds[1:], strict=False)]

    def spans(self) -> Iterator[list[tuple[int, int]]]:
        """Of each question the first and last word of each place where an answer stands whole."""
        for strings in self.answers:
            places = (match.span() for string in strings for match in whole(string).finditer(self.text))
            yield sorted({(self._word(start), self._word(end - 1)) for start, end in places})

    def _word(self, offset: int) -> int:
        return int(np.searchsorted(self.bounds, offset, side="right")) - 1


def whole(string: str) -> regex.Pattern[str]:
    """Finds `string` where it is not part of a longer word."""
    return regex.compile(rf"(?<!\w){regex.escape(string)}(?!\w)")


class States:
    """The hidden states of `layer` of all-MiniLM-L6-v2; the layers above are not run."""

    def __init__(self, layer: int, window: int, counter: Counter) -> None:
        self._reader, self._counter = minilm_reader(layer, window), counter

    def passage(self, text: str, article: str = "", answers: Sequence[Sequence[str]] = ()) -> Passage:
        words = Words.of(text, Pins())
        read = self._reader.read([words])
        costs = self._counter.count_batch(words.spaced)
        return Passage(
            article,
            text,
            tuple(map(tuple, answers)),
            np.array(words.bounds),
            read.per_word(),
            word_shapes(words.spaced),
            read.tokens_per_word,
            np.array(costs),
            self._counter.count(text),
        )


def read(folder: Path, states: States) -> list[Passage]:
    """The passages of an xquad folder, in its order."""
    answers = {row["_id"]: row["answers"] for row in rows(folder / "queries.jsonl")}
    asked: dict[str, list[list[str]]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        question, passage, _ = line.split("\t")
        asked.setdefault(passage, []).append(answers[question])
    found = list(rows(folder / "corpus.jsonl"))
    return [
        states.passage(row["text"], row["_id"].rpartition("#")[0], asked[row["_id"]])
        for row in tqdm(found, desc="encoding")
    ]


def split(passages: Sequence[Passage], held_out: int = HELD_OUT) -> tuple[list[Passage], list[Passage], list[str]]:
    """Passages for development and held out, by article in the order of the hash of its name; and that order."""
    names = in_order(p.article for p in passages)
    apart = set(names[:held_out])
    development = [p for p in passages if p.article not in apart]
    return development, [p for p in passages if p.article in apart], names[held_out:]


def rows(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
