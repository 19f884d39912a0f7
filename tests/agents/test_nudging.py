"""Nudging: a table of steps on scripted pairs, seams between tokenizers, what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ctxkit.context import Limits, Run
from ctxkit.errors import BudgetOverdrawn, PromptError
from ctxkit.models.local import LocalModel
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel, tiny_counter, tiny_llama, tiny_model
from ctxkit.tokens import TemplateCounter
from ctxkit_agents.collaboration.loop import Loop, Rules
from ctxkit_agents.collaboration.routers import Threshold
from ctxkit_agents.collaboration.script import without_repeated_end
from ctxkit_agents.collaboration.side import Meter, Side, Sides
from ctxkit_agents.collaboration.tokens import INSIDE, Tokens
from ctxkit_agents.collaboration.words import Words, begins
from ctxkit_agents.errors import CallTimeout, CapabilityMissing
from ctxkit_agents.nudging import NudgedAnswer, Nudging

CORPUS = (
    "The Nile rises in the south and ends in the north. The Nile rises far away in Africa. Rivers run to the sea, and "
    "the sea is wide. So it goes on and on and on."
)
END = "<end>"

Says = Callable[[str], tuple[str, float]]
"""From the answer so far to what a model would write next ("" to end), and how sure it is of the first token."""


@cache
def bpe(merges: int) -> Tokenizer:
    """Byte-level BPE with so many merges: few cut words into pieces, many leave them whole."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=257 + merges, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    return tokenizer


def trimming() -> Tokenizer:
    """As GPT-2 and Llama 3 have it: the places that it reports leave out the space before a word."""
    tokenizer = Tokenizer.from_str(bpe(60).to_str())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)  # type: ignore[assignment]
    return tokenizer


def prefixing() -> Tokenizer:
    """As SentencePiece has it: a text is given a space in front, which decoding takes off."""
    words = sorted({f"▁{word}" for word in CORPUS.split()} | {"▁", *"▁abcdefghijklmnopqrstuvwxyzANRST.,"})
    scores = [(END, 0.0), *((word, -1.0 if len(word) > 1 else -9.0) for word in words)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    tokenizer.decoder = decoders.Metaspace()  # type: ignore[assignment]
    return tokenizer


@dataclass
class Read:
    reused: int
    read: int


class ScriptedReader:
    """Reads tokens and gives the logits of a script. fed: the ids of each pass."""

    whole_from = 0

    def __init__(self, tokenizer: Tokenizer, says: Says, prompt_tokens: int) -> None:
        self.tokens = Tokens(tokenizer)
        self.says = says
        self.prompt_tokens = prompt_tokens
        self.ids: list[int] = []
        self.fed: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.ids)

    def step(self, ids: Sequence[int]) -> np.ndarray:
        self.fed.append(list(ids))
        self.ids.extend(ids)
        return self.logits

    def sync_ids(self, ids: Sequence[int]) -> Read:
        same = next((n for n, (a, b) in enumerate(zip(self.ids, ids, strict=False)) if a != b), None)
        kept = min(min(len(self.ids), len(ids)) if same is None else same, len(ids) - 1)
        del self.ids[kept:]
        self.step(ids[kept:])
        return Read(kept, len(ids) - kept)

    def sync_rows(self, ids: Sequence[int], last: int) -> np.ndarray:
        raise NotImplementedError

    @property
    def logits(self) -> np.ndarray:
        size = self.tokens.tokenizer.get_vocab_size()
        said = self.ids[self.prompt_tokens :]
        text = self.tokens.decode(said).rstrip("\ufffd")
        begun = next(n for n in range(len(said) + 1) if self.tokens.decode(said[: len(said) - n]) == text)
        more, sure = self.says(text)
        token = self.tokens.encode(more).ids[begun] if more else 0
        shares = np.full(size, (1 - sure) / (size - 1), np.float32)
        shares[token] = sure
        return np.log(shares)


def side(tokenizer: Tokenizer, says: Says, *, lead: str = "", head: Sequence[int] = (), **options: object) -> Side:
    prompt = len(head) + len(Tokens(tokenizer).encode(lead).ids)
    reader = ScriptedReader(tokenizer, says, prompt)
    return Side(reader, Tokens(tokenizer), head=head, lead=lead, eos_ids=[0], **options)  # type: ignore[arg-type]


def follows(text: str, sure: float = 0.9) -> Says:
    """Goes on with `text`; ends where the answer is all of it, or something else."""
    return lambda said: (text[len(said) :] if text.startswith(said) else "", sure)


