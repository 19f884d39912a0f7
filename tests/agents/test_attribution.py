"""Attribution: exact where the influences are known, the same with and without shared prefixes, and cheaper with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctxkit import Budget, Part, Sampling, fit, passage, question, system, tool_call, tool_result, turn
from ctxkit.context import Limits
from ctxkit.errors import BudgetOverdrawn
from ctxkit.testing import ScriptedModel, tiny_counter, tiny_model
from ctxkit_agents.attribution import Attribution, LeaveOneOut, evidence, with_influence, without_parts
from ctxkit_agents.errors import AnswerMalformed, CapabilityMissing


class Known(ScriptedModel):
    """Every token of the answer gains so much log-probability for each of these words in the prompt."""

    capabilities = frozenset({"score"})

    def __init__(self, worth: Mapping[str, float], replies: Sequence[str] = ("At nine. By boat.",)) -> None:
        super().__init__(replies, counter=tiny_counter())
        self.worth = worth

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray:
        text = tiny_counter().tokenizer.decode(list(prompt_ids))
        gained = sum(worth for word, worth in self.worth.items() if word in text)
        return np.full(len(continuation_ids), -5.0 + gained, np.float32)


PARTS = [
    system("Help."),
    passage("The ferry leaves at nine.", id="ferry"),
    passage("Roses are red.", id="roses"),
    passage("It is a boat.", id="boat"),
    question("When and how?"),
]


def test_influences_are_exact_where_they_are_known() -> None:
    model = Known({"ferry": 3.0, "boat": 1.0, "red": -0.5})
    value = LeaveOneOut(model).task(PARTS).run().value
    assert [one.part_ids for one in value.influences] == [("ferry",), ("roses",), ("boat",)]
    assert [one.drop for one in value.influences] == pytest.approx([3.0, -0.5, 1.0])
    assert value.shares == pytest.approx({"ferry": 0.75, "roses": 0.0, "boat": 0.25})
    assert value.best is not None and value.best.part_ids == ("ferry",)
    assert "".join(source.sentence for source in value.sources) == value.text == "At nine. By boat."
    assert all(source.part_ids == ("ferry",) for source in value.sources)  # the boat has less than half of the best
    assert LeaveOneOut(model, cite_share=0.3).task(PARTS, answer="At nine.").run().value.sources[0].part_ids == (
        "ferry",
        "boat",
    )


def test_each_sentence_has_its_own_sources() -> None:
    class Two(Known):
        """The first half of the answer comes from the ferry, the rest from the boat."""

        def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray:
            text = tiny_counter().tokenizer.decode(list(prompt_ids))
            half = len(tiny_counter().as_text().locate("At nine.").ids)
            found = np.full(len(continuation_ids), -1.0, np.float32)
            found[:half] -= 2.0 * ("ferry" not in text)
            found[half:] -= 2.0 * ("boat" not in text)
            return found

    value = LeaveOneOut(Two({})).task(PARTS).run().value
    assert [(one.sentence, one.part_ids) for one in value.sources] == [
        ("At nine.", ("ferry",)),
        (" By boat.", ("boat",)),
    ]


def test_what_is_left_out_leaves_everything_else_as_it_was() -> None:
    plan = fit(PARTS, budget=Budget(900, 10), counter=tiny_counter())
    (first, second) = without_parts(plan.messages, {"roses"})
    assert first == plan.messages[0] and second.content == plan.messages[1].content.replace(
        "[2]\nRoses are red.\n\n", ""
    )
    assert "[3]\nIt is a boat." in second.content
    (_, rest) = without_parts(plan.messages, {"ferry"})
    assert rest.content.startswith("[2]\nRoses")
    assert without_parts(plan.messages, set()) == plan.messages
    assert [message.role for message in without_parts(plan.messages, {"system-1"})] == ["user"]


def test_tool_rounds_are_left_out_whole_and_the_task_stays() -> None:
    function = {"name": "look", "arguments": "{}"}
    parts = [
        turn("user", "Hello.", id="first"),
        turn("assistant", "Hi.", id="hi"),
        tool_call([{"id": "c", "type": "function", "function": function}], id="call"),
        tool_result("c", "It leaves at nine.", id="found"),
        turn("user", "When?", id="asked", pinned=True),
    ]
    plan = fit(parts, budget=Budget(900, 10), counter=tiny_counter())
    assert [[part.id for part in group.parts] for group in evidence(plan)] == [["first"], ["hi"], ["call", "found"]]
    left = without_parts(plan.messages, {"call", "found"})
    assert [message.content for message in left] == ["Hello.", "Hi.", "When?"]
    value = LeaveOneOut(Known({"at nine": 2.0})).task(parts, answer="Nine.").run().value
    assert value.shares == {"first": 0.0, "hi": 0.0, "call": 1.0, "found": 1.0}


def naive_drops(model: Any, parts: Sequence[Part], answer: str) -> list[float]:
    plan = fit(parts, budget=Budget(2048, 256), counter=model.counter)
    ids = model.counter.as_text().locate(answer).ids
    whole = model.score(plan.ids, ids).mean()
    drops = []
    for group in evidence(plan):
        rest = model.counter.render(without_parts(plan.messages, {part.id for part in group.parts})).ids
        drops.append(float(whole - model.score(rest, ids).mean()))
    return drops


def test_shared_prefixes_change_nothing_but_the_cost() -> None:
    model = tiny_model()
    answer = "the ferry at nine"
    shared = LeaveOneOut(model).task(PARTS, answer=answer).run()
    naive = LeaveOneOut(model, share_prefixes=False).task(PARTS, answer=answer).run()
    expected = naive_drops(model, PARTS, answer)
    assert [one.drop for one in shared.value.influences] == pytest.approx(expected, abs=1e-4)
    assert [one.drop for one in naive.value.influences] == pytest.approx(expected, abs=1e-4)
    assert any(abs(drop) > 1e-3 for drop in expected)
    assert shared.value.tokens_read < naive.value.tokens_read == naive.value.naive_tokens == shared.value.naive_tokens
    assert shared.value.saved > 0 == naive.value.saved
    assert shared.spent.tokens_in == shared.value.tokens_read == shared.paid.tokens_in
    assert naive.spent.tokens_in == naive.value.tokens_read


def test_what_is_read_is_what_the_session_reads() -> None:
    """The account says what `sync_ids` does: the tokens behind where two prompts part, and the answer."""
    model, read = tiny_model(), []
    session = model.session

    def watched(*args: Any, **kwargs: Any) -> Any:
        made = session(*args, **kwargs)
        sync = made.sync_ids
        made.sync_ids = lambda ids, **more: read.append(sync(ids, **more).read)
        return made

    model.session = watched  # type: ignore[method-assign]
    value = LeaveOneOut(model).task(PARTS, answer="nine").run().value
    answer = len(model.counter.as_text().locate("nine").ids)
    assert value.tokens_read == sum(read) + len(read) * (answer - 1) and len(read) == 4


def test_a_run_that_cannot_pay_for_a_score_stops_before_it() -> None:
    model = tiny_model()
    task = LeaveOneOut(model, Sampling(max_tokens=8)).task(PARTS, answer="nine")
    spent = task.run().spent
    assert task.run(paid_by=Limits(tokens_in=spent.tokens_in)).spent == spent
    short = Limits(tokens_in=spent.tokens_in - 1)
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=short)


def test_a_resumed_run_scores_nothing_twice_and_books_the_same(tmp_path: Path) -> None:
    model = tiny_model()
    task = LeaveOneOut(model).task(PARTS, answer="nine")
    first = task.run(checkpoint=tmp_path / "run")
    again = task.run(checkpoint=tmp_path / "run")
    assert again.value == first.value and again.spent == first.spent and again.paid.tokens_in == 0


def test_influence_becomes_relevance() -> None:
    value = LeaveOneOut(Known({"ferry": 3.0, "boat": 1.5})).task(PARTS).run().value
    relevances = {part.id: part.relevance for part in with_influence(PARTS, value)}
    assert relevances == pytest.approx({"system-1": 1, "ferry": 1, "roses": 0.05, "boat": 0.5, "question-1": 1})
    assert min(part.relevance for part in with_influence(PARTS, value, least=0.0)) == 0
    with pytest.raises(ValueError, match="least"):
        with_influence(PARTS, value, least=2.0)
    nothing = LeaveOneOut(Known({})).task(PARTS).run().value
    assert with_influence(PARTS, nothing) == tuple(PARTS) and nothing.best is not None
    assert all(source.part_ids == () for source in nothing.sources)


def test_without_evidence_there_is_no_influence() -> None:
    value = LeaveOneOut(Known({})).task([question("When?")]).run().value
    assert value.influences == () and value.best is None and value.shares == {}


def test_it_is_shown_as_text_and_as_html_and_goes_into_json() -> None:
    value: Attribution = LeaveOneOut(Known({"ferry": 1.0}, ["<b>Nine.</b>"])).task(PARTS).run().value
    assert "ferry" in str(value) and "100%" in str(value) and "<- ferry" in str(value)
    assert "&lt;b&gt;" in value._repr_html_() and "<b>Nine" not in value._repr_html_()
    assert value.to_dict()["influences"][0] == {"part_ids": ["ferry"], "drop": pytest.approx(1.0), "share": 1.0}


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(CapabilityMissing, match="score"):
        LeaveOneOut(ScriptedModel(["a"])).task(PARTS).run()
    with pytest.raises(AnswerMalformed, match="empty"):
        LeaveOneOut(Known({}, [""])).task(PARTS).run()
    for wrong in ({"cite_from": -1.0}, {"cite_share": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LeaveOneOut(Known({}), **wrong)  # type: ignore[arg-type]
