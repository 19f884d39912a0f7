"""Decomposed prompting on letter concatenation, list reversal and CommaQA-E: exact match and what it costs.

    PYTHONPATH=.:agents:kernels:connectors python benchmarks/agents/decomposed.py [DATA_FOLDER] [--model words] [--json]

The models follow rules (tests/agents/decomp_rules.py): they know how each question is decomposed and where facts stand,
so a result that is not exact is a fault of the grammar, the routing, the references or the budget. Tokens are those of
`--model`'s tokenizer and chat template, or words. Costs are per question; `peak` is the largest prompt of all.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ctxkit.models import resolve
from ctxkit.protocols import Counter
from ctxkit.testing import ScriptedModel, WhitespaceCounter
from ctxkit.tokens import TemplateCounter
from ctxkit_agents.decomposed import Decomposed, PromptedModel
from tests.agents.decomp_rules import Case, cases, comma, letters, reversal

WINDOW_TOKENS = 8192
WORLDS: dict[str, Callable[[], Decomposed]] = {"letter_cat": letters, "reverse": reversal, "commaqa_e": comma}


@dataclass
class Row:
    """data: the file. exact: questions answered exactly. The rest is summed over questions, `peak` the most of any."""

    data: str
    questions: int = 0
    exact: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    peak: int = 0
    seconds: float = 0.0


def main() -> None:
    arguments = parse()
    counter: Counter = WhitespaceCounter()
    if arguments.model != "words":
        counter = TemplateCounter.from_folder(resolve(arguments.model))
    rows = [
        row_of(file, counting(make(), counter), arguments.every)
        for world, make in WORLDS.items()
        for file in sorted((arguments.data / "decomp" / world).glob("*.json"))
    ]
    print(json.dumps([asdict(row) for row in rows]) if arguments.json else table(rows, counter.name))


def parse() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--model", default="smollm2-135m-instruct", help='whose tokens are counted; "words" needs none')
    parser.add_argument("--every", type=int, default=1, help="so many questions on; 1 is all")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def counting(method: Decomposed, counter: Counter) -> Decomposed:
    """The method, all its models counting so, in windows large enough for any tokens."""
    prompted = [handler.model for handler in method.handlers.values() if isinstance(handler, PromptedModel)]
    for model in [method.model, *prompted]:
        if isinstance(model, ScriptedModel):
            model.counter, model.window_tokens = counter, WINDOW_TOKENS
    return method


def row_of(file: Path, method: Decomposed, every: int) -> Row:
    row, began = Row(f"{file.parent.name}/{file.stem}"), time.perf_counter()
    for case in list(cases(file))[::every]:
        outcome = method.task(case.question, passages=[case.passage] if case.passage else []).run()
        row.questions += 1
        row.exact += is_exact(outcome.value.answer, case)
        row.calls += outcome.spent.calls
        row.tokens_in += outcome.spent.tokens_in
        row.tokens_out += outcome.spent.tokens_out
        row.peak = max(row.peak, *(message.tokens_in for message in outcome.trace.messages))
    row.seconds = time.perf_counter() - began
    return row


def is_exact(answer: object, case: Case) -> bool:
    """All of the answer and nothing else; CommaQA-E's answers are sets."""
    return sorted(answer if isinstance(answer, list) else [answer]) == sorted(case.answer)


def table(rows: list[Row], tokens: str) -> str:
    head = f"{'data':38}{'exact':>10}{'calls':>8}{'in':>8}{'out':>7}{'peak':>7}{'ms':>7}    tokens of {tokens}"
    lines = [
        f"{row.data:38}{f'{row.exact}/{row.questions}':>10}{row.calls / row.questions:8.1f}"
        f"{row.tokens_in / row.questions:8.0f}{row.tokens_out / row.questions:7.0f}{row.peak:7}"
        f"{1000 * row.seconds / row.questions:7.0f}"
        for row in rows
    ]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main()
