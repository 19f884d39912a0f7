"""llmslim: `plan_context`, its knapsack planner, with the last user message as the query.

Its counter is cl100k and cannot be changed. The safety margin is its default of 256 tokens, or a tenth of the budget
where that is less; nothing is reserved for the answer, as for the other peers. What it plans is `final_messages`.
"""

from __future__ import annotations

import harness
from llmslim.planning import ContextPlan, PlanStatus, plan_context


def planner(messages: list[harness.Message], budget: int) -> tuple[harness.Call, harness.Back]:
    query = next((one["content"] for one in reversed(messages) if one["role"] == "user"), "")

    def call() -> ContextPlan:
        return plan_context(
            messages=messages,
            query=query,
            max_input_tokens=budget,
            reserve_output_tokens=0,
            safety_margin_tokens=min(256, budget // 10),
        )

    return call, final_messages


def final_messages(plan: ContextPlan) -> list[harness.Message]:
    if plan.status is PlanStatus.INFEASIBLE:
        raise harness.Refused("infeasible plan")
    return [dict(message) for message in plan.final_messages]


if __name__ == "__main__":
    harness.main({"planner": planner})
