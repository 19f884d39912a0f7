"""SourcePlanner: the plan, the evidence, the answer and its refinement."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxkit
from ctxkit.context import Limits, Run
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, ModelError
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel
from ctxkit_agents.errors import AnswerMalformed
from ctxkit_agents.personal.source_planner import NULL, Source, SourcePlanner

ASKED = "Where does the Rhine rise?"
DOCUMENTS = ["The Rhine rises in the Alps.", "The Rhine carries ships.", "Cologne has a cathedral."]
PERSONA = ["Ada lives in Cologne.", "Ada likes rivers."]


def finding(texts: Sequence[str]) -> Callable[[str, int], list[str]]:
    return lambda asked, k: list(texts[:k])


SOURCES = (
    Source("DOCUMENTS", finding(DOCUMENTS), "facts about rivers and towns"),
    Source("PERSONA", finding(PERSONA), "what is known of the user"),
)


class Scripted(ScriptedModel):
    """Answers each kind of request by its own function, and keeps what it was asked, by kind."""

    def __init__(
        self, plan: Any = '{"sources": ["DOCUMENTS"]}', rate: Any = None, answer: Any = None, **kw: Any
    ) -> None:
        self.asked: dict[str, list[Request]] = {"plan": [], "rate": [], "answer": []}
        self._kinds = {"plan": plan, "rate": rate or rating(), "answer": answer or "It rises in the Alps."}
        super().__init__(self._reply, **kw)

    def _reply(self, request: Request) -> Any:
        text = "\n".join(message.content for message in request.messages)
        kind = "plan" if "Choose the sources" in text else "rate" if "How relevant" in text else "answer"
        self.asked[kind].append(request)
        said = self._kinds[kind]
        return said(request) if callable(said) else said


def rating(scores: dict[str, float] | None = None) -> Callable[[Request], str]:
    """Rates the text that says "rises" high, and everything else low, unless told otherwise."""

    def rate(request: Request) -> str:
        listed = re.findall(r"^\[(\d+)\] (.*)$", request.messages[-1].content, re.MULTILINE)
        known = scores or {}
        return "\n".join(f"{n}: {known.get(text, 0.9 if 'rises' in text else 0.1)}" for n, text in listed)

    return rate


def planner(model: ScriptedModel, **settings: Any) -> SourcePlanner:
    return SourcePlanner(model, **{"sources": SOURCES, "sampling": Sampling(max_tokens=20), **settings})


def passages(request: Request) -> list[str]:
    return re.findall(r"^\[\d+\] .*\n(.*)$", request.messages[-1].content, re.MULTILINE)


# --- plan, evidence, answer -------------------------------------------------------------------------------------------


def test_an_answer_rests_on_the_evidence_of_the_sources_that_were_planned() -> None:
    model = Scripted()
    outcome = planner(model).task(ASKED).run()
    result = outcome.value
    assert (outcome.text, result.sources, result.refinements) == ("It rises in the Alps.", ("DOCUMENTS",), 0)
    assert [(one.text, one.relevance, one.used) for one in result.evidence][0] == (DOCUMENTS[0], 0.9, True)
    assert [one.used for one in result.evidence] == [True, False, False] and result.consistency == 1.0
    assert passages(model.asked["answer"][0]) == [DOCUMENTS[0]] and outcome.degraded == ()


def test_null_asks_no_source() -> None:
    model = Scripted(plan=json.dumps({"sources": [NULL]}), answer="4")
    outcome = planner(model).task("2 + 2?").run()
    assert (outcome.text, outcome.value.sources, outcome.value.evidence) == ("4", (), ()) and outcome.degraded == ()
    assert outcome.spent.calls == 2


def test_several_sources_are_asked_and_ranked_together() -> None:
    scores = {PERSONA[0]: 0.95, DOCUMENTS[2]: 0.5}
    model = Scripted(plan='{"sources": ["persona", "DOCUMENTS"]}', rate=rating(scores), answer="In Cologne Ada lives.")
    result = planner(model).task("Where does Ada live?").run().value
    assert result.sources == ("DOCUMENTS", "PERSONA")
    assert [one.text for one in result.evidence if one.used] == [PERSONA[0], DOCUMENTS[0], DOCUMENTS[2]]
    assert [one.id for one in result.evidence][:2] == ["PERSONA/1", "DOCUMENTS/1"]


def test_context_stands_before_the_passages_and_indexes_are_sources() -> None:
    class Index:
        def search(self, query: str, k: int = 10, **options: Any) -> list[ctxkit.Part]:
            return [ctxkit.passage("The Rhine rises at Tomasee.", title="Rhine", source="rhine.md:3")]

    model = Scripted(answer="at Tomasee")
    source = Source("DOCUMENTS", Index())  # type: ignore[arg-type]
    result = planner(model, sources=[source]).task(ASKED, [ctxkit.instruction("Be brief.")]).run().value
    assert "Be brief." in model.asked["answer"][0].messages[0].content
    assert (result.evidence[0].source, result.evidence[0].title) == ("rhine.md:3", "Rhine")


def test_relevance_can_be_a_function_and_is_kept_in_its_range() -> None:
    model = Scripted()
    result = planner(model, relevance=lambda texts, asked: [7.0, -1.0, 0.5]).task(ASKED).run().value
    assert [one.relevance for one in result.evidence] == [1.0, 0.5, 0.0] and model.asked["rate"] == []


# --- refinement -------------------------------------------------------------------------------------------------------


def test_an_answer_that_the_evidence_does_not_support_is_made_again_without_the_weak_evidence() -> None:
    scores = {DOCUMENTS[0]: 0.8, DOCUMENTS[1]: 0.4, DOCUMENTS[2]: 0.4}

    def answer(request: Request) -> str:
        return "In the Alps." if len(passages(request)) == 1 else "Near a big harbour somewhere."

    model = Scripted(rate=rating(scores), answer=answer)
    result = planner(model, k=2, least_relevance=0.35).task(ASKED).run().value
    assert [len(passages(request)) for request in model.asked["answer"]] == [2, 2, 1]
    assert (result.text, result.refinements, result.consistency) == ("In the Alps.", 2, 1.0)
    assert [one.text for one in result.evidence if one.used] == [DOCUMENTS[0]]


def test_refinement_is_bounded_and_the_most_consistent_answer_wins() -> None:
    said = iter(["Alps and harbours and much more.", "Nobody knows it.", "Something else again."])
    scores = dict.fromkeys(DOCUMENTS, 0.9)
    model = Scripted(rate=rating(scores), answer=lambda _: next(said))
    result = planner(model, refinements=2, least_consistency=0.9).task(ASKED).run().value
    assert len(model.asked["answer"]) == 3 and result.refinements == 2
    assert result.text == "Alps and harbours and much more."


def test_without_refinements_the_first_answer_stands() -> None:
    model = Scripted(answer="Nobody knows.")
    result = planner(model, refinements=0).task(ASKED).run().value
    assert (result.text, result.refinements, result.consistency) == ("Nobody knows.", 0, 0.0)


def test_an_empty_answer_is_made_again_and_only_empty_ones_are_malformed() -> None:
    said = iter([""])
    model = Scripted(rate=rating(dict.fromkeys(DOCUMENTS, 0.9)), answer=lambda _: next(said, "In the Alps."))
    assert planner(model).task(ASKED).run().text == "In the Alps."
    with pytest.raises(AnswerMalformed, match="answered nothing"):
        planner(Scripted(rate=rating(dict.fromkeys(DOCUMENTS, 0.9)), answer=lambda _: " ")).task(ASKED).run()


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["", "DOCUMENTS", '{"sources": ["NEWS"]}', '{"source": "DOCUMENTS"}'])
def test_a_plan_that_cannot_be_read_asks_every_source(said: str) -> None:
    model = Scripted(plan=said)
    outcome = planner(model).task(ASKED).run()
    assert outcome.value.sources == ("DOCUMENTS", "PERSONA") and "every source is asked" in outcome.degraded[0]
    assert len(model.asked["plan"]) == 2  # it was reminded once


def test_a_source_that_fails_is_left_out() -> None:
    def broken(asked: str, k: int) -> list[str]:
        raise OSError("no disk")

    sources = [Source("PERSONA", broken), SOURCES[0]]
    outcome = planner(Scripted(plan='{"sources": ["PERSONA", "DOCUMENTS"]}'), sources=sources).task(ASKED).run()
    assert outcome.text == "It rises in the Alps." and "OSError: no disk" in outcome.degraded[0]


@pytest.mark.parametrize("found", [[], ["  "]])
def test_nothing_found_is_an_answer_without_evidence_and_said(found: list[str]) -> None:
    outcome = planner(Scripted(), sources=[Source("DOCUMENTS", finding(found))]).task(ASKED).run()
    assert outcome.value.evidence == () and "no evidence" in outcome.degraded[0]


@pytest.mark.parametrize("said", ["", "All of them.", "1: high\n2: 7\n3: -1"])
def test_texts_that_the_model_does_not_score_are_scored_by_words(said: str) -> None:
    outcome = planner(Scripted(rate=lambda _: said)).task(ASKED).run()
    assert outcome.value.evidence[0].text == DOCUMENTS[0] and outcome.value.evidence[0].relevance == 1.0
    assert any("scored by words" in one for one in outcome.degraded)


def test_a_model_that_fails_is_an_error() -> None:
    with pytest.raises(ModelError, match="down"):
        planner(Scripted(answer=lambda _: ModelError("down"))).task(ASKED).run()


def test_a_refinement_that_cannot_be_paid_for_is_not_made() -> None:
    model = Scripted(answer="Nobody knows it.", rate=rating(dict.fromkeys(DOCUMENTS, 0.9)))
    outcome = planner(model, least_consistency=0.9).task(ASKED).run(paid_by=Limits(calls=3))
    assert outcome.value.refinements == 0 and "not refined further" in outcome.degraded[0]


def test_a_run_that_cannot_pay_for_the_first_answer_is_refused() -> None:
    with pytest.raises(BudgetOverdrawn):
        planner(Scripted()).task(ASKED).run(paid_by=Limits(calls=1))


@settings(max_examples=40)
@given(st.integers(0, 400), st.integers(30, 200))
def test_neither_the_run_nor_the_window_is_ever_exceeded(tokens: int, window: int) -> None:
    run = Run(Limits(tokens=tokens))
    model = Scripted(window_tokens=window)  # raises PromptError where a prompt is over it
    try:
        outcome = planner(model).task(ASKED).run(paid_by=run)
        assert outcome.text
    except (BudgetOverdrawn, BudgetInfeasible):
        pass
    assert run.spent.tokens <= tokens and run.report().overdrawn.tokens == 0


def test_a_run_goes_on_where_it_died_and_asks_no_source_twice(tmp_path: Path) -> None:
    asked: list[str] = []

    def find(query: str, k: int) -> list[str]:
        asked.append(query)
        return DOCUMENTS

    sources = [Source("DOCUMENTS", find)]
    with pytest.raises(ModelError):
        planner(Scripted(answer=lambda _: ModelError("down")), sources=sources).task(ASKED).run(
            checkpoint=tmp_path / "run.db"
        )
    outcome = planner(Scripted(), sources=sources).task(ASKED).run(checkpoint=tmp_path / "run.db")
    assert outcome.paid.calls == 1 and asked == [ASKED]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sources": []},
        {"sources": [SOURCES[0], SOURCES[0]]},
        {"k": 0},
        {"refinements": -1},
        {"least_relevance": 2},
        {"least_consistency": -0.1},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        planner(Scripted(), **wrong)


def test_a_source_has_a_name_and_a_question_has_words() -> None:
    with pytest.raises(ValueError, match="name"):
        Source("null", finding([]))
    with pytest.raises(ValueError, match="empty"):
        planner(Scripted()).task(" ")
