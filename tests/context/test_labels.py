"""Labels: a lattice, and nothing that is made of a part loses the part's label."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit import Budget, Part, fit, passage, question, system, tool_call, tool_result
from ctxkit.context import Label
from ctxkit.context.chat import conversation
from ctxkit.context.group import grouped
from ctxkit.context.labels import DEFAULT, HIGHEST, INTEGRITY, SECRECY, joined
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import PartError
from ctxkit.pipeline.crag import ClusteredRag
from ctxkit.retrieval import Hit
from ctxkit.session import MemoryOriginals, ProfileMemory, Session, fit_messages
from ctxkit.testing import WhitespaceCounter

COUNTER = WhitespaceCounter()
UNTRUSTED, SECRET = Label("untrusted"), Label(secrecy="secret")
LABELS = st.builds(
    Label,
    st.sampled_from(INTEGRITY),
    st.sampled_from(SECRECY),
    st.none() | st.frozensets(st.sampled_from(["ann", "bob", "cy@x.org"])),
)


# --- the lattice --------------------------------------------------------------------------------------------------


@given(LABELS, LABELS, LABELS)
def test_join_is_associative_commutative_and_idempotent(a: Label, b: Label, c: Label) -> None:
    assert a.join(b).join(c) == a.join(b.join(c)) == joined([a, b, c])
    assert a.join(b) == b.join(a)
    assert a.join(a) == a and a.join(DEFAULT) == a and a.join(HIGHEST) == HIGHEST


@given(LABELS, LABELS, LABELS)
def test_join_is_the_least_label_that_both_flow_to(a: Label, b: Label, c: Label) -> None:
    both = a.join(b)
    assert a.flows_to(both) and b.flows_to(both)
    assert (a.flows_to(c) and b.flows_to(c)) == both.flows_to(c)
    assert a.flows_to(b) == (both == b)


@given(LABELS, LABELS, LABELS)
def test_flowing_is_an_order_and_join_is_monotone_in_it(a: Label, b: Label, c: Label) -> None:
    assert a.flows_to(a) and DEFAULT.flows_to(a) and a.flows_to(HIGHEST)
    assert not (a.flows_to(b) and b.flows_to(a)) or a == b
    assert not (a.flows_to(b) and b.flows_to(c)) or a.flows_to(c)
    assert not a.flows_to(b) or a.join(c).flows_to(b.join(c))


@given(LABELS)
def test_a_label_is_what_its_text_says(label: Label) -> None:
    assert Label.parse(str(label)) == label and "\n" not in str(label)


def test_texts_of_labels_are_short() -> None:
    assert str(DEFAULT) == "public" and Label.parse("") == DEFAULT
    assert str(Label("untrusted", "secret", frozenset({"bob", "ann"}))) == "untrusted+secret+for:ann,bob"
    assert Label.parse(" secret + untrusted ") == Label("untrusted", "secret")
    assert Label.parse("for:").readers == frozenset()


@pytest.mark.parametrize("text", ["top-secret", "untrusted secret", "secret+public", "for:a+for:b", "Untrusted"])
def test_a_text_that_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="label"):
        Label.parse(text)


@pytest.mark.parametrize(
    "fields", [{"integrity": "good"}, {"secrecy": ""}, {"readers": "ann"}, {"readers": {"a b"}}, {"readers": {""}}]
)
def test_a_label_of_wrong_axes_is_refused(fields: Mapping[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Label(**fields)


# --- parts, groups, plans -----------------------------------------------------------------------------------------


def test_a_part_takes_a_label_and_no_text() -> None:
    assert Part("passage", "a").label is None
    assert passage("a b", label=SECRET).rewritten("a").label == SECRET
    with pytest.raises(PartError, match=r"Label\.parse"):
        passage("a", label="secret")


def test_a_plan_has_the_label_of_what_is_in_the_prompt_and_tells_it() -> None:
    parts = [
        passage("a b c", id="web", label=UNTRUSTED),
        passage("d " * 99, id="notes", label=SECRET),
        question("Why?"),
    ]
    whole = fit(parts, budget=Budget(400, 10), counter=COUNTER)
    small = fit(parts, budget=Budget(60, 10), counter=COUNTER)
    assert whole.label == Label("untrusted", "secret") and small.label == UNTRUSTED
    assert small.to_dict()["label"] == "untrusted" and "label untrusted" in str(small)
    assert {one["id"]: one.get("label") for one in json.loads(json.dumps(whole.to_dict()))["decisions"]} == {
        "web": "untrusted",
        "notes": "secret",
        "question-1": None,
    }
    assert "(secret)" in str(whole) and "(untrusted)" in whole._repr_html_()


def test_a_plan_without_labels_says_nothing_of_them() -> None:
    plan = fit([system("You help."), question("Why?")], budget=Budget(400, 10), counter=COUNTER)
    assert plan.label == DEFAULT and "label" not in str(plan) and "label" not in json.dumps(plan.to_dict())


def test_a_group_has_the_join_of_its_parts() -> None:
    call = tool_call([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}], label=SECRET)
    (group,) = grouped([call, tool_result("c", "found", label=UNTRUSTED)])
    assert group.label == Label("untrusted", "secret")


# --- chats and sessions -------------------------------------------------------------------------------------------

CALL = {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": "Read it."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "from the web"},
    {"role": "tool", "tool_call_id": "lost", "content": "an orphan"},
    {"role": "user", "content": "And?"},
]


def test_messages_keep_their_labels_however_they_are_repaired() -> None:
    made = conversation(CHAT, labels={2: UNTRUSTED, 3: SECRET})
    labels = {part.id: part.label for part in made.parts}
    assert made.repairs and labels == {"m0": None, "m1": None, "m2": UNTRUSTED, "m3": SECRET, "m4": None}
    plan = fit_messages(CHAT, budget=Budget(400, 10), counter=COUNTER, labels={2: UNTRUSTED})
    assert plan.label == UNTRUSTED


def test_a_session_keeps_labels_when_it_compacts_and_when_it_expands() -> None:
    store = MemoryOriginals()
    session = Session(budget=Budget(260, 20), counter=COUNTER, store=store, session_id="s")
    session.add({"role": "user", "content": "Start."})
    session.add({"role": "assistant", "content": "A page: " + "word " * 150}, label=UNTRUSTED)
    for n in range(3):
        session.add({"role": "user", "content": f"Go on {n}."}, {"role": "assistant", "content": "done " * 40})
    session.add({"role": "user", "content": "What was on the page?"})
    plan = session.plan()
    decision = plan.decision("m1")
    assert decision.level != "full" and decision.label == UNTRUSTED
    later = Session(budget=Budget(4000, 20), counter=COUNTER, store=store, session_id="s")
    later.add({"role": "user", "content": "What was on the page?"})
    arguments = json.dumps({"ref": "m1"})
    call = {"id": "e", "type": "function", "function": {"name": "expand", "arguments": arguments}}
    later.add({"role": "assistant", "content": None, "tool_calls": [call]}, *later.answer_expand([call]))
    assert later.plan().label == UNTRUSTED and "word word" in later.plan().text


def test_a_session_plans_with_labels_turn_after_turn() -> None:
    session = Session(budget=Budget(400, 20), counter=COUNTER)
    session.add({"role": "user", "content": "Hello."}, label=SECRET)
    assert session.plan().label == session.plan().label == SECRET
    with pytest.raises(PartError):
        session.add({"role": "nobody"}, label=UNTRUSTED)
    session.add({"role": "assistant", "content": "Yes."})
    assert session.plan().label == SECRET


def test_a_memory_of_profiles_labels_everything_that_it_remembers() -> None:
    memory = ProfileMemory(MemoryOriginals(), COUNTER, label=Label.parse("for:ada"))
    memory.add("ada", "Likes tea.", "Has a boat.")
    memory.refresh()
    memory.add("ada", "Sold the boat.")
    found = [passage("From the web.", label=UNTRUSTED)]
    parts = memory.parts("ada", "boat", ranking=found)
    assert len(parts) >= 2 and all(part.label is not None and part.label.readers == {"ada"} for part in parts)


# --- retrieval ----------------------------------------------------------------------------------------------------


def hit(text: str, rank: int, **metadata: Any) -> Hit:
    chunk = Chunk(f"c{rank}", f"d{rank}.md", text, metadata=metadata)
    return Hit(chunk, rank, 1.0 / rank, 1.0 / rank)


def test_a_hit_has_the_label_of_its_documents_metadata() -> None:
    assert hit("a", 1).as_part().label is None
    assert hit("a", 1, label="untrusted+secret").as_part().label == Label("untrusted", "secret")
    assert hit("a", 1, label="sports").as_part(label=None).label is None
    for wrong in ("sports", 3):
        with pytest.raises(PartError, match=r"d1\.md"):
            hit("a", 1, label=wrong).as_part()


def test_a_passage_of_several_hits_has_the_label_of_all() -> None:
    text = "The ferry to the island leaves at nine from the northern pier every day."
    hits = [hit(text, 1, label="secret"), hit(text + " It is late.", 2, label="untrusted")]
    vectors = np.array([[1.0, 0.0], [1.0, 0.1]], np.float32)
    crag = ClusteredRag(k=1).pack("When does it leave?", hits, vectors, budget_tokens=100, counter=COUNTER)
    assert [part.label for part in crag.parts] == [Label("untrusted", "secret")]
