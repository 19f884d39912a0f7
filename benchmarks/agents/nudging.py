"""Nudging and cascades on a local model: what the machinery costs, how much is nudged, what deferral buys.

    python benchmarks/agents/nudging.py [DATA_FOLDER] [--only overhead share cascade] [--tokens 48] [--rounds 3]
        [--problems 10] [--json FILE]

overhead: with gamma 0 the base writes alone through the nudging loop; `generate` in a session writes the same text.
Both in turn, over and over, in one process; CPU seconds of the process per token, the lower quartile of the rounds.
share: SmolLM2-135M-instruct as its own nudger. As the base it goes on with plain text, as the nudger it has its chat
template. Shows how much is nudged at which gamma and what each side computes; it says nothing about quality.
cascade: answers of the small model to GSM8K problems and to sums of two numbers, deferred by each rule. The second
model of the cascade is the book of answers: always right, and counted as 200 tokens. The area is that under quality
over share deferred, from 0 to 1: a rule that knows nothing is half way between the two models.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ctxkit.models.local import LocalModel
from ctxkit.protocols import Sampling
from ctxkit_agents.deferral import CascadeExample, ChowMean, ChowQuantile, ChowSum, curve
from ctxkit_agents.nudging import Nudging

QUESTIONS = (
    "Why is the sky blue?",
    "How do bees make honey?",
    "What does a heart do?",
)
PLAIN = "Question: {prompt}\nAnswer: "  # with the space, this instruct model goes on instead of ending
GAMMAS = (0.0, 0.2, 0.4, 0.6)
RULES = (ChowSum(), ChowMean(), ChowQuantile(0.0), ChowQuantile(0.1), ChowQuantile(0.5))
BOOK_TOKENS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data"))
    parser.add_argument("--only", nargs="*", default=["overhead", "share", "cascade"])
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = LocalModel.load()
    parts: dict[str, Callable[[], Any]] = {
        "overhead": lambda: overhead(model, arguments.tokens, arguments.rounds),
        "share": lambda: share(model, arguments.tokens),
        "cascade": lambda: cascades(model, arguments.data, arguments.problems),
    }
    found = {name: parts[name]() for name in arguments.only}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def overhead(model: LocalModel, tokens: int, rounds: int) -> dict[str, float]:
    sampling = Sampling(max_tokens=tokens)
    method = Nudging(model, model, gamma=0.0, plain=PLAIN, sampling=sampling)

    def alone(question: str) -> int:
        with model.session() as session:
            session.sync_text(PLAIN.replace("{prompt}", question))
            return session.generate(sampling).completion_tokens

    def nudged(question: str) -> int:
        return method.task(question).run().value.base.tokens_out

    alone(QUESTIONS[0]), nudged(QUESTIONS[0])  # warm
    costs: dict[str, list[float]] = {"alone": [], "gamma 0": []}
    for number in range(rounds):
        for question in QUESTIONS:
            pair = [("alone", alone), ("gamma 0", nudged)]
            for name, write in pair if number % 2 else pair[::-1]:
                began = time.process_time()
                written = write(question)
                costs[name].append((time.process_time() - began) / written)
    rows = {name: sorted(times)[len(times) // 4] for name, times in costs.items()}
    ratio = rows["gamma 0"] / rows["alone"]
    print(f"\noverhead, {rounds} rounds of {len(QUESTIONS)} answers of at most {tokens} tokens")
    for name, seconds in rows.items():
        print(f"  {name:8} {seconds * 1000:7.2f} CPU ms per token")
    print(f"  ratio    {ratio:7.3f}")
    return {**rows, "ratio": ratio}


def share(model: LocalModel, tokens: int) -> list[dict[str, float]]:
    print(f"\nshare of nudged tokens, {len(QUESTIONS)} questions, at most {tokens} tokens")
    print("  gamma  nudged  answer  base: passes  again  nudger: written  passes  again  CPU s")
    rows = []
    for gamma in GAMMAS:
        method = Nudging(model, model, gamma=gamma, plain=PLAIN, sampling=Sampling(max_tokens=tokens))
        began = time.process_time()
        answers = [method.task(question).run().value for question in QUESTIONS]
        row = {
            "gamma": gamma,
            "nudged": sum(one.nudger_tokens for one in answers)
            / sum(one.base_tokens + one.nudger_tokens for one in answers),
            "answer": sum(one.base_tokens + one.nudger_tokens for one in answers),
            "base passes": sum(one.base.passes for one in answers),
            "base again": sum(one.base.reread for one in answers),
            "nudger written": sum(one.nudger.tokens_out for one in answers),
            "nudger passes": sum(one.nudger.passes for one in answers),
            "nudger again": sum(one.nudger.reread for one in answers),
            "seconds": time.process_time() - began,
        }
        rows.append(row)
        print("  {gamma:5.1f} {nudged:7.1%} {answer:7} {base passes:13} {base again:6} ".format(**row), end="")
        print("{nudger written:16} {nudger passes:7} {nudger again:6} {seconds:6.1f}".format(**row))
    return rows


def cascades(model: LocalModel, data: Path, problems: int) -> dict[str, Any]:
    with (data / "gsm8k" / "test.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(problems), strict=False)]
    gsm8k = [(row["question"], row["answer"].rpartition("####")[2].strip().replace(",", "")) for row in rows]
    draw = random.Random(0)
    pairs = [(draw.randint(2, 60), draw.randint(2, 60)) for _ in range(3 * problems)]
    sums = [(f"What is {a} + {b}? Answer with the number.", str(a + b)) for a, b in pairs]
    return {
        "gsm8k": cascade("GSM8K", model, gsm8k, Sampling(max_tokens=96, logprobs=0)),
        "sums": cascade("sums", model, sums, Sampling(max_tokens=24, logprobs=0)),
    }


def cascade(name: str, model: LocalModel, asked: Sequence[tuple[str, str]], sampling: Sampling) -> dict[str, Any]:
    examples = []
    for question, gold in asked:
        reply = model.generate(question, sampling)
        numbers = re.findall(r"-?\d+(?:\.\d+)?", reply.text.replace(",", ""))
        logprobs = tuple(token.logprob for token in reply.logprobs)
        tokens = reply.prompt_tokens + reply.completion_tokens
        right = numbers[-1:] == [gold]
        examples.append(CascadeExample((logprobs, ()), (right, True), (tokens, BOOK_TOKENS)))
    alone = sum(one.right[0] for one in examples)
    print(f"\ncascade, {name}: the small model has {alone} of {len(examples)} right")
    found: dict[str, Any] = {"right": alone, "problems": len(examples)}
    for rule in RULES:
        points = list(curve(rule, examples))
        area = sum((b.share - a.share) * (a.quality + b.quality) / 2 for a, b in zip(points, points[1:], strict=False))
        found[repr(rule)] = {"area": area, "points": [[one.share, one.quality, one.tokens] for one in points]}
        halfway = (alone / len(examples) + 1) / 2
        print(f"  {rule!r:24} area {area:.3f}, knowing nothing {halfway:.3f}")
    print("  " + str(curve(ChowQuantile(0.0), examples)).replace("\n", "\n  "))
    return found


if __name__ == "__main__":
    main()