def by_table(table: Mapping[str, tuple[str, float]]) -> Says:
    return lambda said: table[said]


def nudge(base: Side, nudger: Side, *, gamma: float = 0.4, tokens: int = 16, **rules: object) -> Loop:
    loop = Loop(
        Sides(base, nudger),
        Threshold(gamma),
        Words(tokens),
        Rules(**{"max_tokens": 100, **rules}),  # type: ignore[arg-type]
        ("base", "nudger"),
    )
    loop.run()
    return loop


def steps(loop: Loop) -> list[tuple[str, str, float | None]]:
    """Who, what, and the base's probability to two places."""
    known = [(one.author, one.text, one.probability) for one in loop.script.steps()]
    return [(author, text, None if sure is None else round(sure, 2)) for author, text, sure in known]


# --- the table of steps ----------------------------------------------------------------------------------------


def nile(said: str) -> tuple[str, float]:
    """A base that needs help at the beginning and for the name; at other places it is sure."""
    table = {
        "": ("So", 0.1),
        "The": (" sea", 0.3),  # neither agrees with " Nile" nor is sure
        "The Nile": (" rises", 0.3),  # agrees, but is not sure: it is nudged once more
        "The Nile rises": (" far", 0.8),  # sure
        "The Nile rises far": (" away", 0.7),
        "The Nile rises far away": (" in", 0.6),
        "The Nile rises far away in": (" the", 0.2),
    }
    unfinished = [text for text in table if text.startswith(said)]
    return table[said] if said in table else (unfinished[0][len(said) :], 0.9)


def nile_nudger(said: str) -> tuple[str, float]:
    plain = "The Nile rises in the south and ends in the north. So it goes on and on and on and on and on and on."
    return (plain[len(said) :], 0.5) if plain.startswith(said) else follows("The Nile rises far away in Africa.")(said)


NILE = [
    ("nudger", "The Nile", 0.1),
    ("nudger", " rises", 0.3),
    ("base", " far away in", 0.6),
    ("nudger", " Africa.", 0.2),
]


KINDS = [bpe(60), bpe(25), prefixing(), trimming()]
NAMES = ["same tokens", "smaller pieces", "prefixing", "trimming"]


@pytest.mark.parametrize("nudger", KINDS, ids=NAMES)
def test_the_steps_are_those_of_the_description_whatever_the_nudgers_tokens(nudger: Tokenizer) -> None:
    loop = nudge(side(bpe(60), nile), side(nudger, nile_nudger))
    assert steps(loop) == NILE
    assert loop.script.text == "The Nile rises far away in Africa." and loop.finish_reason == "stop"
    reasons = [step.why for step in loop.script.steps()]
    assert reasons[0] == "0.10 < 0.4; until both say ' rises'" and "sure of ' far'" in reasons[1]
    assert reasons[2] == "" and reasons[3].endswith("finishes")


def test_a_base_whose_tokens_are_pieces_of_words_is_led_word_by_word_too() -> None:
    loop = nudge(side(bpe(25), nile), side(bpe(60), nile_nudger))
    assert loop.script.text == "The Nile rises far away in Africa."
    assert steps(loop)[:1] == NILE[:1] and steps(loop)[-1] == NILE[-1]


def test_where_the_base_never_agrees_all_but_the_last_word_is_taken() -> None:
    base = side(bpe(60), lambda said: ("So", 0.1 + len(said) / 100))
    loop = nudge(base, side(bpe(60), follows("The Nile rises in the south")), tokens=2, max_tokens=3)
    assert steps(loop) == [("nudger", "The", 0.1), ("nudger", " Nile", 0.13), ("nudger", " rises", 0.18)]
    assert "all but its last word" in loop.script.steps()[0].why


def test_a_word_begins_with_a_token_with_or_without_its_space() -> None:
    assert begins(" wide", " w") and begins(" wide", "wide") and begins("wide", " wide") and begins(" wide", " ")
    assert not begins(" wide", "") and not begins(" wide", " wider") and not begins(" wide", "  w")


# --- seams -----------------------------------------------------------------------------------------------------


def test_a_seam_inside_a_word_is_tokenised_anew_and_nothing_else() -> None:
    tokens = Tokens(bpe(60))
    one = side(bpe(60), follows("x"))
    one.sync("The Nile ris")
    one.logits()
    before = list(one.ids)
    one.sync("The Nile rises far")
    assert one.output == "The Nile rises far" and one.ids == tokens.encode("The Nile rises far").ids
    one.logits()
    changed = next(n for n, (a, b) in enumerate(zip(before, one.ids, strict=False)) if a != b)
    assert isinstance(one.reader, ScriptedReader) and one.reader.fed[1] == one.ids[changed:]
    assert changed == len(tokens.encode("The Nile").ids)


