"""ReAGent: it finds the token that decides, the same one for the same seed, and says so in every form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import StringIO
from random import Random
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ctxkit import Sampling
from ctxkit.context import Limits
from ctxkit.errors import BudgetOverdrawn
from ctxkit.testing import ScriptedModel, tiny_counter, tiny_model
from ctxkit_agents.errors import AnswerMalformed, CapabilityMissing
from ctxkit_agents.reagent import ReAGent
from ctxkit_agents.replacing import MaskedReplacer


class KeyModel(ScriptedModel):
    """Says "Y" where the prompt holds the digit 7, and "N" where not; anything else is as likely as anything."""

    capabilities = frozenset({"score", "logits"})

    def __init__(self) -> None:
        super().__init__(lambda request: "Y" if "7" in request.messages[-1].content else "N", counter=tiny_counter())
        self.vocabulary = tiny_counter().tokenizer.get_vocab_size()
        self.key, self.yes, self.no = (tiny_counter().tokenizer.token_to_id(one) for one in "7YN")

    def logits(self, ids: Sequence[int], *, last: int = 1) -> np.ndarray:
        rows = np.zeros((last, self.vocabulary), np.float32)
        for row, end in enumerate(range(len(ids) - last + 1, len(ids) + 1)):
            rows[row, self.yes if self.key in ids[:end] else self.no] = 9.0
        return rows


PROMPT = "abc def 7 ghi jkl mno"


def test_the_token_that_decides_is_the_most_important() -> None:
    value = ReAGent(KeyModel(), top_k=1, settled_after=8).task(PROMPT).run().value
    assert value.answer == "Y" and value.settled and value.top(1)[0].text == "7"
    assert sum(token.importance for token in value.tokens) == pytest.approx(1)
    assert "".join(token.text for token in value.tokens) == PROMPT
    assert all(PROMPT[token.start : token.end] == token.text for token in value.tokens)


def test_equal_seeds_give_equal_importances_and_others_do_not() -> None:
    model = tiny_model()
    task = ReAGent(model, Sampling(max_tokens=2), most_steps=4).task("the sea is the end")
    other = ReAGent(model, Sampling(max_tokens=2), most_steps=4, seed=1).task("the sea is the end")
    first = task.run().value
    assert task.run().value == first and other.run().value.tokens != first.tokens
    assert first.steps <= 4 and first.tokens_read > 0


def test_with_and_without_sessions_the_importances_are_the_same() -> None:
    shared, whole = tiny_model(), tiny_model()
    whole.capabilities = frozenset({"score", "logits"})  # type: ignore[misc]
    made = [
        ReAGent(model, most_steps=5).task("the sea is the end", answer="the ferry", targets=2).run()
        for model in (shared, whole)
    ]
    importances = [[token.importance for token in one.value.tokens] for one in made]
    assert importances[0] == pytest.approx(importances[1], abs=1e-5)
    assert made[0].value.tokens_read < made[1].value.tokens_read == made[1].spent.tokens_in


def test_several_tokens_of_an_answer_are_explained_together() -> None:
    value = ReAGent(KeyModel(), most_steps=3).task(PROMPT, answer="YN and more", targets=2).run().value
    assert value.answer == "YN" and 3 < value.steps <= 6


def test_what_it_costs_is_paid_for_before_it_is_done() -> None:
    task = ReAGent(KeyModel(), most_steps=2, settled_after=5).task(PROMPT, answer="Y")
    spent = task.run().spent
    assert spent.calls == 2 + 2 * 2  # predictions, the whole prompt, and two passes a step
    assert task.run(paid_by=Limits(tokens_in=spent.tokens_in)).spent == spent
    with pytest.raises(BudgetOverdrawn):
        task.run(paid_by=Limits(tokens_in=spent.tokens_in - 1))


def test_where_it_does_not_settle_it_says_so() -> None:
    value = ReAGent(KeyModel(), most_steps=1).task(PROMPT).run().value
    assert not value.settled and value.steps == 1


def test_any_replacer_will_do() -> None:
    class Dots:
        """Replaces by a dot."""

        def replacements(self, pieces: Sequence[str], places: Sequence[int], draw: Random) -> Sequence[str]:
            assert "".join(pieces) == PROMPT
            return ["." for _ in places]

    outcome = ReAGent(KeyModel(), top_k=1, settled_after=8, replacer=Dots()).task(PROMPT).run()
    assert outcome.value.top(1)[0].text == "7"
    assert not any(message.step == "predict" for message in outcome.trace.messages)


def masked_model() -> tuple[Any, Any]:
    """A BERT of random weights and a vocabulary of a few words."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = {word: at for at, word in enumerate("[PAD] [UNK] [MASK] the sea is end Y 7 abc".split())}
    inner = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return BertForMaskedLM(config), tokenizer


def test_a_masked_model_replaces_words_by_others_and_keeps_their_space() -> None:
    replacer = MaskedReplacer(*masked_model())
    pieces = ["the", " sea", " is", " the", " end"]
    made = replacer.replacements(pieces, [1, 3], Random(0))
    assert made == replacer.replacements(pieces, [1, 3], Random(0))
    assert all(one.startswith(" ") and one.strip() in "the sea is end Y 7 abc".split() for one in made)
    assert made[0] != " sea" and made[1] != " the"
    long = [" sea"] * 50
    assert replacer.replacements(long, [0, 49], Random(0))[1] == " sea"  # beyond what the model takes
    value = ReAGent(KeyModel(), most_steps=2, replacer=replacer).task("the sea is 7").run().value
    assert len(value.tokens) > 3


def test_it_is_shown_in_brackets_in_colours_and_as_html() -> None:
    value = ReAGent(KeyModel(), top_k=1, settled_after=8).task("<b> def 7 ghi").run().value
    assert "[[7]]" in str(value) and str(value).endswith("'Y'")
    assert "&lt;" in value._repr_html_() and "<b> def" not in value._repr_html_() and "<mark" in value._repr_html_()
    console = Console(record=True, width=80, file=StringIO())
    console.print(value)
    assert "def 7 ghi" in console.export_text()
    assert json.loads(json.dumps(value.to_dict()))["answer"] == "Y"


def test_what_cannot_be_explained_is_refused() -> None:
    with pytest.raises(CapabilityMissing, match="logits"):
        ReAGent(ScriptedModel(["a"])).task("b").run()
    with pytest.raises(AnswerMalformed, match="empty"):
        ReAGent(KeyModel()).task("b", answer="").run()
    with pytest.raises(ValueError, match="prompt"):
        ReAGent(KeyModel()).task("  ")
    with pytest.raises(ValueError, match="targets"):
        ReAGent(KeyModel()).task("a", targets=0)


@pytest.mark.parametrize(
    "wrong", [{"replaced": 0.0}, {"kept": 1.0}, {"top_k": 0}, {"settled_after": 0}, {"most_steps": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ReAGent(KeyModel(), **wrong)
