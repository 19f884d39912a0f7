"""What is known of a user: the profile, what came since, and a quarter of the rest; never what was taken back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctxkit
from ctxkit import Budget, passage, question
from ctxkit.compression import SummaryRejected
from ctxkit.errors import StoreError
from ctxkit.session import MemoryOriginals, Originals, ProfileMemory, SqliteOriginals
from ctxkit.testing import ScriptedModel, WhitespaceCounter

COUNTER = WhitespaceCounter()
FACTS = [f"Entry {i}: Ada took the ferry to island {i} and wrote {i * 3} lines about its light." for i in range(20)]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Originals]:
    if request.param == "memory":
        yield MemoryOriginals()
        return
    with SqliteOriginals(tmp_path / "memory.sqlite") as made:
        yield made


def filled(store: Originals, *replies: str | Exception, tokens: int = 40) -> ProfileMemory:
    memory = ProfileMemory(store, COUNTER, ScriptedModel(replies), summary_tokens=tokens)
    memory.add("ada", *FACTS)
    return memory


def contents(memory: ProfileMemory, asked: str = "", **how: object) -> list[str]:
    return [part.content for part in memory.parts("ada", asked, **how)]  # type: ignore[arg-type]


def test_a_profile_and_a_quarter_of_the_items_are_the_memory(store: Originals) -> None:
    memory = filled(store, "Ada likes ferries.")
    assert memory.refresh() == ("ada",)
    parts = memory.parts("ada", "Which light has island 7?", k=8)
    assert parts[0].content == "[summary of 20 entries]\nAda likes ferries."
    assert parts[0].metadata["method"] == "summary by scripted"
    assert {part.kind for part in parts} == {"memory"}
    assert len(parts) == 1 + 2
    assert parts[1].content == FACTS[7]
    assert len(memory.parts("ada", "light", k=9)) == 1 + 3
    assert contents(memory, "light", k=0) == [parts[0].content]
    assert contents(memory, "") == [parts[0].content], "nothing asked, nothing retrieved"


def test_a_ranking_of_the_caller_decides(store: Originals) -> None:
    memory = filled(store, "Ada likes ferries.")
    memory.refresh()
    hits = [passage("a hit", id="h1"), FACTS[3], FACTS[3], passage("another", id="h2"), FACTS[4]]
    assert contents(memory, ranking=hits, k=9)[1:] == ["a hit", FACTS[3], "another"]
    seen: list[tuple[str, int]] = []

    def search(asked: str, k: int) -> list[str]:
        seen.append((asked, k))
        return FACTS[:k]

    assert contents(memory, "why?", ranking=search, k=5)[1:] == FACTS[:2]
    assert seen == [("why?", 5)]


def test_what_came_since_is_sent_as_it_is_until_the_next_refresh(store: Originals) -> None:
    memory = filled(store, "Old.", "New.")
    memory.refresh()
    assert memory.stale() == ()
    first = memory.profile("ada")
    memory.add("ada", "Ada moved to Oslo.", FACTS[0], "Ada has a dog.")
    assert memory.stale() == ("ada",)
    parts = memory.parts("ada", "light", k=4)
    assert [part.content for part in parts[:3]] == [
        "[summary of 20 entries]\nOld.",
        "Ada moved to Oslo.",
        "Ada has a dog.",
    ]
    assert len(parts) == 4
    assert parts[0].metadata["new"] == 2
    assert memory.profile("ada") == first
    assert memory.refresh() == ("ada",)
    assert contents(memory) == ["[summary of 22 entries]\nNew."]
    second = memory.profile("ada")
    assert first and second and first.version != second.version


def test_a_fresh_profile_is_not_made_again_unless_asked_for(store: Originals) -> None:
    memory = filled(store, "One.")
    assert memory.refresh("ada") == ("ada",)
    assert memory.refresh("ada") == memory.refresh() == ()
    other = ProfileMemory(store, COUNTER, ScriptedModel(["Two."], name="other"), summary_tokens=40)
    assert other.refresh() == ()
    assert other.refresh(again=True) == ("ada",)
    assert contents(memory) == ["[summary of 20 entries]\nTwo."]


def test_a_profile_of_what_was_removed_is_never_sent_again(store: Originals) -> None:
    memory = filled(store, "Ada went to island 3.", "Ada likes ferries.")
    memory.refresh()
    memory.remove("ada", FACTS[3], "never known")
    assert memory.profile("ada") is None
    sent = contents(memory)
    assert sent == [*FACTS[:3], *FACTS[4:]]
    kept = [store.get(key) or "" for key in store.keys("/")]
    assert not any("island 3" in text for text in kept if text not in FACTS), "and the texts are gone"
    assert FACTS[3] not in kept
    assert memory.refresh() == ("ada",)
    assert contents(memory) == ["[summary of 19 entries]\nAda likes ferries."]
    memory.add("ada", FACTS[3])
    assert memory.items("ada")[-1] == FACTS[3], "it may come back, as something new"


def test_an_item_that_is_removed_while_its_profile_is_made_spoils_it(store: Originals) -> None:
    memory = ProfileMemory(store, COUNTER, summary_tokens=40)
    memory.add("ada", *FACTS)

    def answer(request: object) -> str:
        memory.remove("ada", *FACTS)
        return "Ada likes ferries."

    slow = ProfileMemory(store, COUNTER, ScriptedModel(answer), summary_tokens=40)
    slow.refresh()
    assert memory.profile("ada") is None
    assert contents(memory) == []
    memory.refresh()
    assert memory.keys() == ()


def test_without_a_model_a_profile_is_an_extract_and_says_so(store: Originals) -> None:
    memory = ProfileMemory(store, COUNTER, summary_tokens=60)
    memory.add("ada", *FACTS)
    memory.refresh()
    profile = memory.profile("ada")
    assert profile is not None
    assert profile.method == "extractive summary, no model"
    assert profile.text.startswith("[extract of 20 entries]\n")
    assert set(profile.text.splitlines()[1:]) - {"[...]", ""} <= set(FACTS)
    assert COUNTER.count(profile.text) <= 60
    assert memory.stale() == ()
    better = ProfileMemory(store, COUNTER, ScriptedModel(["Ferries."]), summary_tokens=60)
    assert better.stale() == ("ada",), "a model can do better"


@pytest.mark.parametrize("reply", ["", RuntimeError("down"), "bad \ufffd text", "word " * 900])
def test_a_model_that_fails_leaves_an_extract_and_a_warning(store: Originals, reply: str | Exception) -> None:
    memory = filled(store, reply, "Ferries.", tokens=300)
    memory.add("ada", *(fact.upper() for fact in FACTS))
    if isinstance(reply, str) and len(reply) > 100:
        memory = ProfileMemory(store, COUNTER, ScriptedModel([reply], window_tokens=100), summary_tokens=300)
    with pytest.warns(SummaryRejected, match="no summary of 'ada'"):
        memory.refresh()
    profile = memory.profile("ada")
    assert profile is not None and profile.method == "extractive summary, no model"
    assert COUNTER.count(profile.text) <= 300


def test_few_items_are_the_profile_themselves_and_no_model_is_asked(store: Originals) -> None:
    memory = ProfileMemory(store, COUNTER, ScriptedModel([]), summary_tokens=40)
    memory.add("ada", "Likes tea.", "Has a dog.")
    memory.refresh()
    assert contents(memory, "dog") == ["[2 entries]\nLikes tea.\n\nHas a dog."]
    assert memory.stale() == ()


@pytest.mark.parametrize("answer", ["Ferry. " * 200, "ferry " * 200])
@pytest.mark.parametrize("tokens", [8, 25, 60])
def test_a_profile_holds_its_cap(store: Originals, answer: str, tokens: int) -> None:
    memory = filled(store, answer, tokens=tokens)
    memory.refresh()
    profile = memory.profile("ada")
    assert profile is not None
    assert COUNTER.count(profile.text) <= tokens


def test_keys_are_kept_apart_whatever_they_are(store: Originals) -> None:
    memory = ProfileMemory(store, COUNTER)
    keys = ["ada", "ada/style", "ada%2Fstyle", "", "a:1-2", "ключ", "\ud800", "item"]
    for key in keys:
        memory.add(key, f"about {key}")
    assert set(memory.keys()) == set(keys)
    memory.refresh()
    for key in keys:
        assert memory.items(key) == (f"about {key}",)
        assert [part.content for part in memory.parts(key)] == [f"[1 entry]\nabout {key}"]
    assert memory.parts("unknown", "x") == []


def test_the_same_text_is_remembered_once_and_order_is_kept(store: Originals) -> None:
    memory = ProfileMemory(store, COUNTER)
    memory.add("ada", "b", "a", "b")
    memory.add("ada", "c", "a")
    assert memory.items("ada") == ("b", "a", "c")


def test_a_damaged_profile_counts_as_none_and_a_damaged_item_is_an_error(store: Originals) -> None:
    memory = filled(store, "Ferries.", "Ferries again.")
    memory.refresh()
    (made,) = store.keys("/profiles/made/")
    for wrong in ("", "x", "x\n{}", (store.get(made) or "").replace("Ferries", "Trains")):
        store.put(made, wrong)
        assert memory.profile("ada") is None
        assert memory.stale() == ("ada",)
    store.put(store.keys("/profiles/item/")[0], "another text")
    with pytest.raises(StoreError, match="item of 'ada' is damaged"):
        memory.items("ada")


def test_the_parts_fit_into_a_prompt_and_a_session_may_share_the_store(store: Originals) -> None:
    memory = filled(store, "Ada likes ferries.")
    memory.refresh()
    memory.add("ada", "Ada moved to Oslo.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = "Where does Ada live, near which light?"
        plan = ctxkit.fit([*memory.parts("ada", asked), question(asked)], budget=Budget(60), counter=COUNTER)
    assert plan.prompt_tokens <= 60
    assert "Ada likes ferries." in str(plan.to_messages())
    session = ctxkit.Session(budget=Budget(60), counter=COUNTER, store=store, session_id="profiles")
    session.add({"role": "user", "content": "word " * 200}, {"role": "user", "content": "And now?"})
    session.plan()
    assert memory.keys() == ("ada",)


def test_what_was_added_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from ctxkit.session import ProfileMemory, SqliteOriginals\n"
        "from ctxkit.testing import ScriptedModel, WhitespaceCounter\n"
        "model = ScriptedModel(['Counts.'])\n"
        "memory = ProfileMemory(SqliteOriginals(sys.argv[1]), WhitespaceCounter(), model, summary_tokens=30)\n"
        "memory.add('ada', *(f'Said {i} and {i + 1}.' for i in range(30)))\n"
        "memory.refresh()\n"
        "memory.add('ada', 'The last one.')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "memory.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", code, str(path)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    with SqliteOriginals(path) as store:
        memory = ProfileMemory(store, COUNTER)
        assert len(memory.items("ada")) == 31
        assert contents(memory) == ["[summary of 30 entries]\nCounts.", "The last one."]


def test_wrong_settings_and_empty_items_are_named(store: Originals) -> None:
    with pytest.raises(ValueError, match="summary_tokens"):
        ProfileMemory(store, COUNTER, summary_tokens=0)
    memory = ProfileMemory(store, COUNTER, summary_tokens=3)
    with pytest.raises(ValueError, match="'ada' is empty"):
        memory.add("ada", "x", " ")
    assert memory.items("ada") == ()
    with pytest.raises(ValueError, match="`k`"):
        memory.parts("ada", k=-1)
    memory.add("ada", *FACTS)
    with pytest.raises(ValueError, match="no room for a word"):
        memory.refresh()
