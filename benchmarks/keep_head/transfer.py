"""What the head keeps of texts unlike those it was trained on: meetings, and the numbers of word problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from passages import Passage, States, rows
from survival import RATES, baselines, heading, kept_words, row

from ctxkit.compression.text.score import terms
from ctxkit.protocols import Counter

MEETINGS = 12
PROBLEMS = 200
Scorer = Callable[[Sequence[Passage]], list[np.ndarray]]


def transfer(data: Path, states: States, scorer: Scorer, counter: Counter) -> None:
    """Prints the share that is kept of four kinds of words."""
    meetings = [meeting(found, states) for found in islice(rows(data / "qmsum" / "val.jsonl"), MEETINGS)]
    passages = [passage for passage, _, _ in meetings]
    kinds = {
        "QMSum, words in gold turns": [gold for _, gold, _ in meetings],
        "QMSum, words in gold turns that the answer uses": [used for _, _, used in meetings],
        "QMSum, words with a digit": [numbers(passage) for passage in passages],
    }
    print_shares(passages, kinds, scorer, counter)
    found = islice(rows(data / "gsm8k" / "test.jsonl"), PROBLEMS)
    problems = [states.passage(problem["question"]) for problem in found]
    print_shares(problems, {"GSM8K, words with a digit": [numbers(p) for p in problems]}, scorer, counter)


def print_shares(
    passages: Sequence[Passage], kinds: Mapping[str, list[np.ndarray]], scorer: Scorer, counter: Counter
) -> None:
    """kinds: of each passage which words are wanted, bool [words]."""
    kept = {
        name: [[kept_words(p, own, rate, counter) for rate in RATES] for p, own in zip(passages, scores, strict=True)]
        for name, scores in (*baselines(passages), ("keep head", scorer(passages)))
    }
    for title, wanted in kinds.items():
        total = sum(mask.sum() for mask in wanted)
        print(heading(f"{title}: {total:,} of {sum(map(len, wanted)):,}"))
        for name, of_passages in kept.items():
            found = [
                [mask[words].sum() for words in of_rates] for mask, of_rates in zip(wanted, of_passages, strict=True)
            ]
            print(row(name, np.sum(found, axis=0) / total), flush=True)


def numbers(passage: Passage) -> np.ndarray:
    """Which words have a digit, bool [words]."""
    return np.array([any(map(str.isdigit, word)) for word in passage.words], bool)


def meeting(found: dict, states: States) -> tuple[Passage, np.ndarray, np.ndarray]:
    """The transcript; which words stand in gold turns of any question; and which of them the answer to it uses."""
    lines = [f"{turn['speaker']}: {turn['content']}\n" for turn in found["meeting_transcripts"]]
    passage = states.passage("".join(lines))
    turns = np.searchsorted(np.cumsum([len(line) for line in lines]), passage.bounds[:-1], side="right")
    folded = [terms(word) for word in passage.words]
    gold, used = np.zeros(len(turns), bool), np.zeros(len(turns), bool)
    for query in found["specific_query_list"]:
        answer = set(terms(query["answer"]))
        for first, last in query["relevant_text_span"]:
            inside = (turns >= int(first)) & (turns <= int(last))
            gold |= inside
            used[[i for i in np.flatnonzero(inside) if answer.intersection(folded[i])]] = True
    return passage, gold & np.array([bool(word) for word in folded]), used
