"""`ctxkit pack`: the passages for a question, at most so many tokens, on stdout."""

from __future__ import annotations

from ctxkit.cli.loading import open_counter, open_index
from ctxkit.cli.options import AsJson, BudgetTokens, Candidates, IndexFolder, ModelName, Question
from ctxkit.cli.output import STDOUT, emit_json, note, print_raw
from ctxkit.cli.settings import settings


def pack(
    question: Question,
    budget: BudgetTokens = None,
    index: IndexFolder = None,
    model: ModelName = None,
    candidates: Candidates = 40,
    as_json: AsJson = False,
) -> None:
    """Print the packed context for a question: pipe it into any LLM.

    The text on stdout takes at most --budget tokens of --model. Its sources are listed on stderr.
    """
    from ctxkit.pipeline import Pipeline

    with open_index(index) as opened:
        counter = open_counter(model).as_text()
        plan = Pipeline(opened, candidates=candidates).pack(
            question, counter=counter, budget_tokens=budget or settings().budget
        )
    if as_json:
        emit_json({"question": question, "text": plan.text, **plan.to_dict()})
        return
    ended = plan.text + "\n"  # the line end is a token too, where it still fits
    print_raw(ended if STDOUT.is_terminal or counter.count(ended) <= plan.budget.prompt_tokens else plan.text)
    for number, part in plan.passages.items():
        note(f"[{number}] {part.source}")
    note(f"{plan.prompt_tokens:,} of {plan.budget.prompt_tokens:,} tokens, {plan.counter_name}")
