"""StandingInstructions: what holds for an utterance, what that calls for, and what lost; and PersonalContext."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ctxkit
from ctxkit.context import Limits
from ctxkit.errors import BudgetOverdrawn, ModelError
from ctxkit.retrieval import HashingEncoder
from ctxkit.session import MemoryOriginals, ProfileMemory
from ctxkit.testing import ScriptedModel, WhitespaceCounter
from ctxkit_agents.personal.conditions import Conditional, contradict, overrides
from ctxkit_agents.personal.context import PersonalContext
from ctxkit_agents.personal.standing_instructions import PRECEDENCE, StandingInstructions, by_meaning

PROFILE = [
    "When I book flights, I prefer aisle seats.",  # 0
    "If I book a flight, also look for a hotel.",  # 1
    "For hotels, my preferred area is the old town.",  # 2
    "If I ask for hotels, check whether they have a gym.",  # 3
    "When I look for restaurants, choose vegetarian food.",  # 4
    "Whenever I buy concert tickets, find a restaurant nearby.",  # 5
    "When I ask for movies, I like comedies.",  # 6
    "If I plan a trip by train, look for a taxi to the station.",  # 7
    "For taxis or rental cars, use electric vehicles.",  # 8
    "When I take a taxi, add the ride to my expenses.",  # 9
    "If I update my expenses, write a message to Dana.",  # 10
    "Write in British English when I send an email or a message.",  # 11
    "When I book flights, I prefer window seats.",  # 12
    "When I ask for the weather, use Celsius.",  # 13
]
CASES = [
    # (what is said, numbers that hold, by hand)
    ("What will the weather be like in Bergen?", {13}),  # plain
    ("Any good movies tonight?", {6}),
    ("Tell me a joke.", set()),  # none
    ("How far is the moon?", set()),
    ("Find a restaurant for six people in Turin.", {4}),
    ("I need a hotel in Porto for two nights.", {2, 3}),  # several
    ("Get me a flight to Madrid on Monday.", {1, 2, 3, 12}),  # two hops; 12 is later than 0
    ("Two concert tickets for Friday, please.", {5, 4}),  # two hops
    ("Plan a trip by train to Ghent.", {7, 8, 9, 10, 11}),  # five hops
    ("Order a taxi for nine.", {8, 9, 10, 11}),
    ("I want to rent one of those rental cars.", {8}),  # an alternative
    ("Send an email to the landlord.", {11}),
    ("Book a flight to Rome with an aisle seat.", {0, 1, 2, 3}),  # 12 is overridden
    ("Book a flight to Oslo, but no hotel this time.", {12}),  # 1 is overridden, and what it would call for
    ("Is there a gym that shows movies?", {6}),  # a demand's word is no condition
    ("I fancy something to eat in Lyon.", {4}),  # not in the words of the condition
]


OTHER_PROFILE = [
    "When I order pizza, no mushrooms.",  # 0
    "If I order food, tip ten percent.",  # 1
    "When I watch a series, start with subtitles.",  # 2
    "Whenever a meeting is moved, tell the whole team.",  # 3
    "If you tell the team something, use the chat and not email.",  # 4
    "When I use the chat, keep it informal.",  # 5
    "If I go running, play my running playlist.",  # 6
    "When you play a playlist, set the volume to low.",  # 7
    "For podcasts, I prefer the BBC.",  # 8
    "For podcasts, I prefer short episodes.",  # 9
    "For podcasts, I prefer NPR.",  # 10
    "If I ask for a present, keep it under fifty euros.",  # 11
    "When it is for my sister, think of books.",  # 12
]
HELD_OUT = [
    # written after the rules were; the rules were not changed for it
    ("Order a pizza margherita.", {0, 1}),
    ("Move the meeting to three.", {3, 4, 5}),
    ("I'm going running now.", {6, 7}),
    ("Suggest a podcast.", {9, 10}),
    ("A present for my sister, please.", {11, 12}),
    ("What shall I give my brother as a present?", {11}),
    ("Start the next series.", {2}),
    ("Post hello in the chat.", {5}),
    ("What is 3 times 4?", set()),
    ("Play a podcast, but not NPR.", {8, 9}),
]


def chosen(texts: list[str], utterance: str, **settings: Any) -> list[int]:
    return [one.number for one in StandingInstructions(texts, **settings).select(utterance).applies]


# --- selection --------------------------------------------------------------------------------------------------------


def measured(profile: list[str], cases: list[tuple[str, set[int]]]) -> tuple[float, float, int]:
    """Precision and recall of the instructions chosen, and how many cases are right as a whole."""
    found = [set(chosen(profile, utterance)) for utterance, _ in cases]
    hits = sum(len(mine & gold) for mine, (_, gold) in zip(found, cases, strict=True))
    exact = sum(mine == gold for mine, (_, gold) in zip(found, cases, strict=True))
    precision, recall = hits / sum(map(len, found)), hits / sum(len(gold) for _, gold in cases)
    print(f"precision {precision:.3f}, recall {recall:.3f}, exact {exact} of {len(cases)}")
    return precision, recall, exact


def test_precision_and_recall_on_the_cases_that_the_rules_were_made_with() -> None:
    precision, recall, exact = measured(PROFILE, CASES)
    assert precision == 1.0 and recall >= 0.96 and exact == len(CASES) - 1


def test_precision_and_recall_on_the_cases_that_were_held_out() -> None:
    """Two are missed: that a pizza is food, and that who starts a series watches it. `by_meaning` is for these."""
    precision, recall, exact = measured(OTHER_PROFILE, HELD_OUT)
    assert precision == 1.0 and recall == 14 / 16 and exact == len(HELD_OUT) - 2


def test_without_hops_what_an_instruction_calls_for_is_missed() -> None:
    found = [set(chosen(PROFILE, utterance, hops=0)) & gold for utterance, gold in CASES]
    recall = sum(map(len, found)) / sum(len(gold) for _, gold in CASES)
    assert recall < 0.7


def test_each_hop_is_told_with_the_instruction_that_called() -> None:
    selection = StandingInstructions(PROFILE, hops=5).select("Plan a trip by train to Ghent.")
    hops = {one.number: (one.because, one.hop) for one in selection.applies}
    assert hops == {7: (None, 0), 8: (7, 1), 9: (7, 1), 10: (9, 2), 11: (10, 3)}
    assert [one.number for one in StandingInstructions(PROFILE, hops=1).select("Plan a trip by train").applies] == [
        7,
        8,
        9,
    ]


def test_instructions_that_call_each_other_come_to_an_end() -> None:
    ring = ["If I ask for tea, look for cake.", "If I ask for cake, look for tea."]
    assert chosen(ring, "Some tea?", hops=99) == [0, 1]


def test_a_taste_calls_for_nothing() -> None:
    texts = ["When I book restaurants, I prefer places close to hotels.", "For hotels, check the price."]
    assert chosen(texts, "A restaurant in Graz") == [0]


def test_an_instruction_without_a_condition_always_holds() -> None:
    assert chosen(["Answer in German."], "Anything at all") == [0]


def test_a_score_below_the_least_does_not_hold() -> None:
    texts = ["When I book a window seat on a night train, bring earplugs."]
    assert chosen(texts, "A train to Bonn") == [] and chosen(texts, "A train to Bonn", least=0.2) == [0]


@given(st.lists(st.sampled_from(PROFILE), max_size=8, unique=True), st.text(max_size=40))
def test_any_utterance_gives_each_instruction_at_most_once_in_order(texts: list[str], utterance: str) -> None:
    selection = StandingInstructions(texts).select(utterance)
    numbers = [one.number for one in selection.applies]
    assert numbers == sorted(set(numbers)) and not set(numbers) & {one.number for one in selection.lost}


def test_an_encoder_scores_conditions_too() -> None:
    texts = ["When I ask for tea, use oolong.", "When I look for trains, avoid changes."]
    assert chosen(texts, "I ask for tea", scorer=by_meaning(HashingEncoder(512)), least=0.7) == [0]
    with pytest.raises(ValueError, match="one vector per text"):
        by_meaning(HashingEncoder(8, multi_vector=True))


# --- conflicts --------------------------------------------------------------------------------------------------------


def test_the_later_of_two_that_contradict_wins_and_the_loser_is_named() -> None:
    (lost,) = StandingInstructions(PROFILE).select("A flight to Madrid").lost
    assert (lost.number, lost.to, lost.why) == (0, 12, "instruction 13 is later")


def test_the_request_wins_over_every_instruction() -> None:
    selection = StandingInstructions(PROFILE).select("Book a flight to Oslo, but no hotel this time.")
    assert [(one.number, one.to) for one in selection.lost] == [(0, 12), (1, None)]
    assert selection.lost[1].why == "the request says otherwise"


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("When I fly, I prefer aisle seats.", "When I fly, I prefer window seats.", True),
        ("When I fly, I prefer aisle seats.", "When I take trains, I prefer window seats.", False),
        ("When I fly, I prefer Delta.", "When I fly, I prefer United.", True),
        ("When I fly, I prefer aisle seats.", "When I fly, I prefer vegan meals.", False),
        ("Answer in German.", "Answer in French.", True),
        ("For hotels, my preferred area is Trastevere.", "For hotels, my preferred area is Monti.", True),
        ("Use bullet points.", "Do not use bullet points.", True),
        ("Use bullet points.", "Use bullet points.", False),
        ("Be brief.", "Be kind.", False),
    ],
)
def test_what_contradicts_what(one: str, other: str, conflict: bool) -> None:
    assert contradict(Conditional.of(one), Conditional.of(other)) is conflict
    assert contradict(Conditional.of(other), Conditional.of(one)) is conflict


@pytest.mark.parametrize(
    ("said", "instruction", "beaten"),
    [
        ("A window seat, please.", "I prefer aisle seats.", True),
        ("An aisle seat, please.", "I prefer aisle seats.", False),
        ("A seat, please.", "I prefer aisle seats.", False),
        ("Anything but United today.", "When I fly, I prefer United.", True),
        ("Answer in English.", "Answer in German.", True),
        ("Without bullet points.", "Use bullet points.", True),
        ("Not today.", "Use bullet points.", False),
        ("", "Use bullet points.", False),
    ],
)
def test_what_the_request_beats(said: str, instruction: str, beaten: bool) -> None:
    assert overrides(said, Conditional.of(instruction)) is beaten


# --- parts ------------------------------------------------------------------------------------------------------------


def test_the_parts_are_pinned_instructions_that_end_with_the_precedence() -> None:
    parts = StandingInstructions(PROFILE).parts("What is the weather?")
    assert [part.content for part in parts] == [PROFILE[13], PRECEDENCE]
    assert all(part.kind == "instruction" and part.pinned for part in parts)
    assert StandingInstructions(PROFILE).parts("Tell me a joke.") == []


def test_parts_that_are_not_pinned_leave_the_choice_to_fit() -> None:
    texts = [f"When I ask for tea, remember rule {n} of many." for n in range(12)]
    parts = StandingInstructions(texts, pinned=False).parts("tea")
    plan = ctxkit.fit(
        [*parts, ctxkit.question("tea?")], budget=ctxkit.Budget(window_tokens=60), counter=WhitespaceCounter()
    )
    assert 0 < sum(one.kept for one in plan.decisions) < len(parts)


@pytest.mark.parametrize("wrong", [{"texts": ["a", " "]}, {"texts": "one"}, {"least": 0}, {"hops": -1}])
def test_what_is_no_instruction_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        StandingInstructions(**{"texts": ["a"], **wrong})


# --- by a model -------------------------------------------------------------------------------------------------------


def applying(*passes: dict[str, Any] | str | Exception) -> ScriptedModel:
    return ScriptedModel([one if isinstance(one, str | Exception) else json.dumps(one) for one in passes])


def test_a_model_selects_in_passes_until_it_finds_no_further_one() -> None:
    model = applying({"apply": [2]}, {"apply": [3, 4]}, {"apply": []})
    outcome = StandingInstructions(PROFILE, model=model).task("A flight").run()
    assert [one.number for one in outcome.value.applies] == [1, 2, 3] and outcome.spent.calls == 3
    assert [one.hop for one in outcome.value.applies] == [0, 1, 1]
    assert "These apply already: 2." in model.prompts[1].messages[-1].content


def test_what_a_model_calls_overridden_has_lost() -> None:
    model = applying({"apply": [14], "overridden": [14]}, {"apply": []})
    outcome = StandingInstructions(PROFILE, model=model).task("The weather in Fahrenheit").run()
    assert outcome.value.applies == () and [one.number for one in outcome.value.lost] == [13]


def test_the_later_of_two_also_wins_where_a_model_selects() -> None:
    model = applying({"apply": [1, 13]}, {"apply": []})
    outcome = StandingInstructions(PROFILE, model=model).task("A flight").run()
    assert [one.number for one in outcome.value.applies] == [12] and outcome.value.lost[0].to == 12


@pytest.mark.parametrize("said", ["", "the first", '{"apply": [99]}', '{"apply": ["x"]}', '{"apply": [0]}'])
def test_a_model_that_does_not_answer_in_the_form_is_replaced_by_the_scorer(said: str) -> None:
    outcome = StandingInstructions(PROFILE, model=applying(said, said)).task("What is the weather?").run()
    assert [one.number for one in outcome.value.applies] == [13] and "by the scorer" in outcome.degraded[0]


def test_one_reminder_is_enough() -> None:
    outcome = StandingInstructions(PROFILE, model=applying("hm", {"apply": []})).task("A joke").run()
    assert outcome.value.applies == () and outcome.degraded == () and outcome.spent.calls == 2


def test_instructions_longer_than_the_model_s_window_are_selected_by_the_scorer() -> None:
    model = ScriptedModel(["{}"], window_tokens=150)
    outcome = StandingInstructions(PROFILE, model=model).task("What is the weather?").run()
    assert outcome.value.text == PROFILE[13] and model.prompts == [] and outcome.degraded


def test_a_model_that_fails_and_a_run_that_cannot_pay_are_errors() -> None:
    with pytest.raises(ModelError, match="down"):
        StandingInstructions(PROFILE, model=applying(ModelError("down"))).task("x").run()
    with pytest.raises(BudgetOverdrawn):
        StandingInstructions(PROFILE, model=applying({"apply": []})).task("x").run(paid_by=Limits(calls=0))


def test_without_a_model_or_instructions_nobody_is_asked() -> None:
    assert StandingInstructions(PROFILE).task("the weather").run().spent.calls == 0
    assert StandingInstructions([], model=applying()).task("x").run().value.applies == ()
    with pytest.raises(ValueError, match="empty"):
        StandingInstructions(PROFILE).task(" ")


# --- with what else is known ------------------------------------------------------------------------------------------


def remembering(*items: str) -> PersonalContext:
    memory = ProfileMemory(MemoryOriginals(), WhitespaceCounter(), summary_tokens=12)
    memory.add("ada", *items)
    memory.refresh()
    return PersonalContext(memory, "ada", k=8)


def test_a_user_s_instructions_profile_and_a_quarter_of_the_items_are_parts() -> None:
    facts = [f"Ada has been to city number {n} and liked the museum there." for n in range(20)]
    context = remembering(*facts)
    context.instruct("When I ask for a museum, tell the opening hours.", "For taxis, use electric vehicles.")
    parts = context.parts("Which museum in city number 7?")
    assert [part.kind for part in parts] == ["instruction", "instruction", "memory", "memory", "memory"]
    assert parts[2].id == "profile/ada" and "city number 7" in parts[3].content


def test_what_is_instructed_is_no_fact_and_facts_are_no_instructions() -> None:
    context = remembering("Likes tea.")
    assert context.parts("anything")[0].kind == "memory" and context.instructions.texts == ()
    context.instruct("Answer in German.")
    assert context.memory.items("ada") == ("Likes tea.",) and context.instructions.texts == ("Answer in German.",)


def test_a_user_of_whom_nothing_is_known_has_no_parts() -> None:
    context = PersonalContext(ProfileMemory(MemoryOriginals(), WhitespaceCounter()), "nobody")
    assert context.parts("hello") == []
    with pytest.raises(ValueError, match="k"):
        PersonalContext(context.memory, "nobody", k=-1)


def test_a_personal_context_is_a_source_of_about_so_many_items() -> None:
    context = remembering(*[f"Ada knows the number {n} by heart and repeats it often." for n in range(20)])
    found = context.find("Which number does Ada know?", 3)
    assert found[0].id == "profile/ada" and len(found) == 4


def test_what_is_kept_of_a_user_stands_in_the_system_message() -> None:
    context = remembering("Likes tea.")
    context.instruct("Answer in German.")
    plan = ctxkit.fit(
        [*context.parts("Hello"), ctxkit.question("Hello")],
        budget=ctxkit.Budget(window_tokens=200),
        counter=WhitespaceCounter(),
    )
    system, user = plan.messages
    assert "Answer in German." in system.content and "Likes tea." in system.content and user.content == "Hello"