def test_what_a_side_wrote_stays_in_its_own_tokens() -> None:
    one, letters = side(bpe(60), follows("x")), Tokens(bpe(60)).tokenizer
    for letter in "The":
        one.take(letters.encode(letter).ids[0])
    one.sync("The Nile")
    assert one.output == "The Nile" and len(one.ids) == 3 + len(letters.encode(" Nile").ids)
    assert Tokens(letters).decode(one.ids) == "The Nile"


def test_a_plain_prompt_and_its_answer_are_one_text_to_the_tokenizer() -> None:
    one = side(bpe(60), follows("x"), lead="The Ni")
    one.sync("le rises")
    assert one.output == "le rises" and one.ids == Tokens(bpe(60)).encode("The Nile rises").ids


def test_a_tokenizer_that_prefixes_a_space_gets_the_text_right() -> None:
    one = side(prefixing(), follows("x"))
    one.sync("Nile")
    one.sync("Nile rises")
    assert one.output == "Nile rises" and Tokens(prefixing()).decode(one.ids) == "Nile rises"


def test_characters_of_several_tokens_are_never_cut() -> None:
    wanted = "Nile 😀😀 é in the sea"
    assert INSIDE in Tokens(bpe(25)).encode(wanted).ends
    for tokens in range(1, 6):
        base = side(bpe(25), lambda said: ("xx" if said.endswith(" ") else "x", 0.1))
        loop = nudge(base, side(bpe(25), follows(wanted)), tokens=tokens, guarded=False)
        assert wanted.startswith(loop.script.text) and "\ufffd" not in loop.script.text
        assert tokens < 4 or loop.script.text == wanted


@pytest.mark.parametrize("tokenizer", KINDS, ids=NAMES)
def test_a_longer_text_is_read_on_and_not_read_again(tokenizer: Tokenizer) -> None:
    one, text = side(tokenizer, follows("x")), ""
    for word in CORPUS.split():
        text = f"{text} {word}".strip()
        one.sync(text)
        one.logits()
    assert one.output == text and one.meter.reread == 0
    assert one.meter.tokens_in == len(one.ids) == len(Tokens(tokenizer).encode(text).ids)


def test_a_plain_prompt_begins_as_the_tokenizer_begins_a_text() -> None:
    tokenizer = Tokenizer.from_str(bpe(60).to_str())
    assert Tokens(tokenizer).beginning() == []
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{END} $A {END}", special_tokens=[(END, 0)]
    )
    assert Tokens(tokenizer).beginning() == [0] and Tokens(tokenizer).encode("The").ids[0] != 0


def test_what_spells_a_control_token_is_ordinary_text() -> None:
    one = side(bpe(60), follows("x"), lead=f"The {END} of")
    assert 0 not in one.ids and Tokens(bpe(60)).decode(one.ids) == f"The {END} of"


# --- how it ends -----------------------------------------------------------------------------------------------


def test_the_same_nudge_three_times_in_a_row_ends_the_answer() -> None:
    def stuck(said: str) -> tuple[str, float]:
        return ("." if said.endswith("on") else " on", 0.9 if said.endswith("on") else 0.1)

    loop = nudge(side(bpe(60), stuck), side(bpe(60), lambda said: (" on and on and on", 0.9)), tokens=3)
    assert loop.finish_reason == "repetition" and [author for author, *_ in steps(loop)].count("nudger") == 3


def test_a_block_that_stands_there_already_is_left_out_and_ends_the_answer() -> None:
    circle = " the sea is wide and so it goes on and on to the sea is far" * 4
    loop = nudge(side(bpe(60), follows(circle)), side(bpe(60), follows("")), max_tokens=200)
    assert loop.finish_reason == "repetition" and loop.script.text and circle.startswith(loop.script.text)
    assert len(loop.script.text) < len(circle) / 2
    free = nudge(side(bpe(60), follows(circle)), side(bpe(60), follows("")), max_tokens=200, guarded=False)
    assert free.script.text == circle and free.finish_reason == "stop"


def test_an_end_that_stands_there_twice_is_kept_once() -> None:
    line = "The Nile rises in the far south. "
    assert without_repeated_end("So. " + line * 3) == "So. " + line
    assert without_repeated_end("on and on and on") == "on and on and on" and without_repeated_end("") == ""


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it() -> None:
    loop = nudge(side(bpe(60), follows("The Nile. So it goes on")), side(bpe(60), follows("")), stop=(". So",))
    assert loop.script.text == "The Nile" and loop.finish_reason == "stop"
    assert "".join(step.text for step in loop.script.steps()) == "The Nile"


