"""Pipeline: what is packed fits, what is asked is streamed, and only what was cited is a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxkit.context import Budget
from ctxkit.errors import BudgetInfeasible, ModelError, StoreError
from ctxkit.models import LocalModel
from ctxkit.pipeline import Pipeline
from ctxkit.protocols import Sampling
from ctxkit.retrieval import Index
from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_counter, tiny_model

FACTS = {
    "penguins": "The Zorblax penguin colony has 4321 birds.",
    "trains": "The Velmora railway opened in 1887.",
    "moss": "Purple moss grows on Quill Island.",
}
ROOM = Budget(400, 100)


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return tiny_model()


@pytest.fixture
def facts(write: Callable[[str, str], Path], run: Callable[..., Any], index: Index) -> Index:
    """An index of three facts, and ten files that say little."""
    for name, text in FACTS.items():
        write(f"docs/{name}.txt", text)
    for n in range(10):
        write(f"docs/other{n}.txt", f"This is filler number {n}: nothing of note is said about topic {n} here.")
    run("docs")
    return index


@pytest.mark.parametrize("budget_tokens", [30, 60, 100, 150, 1000])
def test_the_packed_text_takes_at_most_the_budget(facts: Index, budget_tokens: int) -> None:
    counter = tiny_counter().as_text()
    try:
        plan = Pipeline(facts).pack("zorblax penguin birds", counter=counter, budget_tokens=budget_tokens)
    except BudgetInfeasible as error:
        assert error.minimum > budget_tokens
        return
    assert counter.count(plan.text) == plan.prompt_tokens <= budget_tokens
    assert FACTS["penguins"] in plan.text


@pytest.mark.parametrize("window_tokens", [210, 260, 400, 2000])
def test_the_plan_fits_beside_the_reserve(facts: Index, window_tokens: int) -> None:
    counter, budget = tiny_counter(), Budget(window_tokens, 50)
    plan = Pipeline(facts).plan("Which moss grows there?", counter=counter, budget=budget)
    assert counter.render(plan.messages).tokens == plan.prompt_tokens <= window_tokens - 50
    assert sum(tokens for _, tokens in plan.charges()) == plan.prompt_tokens
    assert "Which moss grows there?" in plan.messages[-1].content


def test_a_budget_below_the_question_is_refused(facts: Index) -> None:
    with pytest.raises(BudgetInfeasible) as caught:
        Pipeline(facts).plan("Which moss grows there?", counter=tiny_counter(), budget=Budget(60, 10))
    assert "question-1" in caught.value.by_part
    again = Budget(caught.value.minimum, 10)
    assert Pipeline(facts).plan("Which moss grows there?", counter=tiny_counter(), budget=again).prompt_tokens > 50


def test_no_more_candidates_are_offered_than_asked_for(facts: Index) -> None:
    plan = Pipeline(facts, candidates=2).pack("moss", counter=WhitespaceCounter(), budget_tokens=1000)
    assert len(plan.decisions) == len(plan.passages) == 2


def test_an_empty_index_still_asks_the_question(index: Index, piece_model: Any) -> None:
    model = piece_model(["They do not say."])
    answer = Pipeline(index, model).ask("What?", budget=ROOM).answer
    assert (answer.text, answer.sources, dict(answer.plan.passages)) == ("They do not say.", {}, {})


def test_an_empty_index_has_nothing_to_pack_and_says_so(index: Index) -> None:
    with pytest.raises(StoreError, match="holds no passages.*ctxkit index"):
        Pipeline(index).pack("What?", counter=WhitespaceCounter(), budget_tokens=10)


def test_without_a_model_asking_says_what_to_pass(facts: Index) -> None:
    with pytest.raises(ValueError, match=r"Pipeline\(index, model\)"):
        Pipeline(facts).ask("What?", budget=ROOM)


def test_the_answer_comes_as_the_model_writes_it(facts: Index, piece_model: Any) -> None:
    model = piece_model(["The Velmora ", "railway opened ", "in 1887. ", "Nothing ", "else."])
    stream = Pipeline(facts, model).ask("When did the railway open?", budget=ROOM)
    assert model.made == []  # nothing runs before it is read
    assert (next(stream), len(model.made)) == ("The Velmora ", 1)
    assert (next(stream), len(model.made)) == ("railway opened ", 2)
    marked = next(stream)
    assert marked.startswith("in 1887. [") and len(model.made) == 3  # the mark comes with the piece that ends it
    rest = "".join(stream)
    assert rest == " Nothing else."
    assert stream.answer.cited_text == "The Velmora railway opened " + marked + rest


def test_only_what_was_cited_is_a_source(facts: Index) -> None:
    said = "The Zorblax colony has 4321 birds. Bananas are yellow. Purple moss grows on Quill Island."
    answer = Pipeline(facts, ScriptedModel([said]), least_share=0).ask("birds and moss?", budget=ROOM).answer
    assert len(answer.plan.passages) > 2
    assert {part.source for part in answer.sources.values()} == {"docs/penguins.txt:1", "docs/moss.txt:1"}
    assert [sentence for sentence, _ in answer.citations] == [
        "The Zorblax colony has 4321 birds.",
        "Purple moss grows on Quill Island.",
    ]
    for number in answer.sources:
        assert f"[{number}]" in answer.cited_text
    assert answer.text == said
    written = answer.to_dict()
    assert [one["number"] for one in written["sources"]] == list(answer.sources)
    assert written["answer"] == said


def test_code_in_an_answer_gets_no_marks(facts: Index) -> None:
    said = (
        "Purple moss grows on Quill Island.\n```\nPurple moss grows on Quill Island.\n```\nThe Zorblax birds are 4321."
    )
    answer = Pipeline(facts, ScriptedModel([said]), least_share=0).ask("moss?", budget=ROOM).answer
    first, code, last = answer.cited_text.split("```")
    assert "[" in first and "[" in last
    assert code == "\nPurple moss grows on Quill Island.\n"


def test_passages_may_be_put_in_any_order(facts: Index) -> None:
    def first(**options: Any) -> str:
        made = Pipeline(facts, **options).plan("moss on Quill Island", counter=WhitespaceCounter(), budget=ROOM)
        return made.passages[1].content

    assert first(order=list) == FACTS["moss"] != first(order=lambda parts: parts[::-1])


def test_the_answer_may_be_read_before_any_piece(facts: Index, piece_model: Any) -> None:
    model = piece_model(["One ", "two ", "three."])
    stream = Pipeline(facts, model).ask("What?", budget=ROOM)
    assert stream.answer.text == "One two three."
    assert model.ended
    assert list(stream) == []
    assert stream.answer is stream.answer


def test_a_reader_may_stop_in_the_middle_and_read_the_answer(facts: Index, piece_model: Any) -> None:
    model = piece_model(["Purple moss ", "grows on ", "Quill Island."])
    stream = Pipeline(facts, model, least_share=0).ask("?", budget=ROOM)
    for _ in stream:
        break
    answer = stream.answer
    assert answer.text == "Purple moss grows on Quill Island."
    assert [sentence for sentence, _ in answer.citations] == [answer.text]


def test_closing_stops_the_model_and_keeps_what_came(facts: Index, piece_model: Any) -> None:
    model = piece_model(["One ", "two ", "three."])
    stream = Pipeline(facts, model).ask("What?", budget=ROOM)
    next(stream)
    stream.close()
    assert (model.made, model.ended) == (["One "], True)
    assert (stream.answer.text, stream.answer.reply.finish_reason) == ("One ", "cancelled")
    assert model.made == ["One "]


def test_a_dropped_stream_stops_the_model_at_once(facts: Index, piece_model: Any) -> None:
    model = piece_model(["One ", "two ", "three."])
    stream = Pipeline(facts, model).ask("What?", budget=ROOM)
    next(stream)
    del stream
    assert (model.made, model.ended) == (["One "], True)


def test_a_failure_of_the_model_is_never_an_answer(facts: Index, piece_model: Any) -> None:
    stream = Pipeline(facts, piece_model(["One "], fails=ModelError("gone"))).ask("What?", budget=ROOM)
    with pytest.raises(ModelError, match="gone"):
        list(stream)
    with pytest.raises(ModelError):
        _ = stream.answer


@pytest.mark.parametrize(
    ("reserve_tokens", "max_tokens", "expected"), [(3, 256, 3), (50, 5, 5), (0, 5, 5), (50, 256, 50)]
)
def test_the_answer_takes_at_most_the_reserve(
    facts: Index, piece_model: Any, reserve_tokens: int, max_tokens: int, expected: int
) -> None:
    model = piece_model(["x"])
    Pipeline(facts, model).ask("?", budget=Budget(400, reserve_tokens), sampling=Sampling(max_tokens, temperature=0.5))
    assert (model.asked.max_tokens, model.asked.temperature) == (expected, 0.5)


def test_a_scripted_answer_is_cut_at_the_reserve(facts: Index) -> None:
    model = ScriptedModel(["one two three four five six"])
    answer = Pipeline(facts, model).ask("?", budget=Budget(200, 4)).answer
    assert (answer.text.split(), answer.reply.finish_reason) == (["one", "two", "three", "four"], "length")


def test_a_local_model_is_fed_the_plans_own_ids(facts: Index, tiny: LocalModel) -> None:
    pipeline = Pipeline(facts, tiny)
    stream = pipeline.ask("Which moss?", budget=Budget(500, 12))
    pieces = list(stream)
    answer = stream.answer
    assert answer.plan.ids == tiny.prompt_ids(answer.plan)
    assert answer.reply.prompt_tokens == answer.plan.prompt_tokens == len(answer.plan.ids or ()) <= 488
    assert answer.reply.completion_tokens <= 12
    assert "".join(pieces) == answer.cited_text
    assert pipeline.ask("Which moss?", budget=Budget(500, 12)).answer.text == answer.text


def test_a_chat_prompt_leaves_out_what_hardly_matters_and_says_so(facts: Index) -> None:
    asked, budget, counter = "How many penguin birds are in the Zorblax colony?", ROOM, WhitespaceCounter()
    picky = Pipeline(facts, least_share=0.5).plan(asked, counter=counter, budget=budget)
    filled = Pipeline(facts, least_share=0).plan(asked, counter=counter, budget=budget)
    assert len(picky.passages) == 2 < len(filled.passages), "the second best stays, whatever it is worth"
    left_out = [decision for decision in picky.dropped if decision.part.kind == "passage"]
    assert all("less than the least asked for" in decision.reason for decision in left_out)
