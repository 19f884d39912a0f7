"""`ctxkit ask`: an answer from the index, streamed, with its sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from ctxkit.cli.loading import open_index, open_model
from ctxkit.cli.options import (
    AsJson,
    BaseUrl,
    BudgetTokens,
    Candidates,
    IndexFolder,
    ModelName,
    Question,
    ReserveTokens,
    limits,
)
from ctxkit.cli.output import emit_json, note, print_raw


def ask(
    question: Question,
    budget: BudgetTokens = None,
    reserve: ReserveTokens = None,
    index: IndexFolder = None,
    model: ModelName = None,
    base_url: BaseUrl = None,
    candidates: Candidates = 40,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed for temperature above 0.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question from the index. [1] marks what passage 1 supports; sources and tokens follow on stderr."""
    from ctxkit.pipeline import Pipeline
    from ctxkit.pipeline.prompts import SAMPLING

    within = limits(budget, reserve)
    with open_index(index) as opened:
        answering = open_model(model, base_url, within.window_tokens)
        if answering.window_tokens < within.window_tokens:
            note(f"the budget is cut to the window of {answering.name}: {answering.window_tokens:,} tokens")
            within = limits(answering.window_tokens, reserve)
        sampling = replace(SAMPLING, temperature=temperature, seed=seed, max_tokens=within.reserve_tokens)
        stream = Pipeline(opened, answering, candidates=candidates).ask(question, budget=within, sampling=sampling)
        for piece in stream:
            if not as_json:
                print_raw(piece)
        answer = stream.answer
    if as_json:
        emit_json({"question": question, **answer.to_dict()})
        return
    print_raw("\n")
    for number, part in answer.sources.items():
        untitled = part.source.startswith(f"{part.title}:")
        note(f"[{number}] {part.source}" + ("" if untitled else f"  {part.title}"))
    kept = f"{len(answer.plan.passages)} of {sum(d.part.kind == 'passage' for d in answer.plan.decisions)} passages"
    note(
        f"{answer.reply.prompt_tokens:,} prompt + {answer.reply.completion_tokens:,} answer tokens of "
        f"{within.window_tokens:,}; {kept} in the prompt, {answer.reply.model}"
    )