def test_a_nudge_beyond_the_length_is_cut_to_it() -> None:
    base = side(bpe(60), lambda said: ("So", 0.1))
    loop = nudge(base, side(bpe(60), follows("The Nile rises in the south")), max_tokens=2)
    assert loop.finish_reason == "length" and len(Tokens(bpe(60)).encode(loop.script.text).ids) == 2
    assert loop.script.text == "The Nile"


def test_a_nudger_that_says_nothing_ends_the_answer() -> None:
    loop = nudge(side(bpe(60), follows("The Nile", 0.1)), side(bpe(60), follows("")))
    assert (loop.script.text, loop.finish_reason) == ("", "stop")


def test_a_side_that_may_read_or_write_no_more_ends_the_answer_and_says_so() -> None:
    poor = side(bpe(60), follows("The Nile rises in the south and ends"), meter=Meter(most_out=3))
    loop = nudge(poor, side(bpe(60), follows("")))
    assert loop.finish_reason == "length" and "no more than 3 tokens" in loop.short_of
    assert poor.meter.tokens_out == 3 and loop.script.text == poor.output
    narrow = side(bpe(60), follows("The Nile rises in the south and ends"), window_tokens=4)
    assert "window of 4" in nudge(narrow, side(bpe(60), follows(""))).short_of


# --- what it costs ---------------------------------------------------------------------------------------------


def test_without_a_nudge_there_is_one_pass_per_token_and_nothing_is_read_twice() -> None:
    base, nudger = side(bpe(25), follows(CORPUS), head=[5, 6, 7]), side(bpe(60), follows(""))
    loop = nudge(base, nudger, gamma=0.0, max_tokens=40)
    assert isinstance(base.reader, ScriptedReader)
    assert base.reader.fed[0] == [5, 6, 7] and all(len(ids) == 1 for ids in base.reader.fed[1:])
    assert len(base.reader.fed) == 40 == base.meter.passes == base.meter.tokens_out
    assert (base.meter.tokens_in, base.meter.reread, nudger.meter.passes) == (3, 0, 0)
    assert CORPUS.startswith(loop.script.text)


def test_meters_count_what_the_readers_were_fed() -> None:
    base, nudger = side(bpe(25), nile, head=[9]), side(bpe(60), nile_nudger, head=[9, 8])
    nudge(base, nudger)
    for one in (base, nudger):
        assert isinstance(one.reader, ScriptedReader)
        fed = sum(map(len, one.reader.fed))
        unread = one.meter.tokens_in + one.meter.tokens_out - fed  # written and never fed: the end, what was not taken
        assert 0 <= unread <= 2 + one.meter.reread and one.meter.passes == len(one.reader.fed)


def test_a_proposal_is_not_written_twice() -> None:
    wanted = "The Nile rises in the south and ends in the north"
    base = side(bpe(60), follows(wanted, 0.1))  # agrees with each word and is never sure
    nudger = side(bpe(60), follows(wanted))
    loop = nudge(base, nudger, tokens=6)
    assert loop.script.text == wanted and len(loop.script.steps()) > 5
    assert nudger.meter.tokens_out <= len(Tokens(bpe(60)).encode(wanted).ids) + 1


# --- local models ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> LocalModel:
    return tiny_model(0)


@pytest.fixture(scope="module")
def nudger() -> LocalModel:
    return tiny_model(1)


def other_tokens() -> LocalModel:
    """A tiny model whose tokenizer has none of the merges."""
    plain = tiny_counter().tokenizer.to_str()
    tokenizer = Tokenizer.from_str(plain)
    bare = models.BPE(vocab=tokenizer.get_vocab(), merges=[])
    tokenizer.model = bare  # type: ignore[assignment]
    counter = TemplateCounter(tokenizer, tiny_counter().chat_template, name="bare")
    return LocalModel(tiny_llama(2), counter)


def test_with_gamma_0_a_local_base_writes_what_it_writes_alone(base: LocalModel, nudger: LocalModel) -> None:
    sampling = Sampling(max_tokens=24)
    outcome = Nudging(base, nudger, gamma=0.0, plain=None, sampling=sampling).task("Where is the sea?").run()
    alone = base.generate("Where is the sea?", sampling)
    answer = outcome.value
    assert isinstance(answer, NudgedAnswer) and answer.text == alone.text
    assert (answer.base.tokens_in, answer.base.tokens_out) == (alone.prompt_tokens, alone.completion_tokens)
    assert answer.base.passes == alone.completion_tokens and answer.base.reread == 0
    assert answer.nudged_share == 0.0 and answer.nudger.passes == 0 and outcome.spent.calls == 1


