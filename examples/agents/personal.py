"""A user's standing instructions and profile, as context and as a source of an answer that is checked.

python examples/agents/personal.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Limits, Sampling
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Model
from ctxkit.session import MemoryOriginals, ProfileMemory
from ctxkit_agents.personal.context import PersonalContext
from ctxkit_agents.personal.source_planner import Source, SourcePlanner, by_words
from ctxkit_agents.runtime.task import Outcome

TIMETABLE = [
    "The ferry to Borkum leaves at 9:15 and at 16:45.",
    "The ferry to Juist leaves with the tide.",
    "Bicycles cost 12 euros each way.",
]
ASKED = "Plan a trip to Borkum: when does the ferry leave?"


def timetable(asked: str, k: int) -> list[str]:
    """What an index's `search` would find."""
    return TIMETABLE[:k]


def main(model: Model) -> Outcome[Any]:
    """`SqliteOriginals` keeps what is remembered; `memory.refresh()` asks a model for the summary, offline."""
    ada = PersonalContext(ProfileMemory(MemoryOriginals(), model.counter), "ada")
    ada.memory.add("ada", "Lives in Emden.", "Takes her bicycle wherever she goes.")
    ada.memory.refresh()
    ada.instruct(
        "When I plan a trip, look for a ferry with room for a bicycle.",
        "For ferries, I prefer morning departures.",
        "When I ask for recipes, use metric units.",
    )
    for one in ada.instructions.select(ASKED).applies:
        print(f"instruction {one.number + 1} holds (hop {one.hop}): {one.text}")
    planner = SourcePlanner(
        model,
        [
            Source("TIMETABLE", timetable, "when ferries leave"),
            Source("PERSONA", ada.find, "what is known of the user"),
        ],
        k=2,
        refinements=1,
        relevance=by_words,  # without it the model scores what is found
        sampling=Sampling(max_tokens=20),
    )
    outcome = planner.task(ASKED, ada.parts(ASKED)).run(paid_by=Limits(tokens=3_000))
    print("answer:", outcome.text, " sources:", outcome.value.sources)
    for found in outcome.value.evidence:
        print(f"{found.relevance:.2f} relevant, {found.consistency:.2f} consistent, used: {found.used}  {found.text}")
    print("worse than asked for:", outcome.degraded or "nothing")
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    main(LocalModel.load())
