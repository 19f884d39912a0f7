"""`ctxkit plan`: why each passage is in, reduced or out."""

from __future__ import annotations

from ctxkit.cli.loading import open_counter, open_index
from ctxkit.cli.options import AsJson, BudgetTokens, Candidates, IndexFolder, ModelName, Question, ReserveTokens
from ctxkit.cli.output import STDOUT, emit_json
from ctxkit.cli.settings import Settings


def plan(
    question: Question,
    budget: BudgetTokens = None,
    reserve: ReserveTokens = None,
    index: IndexFolder = None,
    model: ModelName = None,
    candidates: Candidates = 40,
    as_json: AsJson = False,
) -> None:
    """Show the prompt that `ask` would send: what each passage costs, and why it is in or out."""
    from ctxkit.context import Budget
    from ctxkit.pipeline import Pipeline

    settings = Settings()
    with open_index(index) as opened:
        made = Pipeline(opened, candidates=candidates).plan(
            question,
            counter=open_counter(model),
            budget=Budget(budget or settings.budget, reserve or settings.reserve),
        )
    if as_json:
        emit_json({"question": question, **made.to_dict()})
    else:
        STDOUT.print(made)
