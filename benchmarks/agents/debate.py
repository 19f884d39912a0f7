"""Debates in text and in beliefs (CIPHER), on the packaged model of 135M parameters and GSM8K.

    python benchmarks/agents/debate.py [DATA_FOLDER] [--problems 5] [--max-tokens 48] [--positions 48] [--partial 0.85]
        [--json]

beliefs: an agent answers so many positions at a temperature, feeding itself the dense average. Of each position the
fewest tokens with 99 % of the probability are kept, at most k. error: norm of the difference between the average of
what is kept (read from its bytes) and the dense one, over the norm of the dense one; mean and 95th percentile.
smaller: bytes of the dense averages in float16 [positions, hidden size] over those of the belief, its head included.

temperature 0: answers of a debate in beliefs at temperature 0 that are, token for token, what `generate` says to the
prompt with the others' tokens in it; prompts of it that are, id for id, those of a text debate, which tokenises the
answers anew; and answers whose text is that of a text debate. In float32: in bfloat16 near ties fall either way with
the length of a pass, and `generate` reads less where it knows the beginning of a prompt.

gsm8k: the first problems of the test split; one greedy answer, a debate in text, and one in beliefs, two agents and two
rounds each; with --partial also one that averages only below this probability. A model this small answers hardly one
of them: the figures say what a debate costs, not what it gains.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctxkit.context import Budget, fit
from ctxkit.models.local import LocalModel
from ctxkit.models.requests import as_request
from ctxkit.protocols import Sampling
from ctxkit_agents.debate.answers import last_number
from ctxkit_agents.debate.belief import Belief
from ctxkit_agents.debate.cipher_debate import CipherDebate
from ctxkit_agents.debate.debate import Debate
from ctxkit_agents.debate.mixing import Mixing
from ctxkit_agents.debate.prompts import INSTRUCTION, debate_parts, part_id
from ctxkit_agents.debate.speaker import Speaker
from ctxkit_agents.debate.splice import splice
from ctxkit_agents.debate.table import EmbeddingTable
from ctxkit_agents.debate.text_debate import TextDebate
from ctxkit_agents.debate.vocabulary import Vocabulary

TEMPERATURES = (0.4, 1.0)
ENTRIES = (1, 2, 4, 7, 8, 16, 32, 64, 128)
FLOAT16_BYTES = 2

Row = dict[str, Any]


@dataclass(frozen=True)
class Recording(Mixing):
    """Keeps every distribution that was averaged."""

    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, logits: Tensor) -> Tensor:
        self.seen.append(super().__call__(logits))
        return self.seen[-1]


def beliefs(model: LocalModel, questions: list[str], positions: int) -> Iterator[Row]:
    speaker = Speaker(model, entries=1, mass=0.99)
    for temperature in TEMPERATURES:
        mixing = Recording(Sampling(temperature=temperature))
        for question in questions:
            ids = model.prompt_ids(f"{question}\n\n{INSTRUCTION}")
            speaker.speak([ids], mixing, max_tokens=positions, stopped=lambda: False)
        dense = torch.stack([speaker.table.average(p) for p in mixing.seen])
        for entries in ENTRIES:
            yield {"temperature": temperature, "k": entries, **kept(speaker.table, mixing.seen, dense, entries)}


def kept(table: EmbeddingTable, seen: list[Tensor], dense: Tensor, entries: int) -> Row:
    top = [p.topk(entries) for p in seen]
    whole = Belief.of(
        [(ids.numpy(), p.numpy()) for p, ids in top], table.vocabulary.fingerprint, entries=entries, mass=0.99
    )
    data = whole.to_bytes()
    errors = (Belief.from_bytes(data).embeddings(table) - dense).norm(dim=-1) / dense.norm(dim=-1)
    return {
        "positions": len(whole),
        "entries": len(whole.ids) / len(whole),
        "error": float(errors.mean()),
        "error95": float(errors.quantile(0.95)),
        "bytes": len(data) / len(whole),
        "smaller": dense.numel() * FLOAT16_BYTES / len(data),
    }


def temperature_0(questions: list[str], max_tokens: int) -> Iterator[Row]:
    """Both agents are greedy; no answer is found, so that there is a second round."""
    model = LocalModel.load(dtype="float32")
    how: dict[str, Any] = {"temperatures": (0, 0), "rounds": 2, "max_tokens": max_tokens, "answer": lambda text: ""}
    row: Row = dict.fromkeys(("answers", "same ids as generate", "same prompt as TextDebate", "same text"), 0)
    for question in questions:
        in_text = TextDebate(model, **how).task(question).run().value
        in_beliefs = CipherDebate(model, **how).task(question).run().value
        said: dict[int, list[int]] = {}
        for texts, statements in zip(in_text.rounds, in_beliefs.rounds, strict=True):
            wanted = {number: greedy(model, spliced(model, question, said, number), max_tokens) for number in (1, 2)}
            known = {one.agent: one.text for one in in_beliefs.rounds[0]} if said else {}
            for text, one in zip(texts, statements, strict=True):
                plan = fit(debate_parts(question, known, one.agent), budget=Budget(8192), counter=model.counter)
                row["answers"] += 1
                row["same ids as generate"] += one.belief is not None and one.belief.top_ids == wanted[one.agent]
                row["same prompt as TextDebate"] += plan.ids == spliced(model, question, said, one.agent)
                row["same text"] += one.text == text.text
            said = wanted
    yield row


def spliced(model: LocalModel, question: str, said: dict[int, list[int]], agent: int) -> tuple[int, ...]:
    """The prompt with the tokens of what was said in it."""
    fingerprint = Vocabulary.of(model.counter.tokenizer).fingerprint
    held = {part_id(number): Belief.of_ids(ids, fingerprint) for number, ids in said.items()}
    pieces = splice(model, debate_parts(question, dict.fromkeys(said, "-"), agent), held).pieces
    return tuple(token for piece in pieces for token in (piece.top_ids if isinstance(piece, Belief) else piece))


def greedy(model: LocalModel, ids: tuple[int, ...], max_tokens: int) -> list[int]:
    reply = model.generate(replace(as_request("-"), ids=ids), Sampling(max_tokens=max_tokens, logprobs=0))
    return [one.id for one in reply.logprobs if one.id is not None]


def gsm8k(model: LocalModel, problems: list[Row], max_tokens: int, partial: float | None) -> Iterator[Row]:
    how: dict[str, Any] = {"temperatures": TEMPERATURES, "rounds": 2, "max_tokens": max_tokens, "answer": last_number}
    methods: dict[str, Debate | None] = {
        "single, greedy": None,
        "text debate": TextDebate(model, **how),
        "cipher debate": CipherDebate(model, **how),
    }
    if partial is not None:
        methods[f"cipher debate, partial {partial}"] = CipherDebate(model, partial=partial, **how)
    for name, method in methods.items():
        row: Row = {"method": name, "problems": len(problems), "right": 0, "tokens in": 0, "tokens out": 0}
        row["belief bytes"] = row["belief positions"] = 0
        began = time.process_time()
        for problem in problems:
            question = problem["question"]
            said = single(model, question, max_tokens) if method is None else debated(method, question)
            add(row, last_number(problem["answer"]), *said)
        yield {**row, "cpu seconds": time.process_time() - began}


def single(model: LocalModel, question: str, max_tokens: int) -> tuple[str, int, int, list[Belief]]:
    reply = model.generate(f"{question}\n\n{INSTRUCTION}", Sampling(max_tokens=max_tokens))
    return last_number(reply.text), reply.prompt_tokens, reply.completion_tokens, []


def debated(method: Debate, question: str) -> tuple[str, int, int, list[Belief]]:
    outcome = method.task(question).run()
    said = [one.belief for statements in outcome.value.rounds for one in statements if one.belief is not None]
    return outcome.value.answer, outcome.spent.tokens_in, outcome.spent.tokens_out, said


def add(row: Row, wanted: str, answer: str, tokens_in: int, tokens_out: int, said: list[Belief]) -> None:
    row["right"] += answer == wanted
    row["tokens in"] += tokens_in
    row["tokens out"] += tokens_out
    row["belief bytes"] += sum(len(one.to_bytes()) for one in said)
    row["belief positions"] += sum(map(len, said))


def shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def show(rows: list[Row]) -> None:
    table = [list(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--problems", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--positions", type=int, default=48)
    parser.add_argument("--partial", type=float)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    lines = (given.data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    problems = [json.loads(line) for line in lines[: given.problems]]
    questions = [problem["question"] for problem in problems[:3]]
    model = LocalModel.load()
    parts: dict[str, Iterator[Row]] = {
        "beliefs": beliefs(model, questions, given.positions),
        "temperature 0": temperature_0(questions[:2], given.max_tokens),
        "gsm8k": gsm8k(model, problems, given.max_tokens, given.partial),
    }
    found = {}
    for name, rows in parts.items():
        found[name] = list(rows)
        if not given.json:
            print(name)
            show(found[name])
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
