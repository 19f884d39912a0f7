"""ChainOfAgents: exact orchestration with right and wrong models, budgets that hold to the token, and every fault."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.context import Limits, Run, turn
from ctxkit.errors import BudgetInfeasible, BudgetOverdrawn, ModelError
from ctxkit.models.requests import Request
from ctxkit.testing import ScriptedModel, WhitespaceCounter, tiny_model
from ctxkit.testing.scripted import Line
from ctxkit_agents.chain_of_agents import ChainOfAgents, ExtractiveWorker
from ctxkit_agents.errors import AnswerMalformed, CallTimeout, WorkersFailed

COUNTER = WhitespaceCounter()
FACT = re.compile(r"\b[A-Z]=\d+")
QUESTION = "What is the sum of A, B and the others?"
SOURCE = " ".join(
    f"Nothing much happens on day {i}, as usual." + (f" {chr(65 + i // 40)}={i}." if i % 40 == 7 else "")
    for i in range(400)
)
SUM = str(sum(i for i in range(400) if i % 40 == 7))
SMALL = {"unit_tokens": 100, "quote_tokens": 40, "evidence_tokens": 200, "answer_tokens": 20}


def told(request: Request) -> str:
    return request.messages[-1].content


def is_reader(request: Request) -> bool:
    return "This piece:" in told(request)


def is_merger(request: Request) -> bool:
    return told(request).endswith("Merged notes:")


def piece(request: Request) -> str:
    return told(request).split("This piece:\n")[1].split("\n\nQuestion:")[0]


def right(request: Request) -> str:
    """Copies facts into the unit and quotes those of its piece; as the manager, adds them up."""
    everything = " ".join(message.content for message in request.messages)
    if is_reader(request):
        quotes = "".join(f'\nEVIDENCE: "{fact}."' for fact in FACT.findall(piece(request)))
        return "Facts: " + " ".join(FACT.findall(told(request))) + quotes
    if is_merger(request):
        return " ".join(FACT.findall(told(request)))
    facts = dict(fact.split("=") for fact in FACT.findall(everything))
    return str(sum(map(int, facts.values())))


def failing(at: Callable[[int], bool], fault: Line, then: Callable[[Request], str] = right) -> ScriptedModel:
    """The right model, but for the workers whose number in the order of the calls `at` names."""
    readers: list[Request] = []

    def answer(request: Request) -> Line:
        if is_reader(request):
            readers.append(request)
            if at(len(readers)):
                return fault
        return then(request)

    return ScriptedModel(answer, window_tokens=700)


# --- the right answer, in every order ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["forward", "backward", "tree", "vote"])
def test_facts_from_every_chunk_reach_the_manager(order: str) -> None:
    model = ScriptedModel(right, window_tokens=700)
    outcome = ChainOfAgents(model, order=order, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    value = outcome.value
    assert outcome.text == SUM and not outcome.degraded and not value.unread
    assert "".join(SOURCE[chunk.start : chunk.end] for chunk in value.chunks) == SOURCE
    assert value.workers == len(value.chunks) >= 8
    assert [one.text for one in value.evidence] == [f"{fact}." for fact in FACT.findall(SOURCE)]
    assert all(SOURCE[one.start : one.end] == one.text for one in value.evidence)
    assert value.votes == ((SUM,) * 3 if order == "vote" else ())
    sizes = [chunk.tokens for chunk in value.chunks]
    assert max(sizes) - min(sizes) <= 9  # a sentence with its fact


def test_backward_reads_the_last_chunk_first_and_relevance_the_best() -> None:
    words = "The harbour budget is 300 crowns."
    source = " ".join(f"Day {i} was fair and calm." for i in range(200)) + words
    source += " ".join(f" Day {i} was fair and calm." for i in range(100))

    def first_piece(**settings: object) -> str:
        model = ScriptedModel(lambda request: "notes", window_tokens=600)
        method = ChainOfAgents(model, **SMALL, **settings)  # type: ignore[arg-type]
        method.task(source, question="What is the harbour budget?").run()
        return piece(model.prompts[0])

    assert first_piece().startswith("Day 0 ")
    assert first_piece(order="backward").endswith("Day 99 was fair and calm.")
    assert words in first_piece(by_relevance=True)
    assert words not in first_piece(by_relevance=True, order="backward")


def test_without_a_question_the_source_is_summarised() -> None:
    model = ScriptedModel(lambda request: "A calm year.", window_tokens=700)
    outcome = ChainOfAgents(model, **SMALL).task(SOURCE).run()  # type: ignore[arg-type]
    assert outcome.text == "A calm year."
    assert all("Question:" not in told(request) for request in model.prompts)
    assert "summary" in model.prompts[0].messages[0].content and "Write the summary." in told(model.prompts[-1])


def test_evidence_of_turns_names_the_turn_and_the_place_in_it() -> None:
    turns = [turn("user", f"Well, {chr(65 + i)}={i}. So it is.", id=f"t{i}", name="Ann") for i in range(20)]
    model = ScriptedModel(right, window_tokens=420)
    value = ChainOfAgents(model, **SMALL).task(turns, question=QUESTION).run().value  # type: ignore[arg-type]
    assert value.text == str(sum(range(20))) and len(value.chunks) > 1
    assert [(one.source, one.start, one.text) for one in value.evidence][:2] == [("t0", 6, "A=0."), ("t1", 6, "B=1.")]
    assert [span.source for chunk in value.chunks for span in chunk.spans] == [f"t{i}" for i in range(20)]
    assert "Ann: Well, A=0." in piece(model.prompts[0])


def test_letters_are_concatenated_over_a_chain_as_decomp_has_it(data_folder: Path) -> None:
    rows = json.loads((data_folder / "decomp" / "letter_cat" / "n5_eg100_pos2_space.json").read_text())
    pairs = [pair for row in rows.values() for pair in row["qa_pairs"]][:10]
    noted = re.compile(r"letter (\d+) is (\w)")

    def letters(request: Request) -> str:
        if is_reader(request):
            words = re.findall(r"Word (\d+) of the name is (\w+)\.", piece(request))
            found = [*noted.findall(told(request)), *((number, word[2]) for number, word in words)]
            return "; ".join(f"letter {number} is {letter}" for number, letter in found) or "nothing yet"
        found = dict(noted.findall(" ".join(message.content for message in request.messages)))
        return " ".join(found[number] for number in sorted(found, key=int))

    for pair in pairs:
        told_ = (
            f"Word {i} of the name is {word}. " + "It was a calm day. " * 30 for i, word in enumerate(pair["words"])
        )
        model = ScriptedModel(letters, window_tokens=400)
        outcome = ChainOfAgents(model, **SMALL).task("".join(told_), question=pair["question"]).run()  # type: ignore[arg-type]
        assert outcome.value.workers > 3 and [outcome.text] == pair["answer"]["spans"]


# --- windows and accounts ---------------------------------------------------------------------------------------------


def babbling(request: Request) -> str:
    """As much as it is allowed, and a part of what it read."""
    return " ".join(f"note{len(told(request)) + i}" for i in range(400)) + '\nEVIDENCE: "a b"'


@settings(max_examples=60)
@given(
    st.text(alphabet=st.sampled_from("ab. \n!é日"), min_size=1, max_size=1500).filter(str.strip),
    st.integers(150, 400),
    st.integers(1, 60),
    st.integers(0, 20),
    st.sampled_from(["forward", "backward", "tree", "vote"]),
    st.booleans(),
)
def test_no_prompt_exceeds_its_window_and_no_run_its_limit(
    text: str, window: int, unit: int, quotes: int, order: str, writes: bool
) -> None:
    seen: list[int] = []

    def answer(request: Request) -> str:
        seen.append(COUNTER.render(request.messages).tokens)
        return babbling(request) if writes else "a b"

    model = ScriptedModel(answer, window_tokens=window + 500)
    method = ChainOfAgents(
        model,
        worker_window_tokens=window,
        unit_tokens=unit,
        quote_tokens=quotes,
        evidence_tokens=30,
        answer_tokens=10,
        order=order,  # type: ignore[arg-type]
    )
    run = Run(Limits(tokens=9000))
    try:
        value = method.task(text, question="a?").run(paid_by=run).value
    except (BudgetInfeasible, BudgetOverdrawn):
        assert not seen
        return
    assert max(seen) == value.peak_prompt_tokens
    assert max(seen[:-1]) + unit <= window and seen[-1] + 10 <= window
    assert COUNTER.count(value.unit) <= max(unit, 3 * (10 + 8))
    assert run.spent.tokens <= 9000 and run.report().reserved.tokens == 0


def test_a_chain_costs_its_source_and_its_units_and_little_more() -> None:
    source = " ".join(f"Sentence {i} says that nothing much has happened on day {i} either." for i in range(5000))
    notes = " ".join(f"fact{i}" for i in range(900))
    model = ScriptedModel(lambda request: notes if is_reader(request) else "Yes.", window_tokens=8192)
    outcome = ChainOfAgents(model).task(source, question="Has anything happened?").run()
    readers = outcome.value.workers
    units = 900 * readers + 900 * readers  # written, and read by the next worker or the manager
    assert outcome.spent.tokens <= 1.15 * COUNTER.count(source) + units
    assert outcome.value.peak_prompt_tokens <= 8192 - 1280
    assert readers == 11  # 60,000 words by 8,192 - 1,280 - 1,032 and the instructions


def test_a_run_that_cannot_pay_is_refused_before_the_first_call() -> None:
    model = ScriptedModel(right, window_tokens=700)
    task = ChainOfAgents(model, **SMALL).task(SOURCE, question=QUESTION)  # type: ignore[arg-type]
    for limits in (Limits(tokens=4000), Limits(calls=5), Limits(tokens_in=3000), Limits(tokens_out=100)):
        with pytest.raises(BudgetOverdrawn, match="the chain of") as refusal:
            task.run(paid_by=limits)
        assert refusal.value.needed > refusal.value.left == getattr(limits, refusal.value.limit)
    assert not model.prompts


def test_the_least_run_that_is_not_refused_gets_its_answer() -> None:
    task = ChainOfAgents(ScriptedModel(right, window_tokens=700), **SMALL).task(SOURCE, question=QUESTION)  # type: ignore[arg-type]
    with pytest.raises(BudgetOverdrawn) as refusal:
        task.run(paid_by=Limits(tokens=1000))
    outcome = task.run(paid_by=Limits(tokens=refusal.value.needed))
    assert outcome.text == SUM and outcome.spent.tokens <= refusal.value.needed
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(tokens=refusal.value.needed - 1))


def test_units_are_smaller_where_the_run_cannot_pay_for_large_ones() -> None:
    task = ChainOfAgents(ScriptedModel(right, window_tokens=700), **SMALL).task(SOURCE, question=QUESTION)  # type: ignore[arg-type]
    rich = task.run()
    poor = task.run(paid_by=Limits(tokens=5000))
    assert poor.text == rich.text == SUM
    assert len(poor.value.chunks) < len(rich.value.chunks)
    assert any("units have" in line for line in poor.degraded) and not rich.degraded


@pytest.mark.parametrize("settings", [{"worker_window_tokens": 200}, {"order": "tree", "merge": 8}])
def test_a_window_without_room_is_refused_before_the_first_call(settings: dict[str, object]) -> None:
    model = ScriptedModel(right, window_tokens=700)
    with pytest.raises(BudgetInfeasible, match="no room") as refusal:
        ChainOfAgents(model, **SMALL, **settings).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert refusal.value.minimum > 200 and not model.prompts


def test_a_manager_with_another_counter_and_window_keeps_to_both() -> None:
    double = WhitespaceCounter(name="double")
    double.count = lambda text: 2 * len(text.split())  # type: ignore[method-assign]
    manager = ScriptedModel(lambda request: "Yes.", counter=double, window_tokens=300)
    workers = ScriptedModel(lambda request: " ".join(f"fact{i}" for i in range(90)), window_tokens=700)
    outcome = ChainOfAgents(workers, manager=manager, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert outcome.text == "Yes." and len(manager.prompts) == 1
    assert any("of the manager's and was compressed" in line for line in outcome.degraded)
    notes = manager.prompts[0].messages[0].content.split("Notes:\n")[1]
    assert double.count(notes) <= 100


# --- units and quotes -------------------------------------------------------------------------------------------------


def test_a_unit_beyond_its_cap_is_compressed_before_it_is_handed_on() -> None:
    wordy = " ".join(f"Fact {i} is known." for i in range(30))  # 120 tokens, of 140 that a worker may answer
    model = ScriptedModel(lambda request: wordy if is_reader(request) else "Yes.", window_tokens=700)
    outcome = ChainOfAgents(model, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    handed = [told(request).split("Notes so far:\n")[1].split("\n\nThis piece:")[0] for request in model.prompts[1:-1]]
    assert handed and all(0 < COUNTER.count(unit) <= 100 for unit in handed)
    assert any("compressed from 120 to at most 100" in line for line in outcome.degraded)
    assert COUNTER.count(outcome.value.unit) <= 100


def test_quotes_that_do_not_stand_in_the_chunk_are_dropped() -> None:
    lying = 'Notes.\nEVIDENCE: "Z=99 was said."\nEVIDENCE: "nothing  MUCH happens"'
    model = ScriptedModel(lambda request: lying if is_reader(request) else "Yes.", window_tokens=700)
    outcome = ChainOfAgents(model, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert {one.text for one in outcome.value.evidence} == {"Nothing much happens"}
    assert any("1 of 2 quotes of worker 1 " in line for line in outcome.degraded)
    assert "Z=99" not in "".join(message.content for message in model.prompts[-1].messages)


def test_evidence_keeps_to_its_cap_in_the_managers_prompt() -> None:
    model = ScriptedModel(right, window_tokens=700)
    settings = {**SMALL, "evidence_tokens": 12}
    outcome = ChainOfAgents(model, **settings).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert outcome.text == SUM and 0 < len(outcome.value.evidence) < 10
    assert any("had no room in the manager's prompt" in line for line in outcome.degraded)


def test_no_quotes_are_asked_for_where_they_may_have_no_tokens() -> None:
    model = ScriptedModel(right, window_tokens=700)
    outcome = ChainOfAgents(model, **{**SMALL, "quote_tokens": 0}).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert outcome.text == SUM and "EVIDENCE" not in model.prompts[0].messages[0].content


# --- the early exit ---------------------------------------------------------------------------------------------------


def test_an_early_exit_leaves_the_rest_unread_and_says_which() -> None:
    def knowing(request: Request) -> str:
        if not is_reader(request):
            return "127"
        known = "D=127" in told(request)
        return f"{'D=127' if known else 'nothing'}\nANSWERED: {'yes' if known else 'no'}"

    model = ScriptedModel(knowing, window_tokens=700)
    method = ChainOfAgents(model, early_exit=True, **SMALL)  # type: ignore[arg-type]
    outcome = method.task(SOURCE, question="What is D?").run()
    value = outcome.value
    assert outcome.text == "127" and not outcome.degraded
    assert len(model.prompts) == value.workers + 1 < len(value.chunks)
    assert [chunk.number for chunk in value.unread] == list(range(value.workers + 1, len(value.chunks) + 1))
    assert "D=127" in SOURCE[: value.unread[0].start]


def test_without_the_option_nobody_leaves_early() -> None:
    model = ScriptedModel(lambda request: "It is 3.\nANSWERED: yes", window_tokens=700)
    outcome = ChainOfAgents(model, **SMALL).task(SOURCE, question="What is D?").run()  # type: ignore[arg-type]
    assert not outcome.value.unread and "ANSWERED" not in model.prompts[0].messages[0].content


# --- votes ------------------------------------------------------------------------------------------------------------


def voting(answers: dict[str, str]) -> ScriptedModel:
    """A manager that answers by the first letter that its unit has; workers note the first fact they ever see."""

    def answer(request: Request) -> str:
        if is_reader(request):
            return FACT.findall(told(request))[0]
        if "several people answered" in request.messages[0].content.casefold():
            return "decided"
        return answers[FACT.findall(request.messages[0].content)[0]]

    return ScriptedModel(answer, window_tokens=700)


def test_two_chains_that_agree_outvote_the_third() -> None:
    model = voting({"A=7": "the answer", "J=367": "something else", "B=47": "Answer."})
    outcome = ChainOfAgents(model, order="vote", **SMALL).task(SOURCE, question="What is the sum of B?").run()  # type: ignore[arg-type]
    assert outcome.text == "the answer"
    assert outcome.value.votes == ("the answer", "something else", "Answer.")


def test_the_manager_decides_where_no_two_agree() -> None:
    model = voting({"A=7": "one", "J=367": "two", "B=47": "three"})
    outcome = ChainOfAgents(model, order="vote", **SMALL).task(SOURCE, question="What is the sum of B?").run()  # type: ignore[arg-type]
    assert outcome.text == "decided" and outcome.value.votes == ("one", "two", "three")
    assert "1. one\n2. two\n3. three" in model.prompts[-1].messages[0].content


def test_a_chain_that_fails_does_not_vote() -> None:
    def answer(request: Request) -> Line:
        backward = is_reader(request) and "J=367" in told(request) and "none yet" in told(request)
        return ModelError("down") if backward else right(request)

    model = ScriptedModel(answer, window_tokens=700)
    method = ChainOfAgents(model, order="vote", skipped_share=0, **SMALL)  # type: ignore[arg-type]
    outcome = method.task(SOURCE, question="What is A?").run()
    assert outcome.text == SUM and len(outcome.value.votes) == 2
    assert any("'backward' does not vote" in line for line in outcome.degraded)


# --- faults -----------------------------------------------------------------------------------------------------------

FAULTS = [ModelError("out of memory"), CallTimeout("late"), "", "again and again " * 30, 'EVIDENCE: "Z=99 never said"']


@pytest.mark.parametrize("fault", FAULTS, ids=["dies", "late", "silent", "loops", "lies"])
@pytest.mark.parametrize("order", ["forward", "tree"])
def test_a_worker_that_fails_is_skipped_and_the_unit_before_it_stands(fault: Line, order: str) -> None:
    model = failing(lambda number: number == 2, fault)
    outcome = ChainOfAgents(model, order=order, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    value = outcome.value
    (lost,) = value.unread
    missing = sum(int(fact[2:]) for fact in FACT.findall(SOURCE[lost.start : lost.end]))
    assert lost.number == 2 and missing and outcome.text == str(int(SUM) - missing)
    assert value.workers == len(value.chunks) - 1
    assert any("worker 2 was skipped" in line for line in outcome.degraded)


def test_a_retry_saves_the_worker() -> None:
    model = failing(lambda number: number == 2, ModelError("out of memory"))
    outcome = ChainOfAgents(model, retries=1, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert outcome.text == SUM and not outcome.value.unread and not outcome.degraded


def test_a_retry_is_not_paid_with_what_the_other_workers_need() -> None:
    def task(model: ScriptedModel):  # type: ignore[no-untyped-def]
        return ChainOfAgents(model, retries=1, **SMALL).task(SOURCE, question=QUESTION)  # type: ignore[arg-type]

    with pytest.raises(BudgetOverdrawn) as refusal:
        task(ScriptedModel(right, window_tokens=700)).run(paid_by=Limits(tokens=1000))
    silent_first = failing(lambda number: number == 1, "")
    outcome = task(silent_first).run(paid_by=Limits(tokens=refusal.value.needed))
    assert [chunk.number for chunk in outcome.value.unread] == [1]
    assert any("cannot spare the tokens" in line for line in outcome.degraded)


def test_too_many_failures_end_the_run_with_the_reason() -> None:
    dying = failing(lambda number: True, ModelError("out of memory"))
    with pytest.raises(WorkersFailed, match="out of memory") as failure:
        ChainOfAgents(dying, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert failure.value.chunks == (1, 2, 3, 4, 5, 6) and isinstance(failure.value.__cause__, ModelError)
    silent = failing(lambda number: True, "")
    with pytest.raises(WorkersFailed, match="no worker"):
        ChainOfAgents(silent, skipped_share=1, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]


def test_a_merger_that_fails_has_its_units_joined() -> None:
    model = ScriptedModel(lambda request: "" if is_merger(request) else right(request), window_tokens=700)
    outcome = ChainOfAgents(model, order="tree", **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert outcome.text == SUM
    assert any("merge-1-1 failed" in line for line in outcome.degraded)


def test_a_silent_manager_is_answered_for_by_the_unit_and_by_an_error_without_one() -> None:
    silent = ScriptedModel(lambda request: right(request) if is_reader(request) else " ", window_tokens=700)
    outcome = ChainOfAgents(silent, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]
    assert outcome.text == outcome.value.unit and "A=7" in outcome.text
    assert any("the manager said nothing" in line for line in outcome.degraded)
    mute = ScriptedModel(lambda request: "", window_tokens=700)
    with pytest.raises(AnswerMalformed, match="said nothing"):
        ChainOfAgents(ExtractiveWorker(), manager=mute, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]


def test_an_error_of_the_manager_is_raised() -> None:
    model = ScriptedModel(
        lambda request: right(request) if is_reader(request) else ModelError("down"), window_tokens=700
    )
    with pytest.raises(ModelError, match="down"):
        ChainOfAgents(model, **SMALL).task(SOURCE, question=QUESTION).run()  # type: ignore[arg-type]


def test_a_run_that_died_goes_on_where_it_was(tmp_path: Path) -> None:
    def task(model: ScriptedModel):  # type: ignore[no-untyped-def]
        return ChainOfAgents(model, **SMALL).task(SOURCE, question=QUESTION)  # type: ignore[arg-type]

    dying = failing(lambda number: number == 4, RuntimeError("the process dies"))
    limits = Limits(tokens=5000)  # too little for units of the size asked for
    with pytest.raises(RuntimeError):
        task(dying).run(checkpoint=tmp_path / "run.db", paid_by=limits)
    again = ScriptedModel(right, window_tokens=700)
    outcome = task(again).run(checkpoint=tmp_path / "run.db", paid_by=Limits(tokens=20_000))
    assert outcome.text == SUM and len(again.prompts) == outcome.spent.calls - 3


# --- other workers ----------------------------------------------------------------------------------------------------


def test_an_extractive_worker_costs_no_tokens_and_finds_the_evidence() -> None:
    source = SOURCE + " The harbour budget is 300 crowns. " + SOURCE
    manager = ScriptedModel(lambda request: "300" if "300 crowns" in told(request) else "unknown", window_tokens=700)
    method = ChainOfAgents(ExtractiveWorker(), manager=manager, evidence_tokens=60, answer_tokens=20)
    outcome = method.task(source, question="What is the harbour budget?").run(paid_by=Limits(calls=1, tokens=200))
    value = outcome.value
    assert outcome.text == "300" and outcome.spent.calls == 1 and not outcome.degraded
    (best,) = [one for one in value.evidence if "harbour" in one.text]
    chunk = value.chunks[best.worker - 1]
    assert chunk.start <= best.start < best.end <= chunk.end and source[best.start : best.end] == best.text
    assert all(chunk.tokens <= 700 for chunk in value.chunks) and len(value.chunks) > 8


def test_an_extractor_quotes_for_workers_that_cannot() -> None:
    source = SOURCE + " The harbour budget is 300 crowns. " + SOURCE
    model = ScriptedModel(lambda request: "notes" if is_reader(request) else "Yes.", window_tokens=700)
    method = ChainOfAgents(model, extractor=ExtractiveWorker(), **{**SMALL, "evidence_tokens": 40})  # type: ignore[arg-type]
    value = method.task(source, question="What is the harbour budget?").run().value
    assert any("300 crowns" in one.text for one in value.evidence) and value.unit == "notes"
    assert "EVIDENCE" not in model.prompts[0].messages[0].content
    assert "300 crowns" in told(model.prompts[-1])


def test_a_real_model_of_random_weights_keeps_to_its_window() -> None:
    model = tiny_model()
    method = ChainOfAgents(
        model, worker_window_tokens=900, unit_tokens=24, quote_tokens=16, evidence_tokens=40, answer_tokens=16
    )
    outcome = method.task("It rains. " * 80, question="Does it rain?").run(paid_by=Limits(tokens=20_000))
    assert len(outcome.value.chunks) > 1 and outcome.value.peak_prompt_tokens + 16 <= 900


# --- wrong settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"unit_tokens": 0}, "unit_tokens"),
        ({"quote_tokens": -1}, "quote_tokens"),
        ({"merge": 1}, "merge"),
        ({"skipped_share": 1.1}, "skipped_share"),
        ({"order": "sideways"}, "order"),
        ({"order": "tree", "early_exit": True}, "early_exit"),
        ({"order": "vote", "by_relevance": True}, "by_relevance"),
        ({"worker_window_tokens": 0}, "worker_window_tokens"),
        ({"answer_tokens": 8192}, "answer_tokens"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ChainOfAgents(ScriptedModel([]), **wrong)  # type: ignore[arg-type]


def test_an_extractive_worker_needs_a_manager_and_hands_nothing_on() -> None:
    with pytest.raises(ValueError, match="manager"):
        ChainOfAgents(ExtractiveWorker())
    with pytest.raises(ValueError, match="hands nothing on"):
        ChainOfAgents(ExtractiveWorker(), manager=ScriptedModel([]), order="tree")


@pytest.mark.parametrize("settings", [{"order": "vote"}, {"by_relevance": True}, {"early_exit": True}])
def test_what_needs_a_question_is_refused_without_one(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="question"):
        ChainOfAgents(ScriptedModel([]), **settings).task("It rains.", question=" ")  # type: ignore[arg-type]
