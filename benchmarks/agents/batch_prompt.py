"""Many items in one prompt against one prompt per item: tokens, calls and how many answers are right.

    python benchmarks/agents/batch_prompt.py [DATA_FOLDER] [--items 32] [--shots 0 4] [--rounds 5] [--json]

An item is a question of xquad-en and a sentence of its passage: does the sentence hold the answer? Half do. Every
method asks SmolLM2 the same items: alone (one prompt per item, once), in batches of all items (one round), and in
batches in up to so many orders with the majority (BPE; an item stops when its majority is decided). --shots: worked
examples in the instruction, since these are what a batch pays for only once.

So small a model does not keep to the form of the answer by itself. It is held to it: the lines are written for it, and
in each it takes the likelier of " yes" and " no". Its answers are therefore all readable, and no statement about
whether a small model follows instructions. The share of tokens is exact; the answers of a 135M model say little about
those of a large one. SEAS (stop when sure) is off: the model cannot say how sure it is.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ctxkit.models.local import LocalModel
from ctxkit.models.local.session import LocalSession
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel
from ctxkit_agents.batch_prompt import BatchPrompt

ASKED = "Does the sentence hold the answer to the question?"
OPTIONS = ("yes", "no")
_ITEM = re.compile(r"^\[\d+\] ", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Item:
    text: str
    right: str


@dataclass(frozen=True)
class Row:
    """One method. share: of the tokens of asking alone."""

    shots: int
    method: str
    tokens_in: int
    tokens_out: int
    calls: int
    share: float
    correct: float
    answered: float
    yes: float
    cpu_seconds: float


class FormFiller:
    """Writes "1: ", takes the likelier option, writes "2: ", and so on, for each item of the prompt."""

    def __init__(self, model: LocalModel, session: LocalSession) -> None:
        self.model, self.session = model, session
        self.options = {option: self._ids(f" {option}")[0] for option in OPTIONS}

    def __call__(self, request: Request) -> str:
        count = len(_ITEM.findall(request.messages[-1].content))
        self.session.sync_ids(self.model.prompt_ids(request))
        said = ""
        for number in range(1, count + 1):
            given = f"\n{number}:" if number > 1 else "1:"
            logits = self.session.step(self._ids(given))
            option = max(self.options, key=lambda name: float(logits[self.options[name]]))
            if number < count:
                self.session.step([self.options[option]])
            said += f"{given} {option}"
        return said

    def _ids(self, text: str) -> list[int]:
        return self.model.counter.tokenizer.encode(text, add_special_tokens=False).ids


def items(folder: Path, count: int, start: int = 0) -> list[Item]:
    """Evenly over the questions; every other one with a sentence of its passage that has no answer string."""
    read = [json.loads(line) for line in (folder / "queries.jsonl").read_text().splitlines()]
    texts = {one["_id"]: one["text"] for one in map(json.loads, (folder / "corpus.jsonl").read_text().splitlines())}
    passage_of = dict(line.split("\t")[:2] for line in (folder / "qrels.tsv").read_text().splitlines()[1:])
    found: list[Item] = []
    step = max(1, len(read) // (4 * count))
    for query in read[start::step]:
        sentences = _SENTENCE.split(texts[passage_of[query["_id"]]])
        right = OPTIONS[len(found) % 2]
        holds = [any(answer in sentence for answer in query["answers"]) for sentence in sentences]
        fitting = [one for one, does in zip(sentences, holds, strict=True) if does == (right == "yes")]
        short = [one for one in fitting if 6 <= len(one.split()) <= 28]
        if short:
            found.append(Item(f"Question: {query['text']} Sentence: {short[0]}", right))
        if len(found) == count:
            break
    return found


def instruction(shots: Sequence[Item]) -> str:
    if not shots:
        return ASKED
    shown = "\n".join(f"{one.text} Answer: {one.right}" for one in shots)
    return f"{ASKED} For example:\n{shown}\n\nNow for these:"


def rows(model: LocalModel, asked: Sequence[Item], shots: Sequence[Item], rounds: int) -> Iterator[Row]:
    methods = {"alone": (1, 1), "batch": (len(asked), 1), f"batch, {rounds} orders": (len(asked), rounds)}
    alone_tokens = 0
    for name, (size, most) in methods.items():
        with model.session() as session:
            filler = ScriptedModel(
                FormFiller(model, session), counter=model.counter, window_tokens=model.window_tokens, name=model.name
            )
            method = BatchPrompt(
                filler,
                instruction(shots),
                OPTIONS,
                batch_size=size,
                rounds=most,
                confidence=False,
                sampling=Sampling(max_tokens=6),
                at_once=1,
            )
            began = time.process_time()
            result = method.task([one.text for one in asked]).run().value
        tokens = result.tokens_in + result.tokens_out
        alone_tokens = alone_tokens or tokens
        given = [one.answer for one in result.answers]
        yield Row(
            len(shots),
            name,
            result.tokens_in,
            result.tokens_out,
            result.calls,
            tokens / alone_tokens,
            sum(answer == one.right for answer, one in zip(given, asked, strict=True)) / len(asked),
            sum(answer is not None for answer in given) / len(asked),
            given.count("yes") / len(asked),
            time.process_time() - began,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    model = LocalModel.load()
    asked = items(given.data / "xquad-en", given.items)
    taken = {one.text for one in asked}
    examples = [
        one for one in items(given.data / "xquad-en", 4 * max(given.shots) or 1, start=3) if one.text not in taken
    ]
    made: list[Row] = []
    if not given.json:
        print("shots  method            tokens in    out  calls  share  right  answered  said yes  CPU s")
    for shots in given.shots:
        for row in rows(model, asked, examples[:shots], given.rounds):
            made.append(row)
            if not given.json:
                print(
                    f"{row.shots:5}  {row.method:16} {row.tokens_in:10,} {row.tokens_out:6,} {row.calls:6} "
                    f"{row.share:6.1%} {row.correct:6.1%} {row.answered:9.1%} {row.yes:9.1%} {row.cpu_seconds:6.1f}",
                    flush=True,
                )
    if given.json:
        print(json.dumps([asdict(row) for row in made], indent=1))


if __name__ == "__main__":
    main()
