"""`ctxkit pack`: the passages for a question, at most so many tokens, on stdout."""

from __future__ import annotations

from ctxkit.cli.loading import open_counter, open_index
from ctxkit.cli.options import AsJson, BudgetTokens, Candidates, IndexFolder, ModelName, Question
from ctxkit.cli.output import emit_json, note, print_raw
from ctxkit.cli.settings import Settings


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
            question, counter=counter, budget_tokens=budget or Settings().budget
        )
    if as_json:
        emit_json({"question": question, "text": plan.text, **plan.to_dict()})
        return
    print_raw(plan.text + "\n")
    for number, part in plan.passages.items():
        note(f"[{number}] {part.source}")
    note(f"{plan.prompt_tokens:,} of {plan.budget.prompt_tokens:,} tokens, {plan.counter_name}")