@pytest.mark.parametrize("helper", ["same tokens", "other tokens"])
def test_local_models_are_paid_for_token_by_token(base: LocalModel, nudger: LocalModel, helper: str) -> None:
    small = nudger if helper == "same tokens" else other_tokens()
    method = Nudging(base, small, gamma=0.09, sampling=Sampling(max_tokens=24))
    outcome = method.task("Where is the sea?").run(paid_by=Limits(tokens=2000))
    answer = outcome.value
    assert outcome.paid == outcome.spent and outcome.spent.calls == 2
    assert outcome.spent.tokens_in == answer.base.tokens_in + answer.nudger.tokens_in
    assert answer.text == "".join(step.text for step in answer.steps) and 0 < answer.nudged_share <= 1
    assert {message.step for message in outcome.trace.messages} == {"write: base", "write: nudger"}
    assert "nudger" in answer.table() and outcome.degraded == ()


def test_a_run_that_cannot_pay_refuses_before_anything_is_computed(base: LocalModel, nudger: LocalModel) -> None:
    account = Run(Limits(tokens=300))
    with pytest.raises(BudgetOverdrawn):
        Nudging(base, nudger, sampling=Sampling(max_tokens=64)).task("Where?").run(paid_by=account)
    assert account.spent.tokens == account.report().reserved.tokens == 0


def test_a_run_that_degrades_gets_a_shorter_answer_within_its_limit(base: LocalModel, nudger: LocalModel) -> None:
    account = Run(Limits(tokens=700), overdraft="degrade")
    outcome = Nudging(base, nudger, gamma=0.9, sampling=Sampling(max_tokens=64)).task("Where?").run(paid_by=account)
    assert "not 64" in outcome.degraded[0] and outcome.spent.tokens <= 700
    assert account.report().overdrawn.tokens == 0


def test_an_answer_is_one_step_of_the_checkpoint(base: LocalModel, nudger: LocalModel, tmp_path: Path) -> None:
    method = Nudging(base, nudger, gamma=0.5, sampling=Sampling(max_tokens=12))
    first = method.task("Where?").run(checkpoint=tmp_path / "run")
    again = method.task("Where?").run(checkpoint=tmp_path / "run")
    assert again.value == first.value and again.spent == first.spent and again.paid.tokens == 0


def test_cancelling_pays_for_what_was_computed_and_leaves_no_thread_at_work(
    base: LocalModel, nudger: LocalModel
) -> None:
    account, begun = Run(Limits(tokens=20_000)), threading.Event()
    method = Nudging(base, nudger, gamma=1.0, plain=None, sampling=Sampling(max_tokens=1200))
    watched = base.engine.forward

    def forward(*args: object, **options: object) -> object:
        begun.set()
        return watched(*args, **options)  # type: ignore[arg-type]

    async def main() -> None:
        task = asyncio.ensure_future(method.task("Where?").arun(paid_by=account))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    base.engine.forward = forward  # type: ignore[method-assign, assignment]
    try:
        asyncio.run(main())
    finally:
        base.engine.forward = watched  # type: ignore[method-assign]
    report = account.report()
    assert report.spent.tokens > 0 and report.reserved.tokens == 0


def test_an_answer_that_takes_too_long_is_a_timeout(base: LocalModel, nudger: LocalModel) -> None:
    method = Nudging(base, nudger, gamma=1.0, sampling=Sampling(max_tokens=1200), timeout_seconds=0.01)
    with pytest.raises(CallTimeout, match="0.01 seconds"):
        method.task("Where?").run()


def test_what_cannot_work_is_refused_with_what_to_do(base: LocalModel, nudger: LocalModel) -> None:
    with pytest.raises(CapabilityMissing, match="take a LocalModel") as missing:
        Nudging(base, ScriptedModel(["x"]))
    assert missing.value.capability == "sync_text"
    for wrong in ({"gamma": 1.5}, {"plain": "no place"}, {"block_tokens": 0}, {"sampling": Sampling(temperature=1)}):
        with pytest.raises(ValueError, match="`|greedily"):
            Nudging(base, nudger, **wrong)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="window"):
        Nudging(base, nudger, sampling=Sampling(max_tokens=4000)).task("Where?").run()
