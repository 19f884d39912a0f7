"""ctxkit: `fit_messages` with its counter for OpenAI's models. Run by the project's interpreter.

That counter charges the role of each message and some tokens to spare for calls, which the judge does not.

The counter starts every case without a memory of texts that it counted before. CTXKIT_RANKS names the o200k rank file.
"""

from __future__ import annotations

import os

import harness

from ctxkit import Budget, BudgetInfeasible, Plan, fit_messages
from ctxkit.tokens import OpenAIChatCounter


def fit(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
    counter = OpenAIChatCounter.from_ranks(os.environ["CTXKIT_RANKS"], pattern="o200k")

    def call() -> Plan:
        try:
            return fit_messages(
                messages, budget=Budget(window_tokens=budget, reserve_tokens=0), counter=counter, tools=()
            )
        except BudgetInfeasible as refusal:
            raise harness.Refused(str(refusal)) from refusal

    return call, lambda plan: plan.to_messages()


if __name__ == "__main__":
    harness.main({"fit": fit})
