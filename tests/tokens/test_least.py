"""The lower bound is never above a real count, and near enough to notice a cut."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.tokens import EstimatingCounter, TemplateCounter, at_least, messages_from_dicts
from ctxkit.tokens.least import least_tokens

PROSE = "The river carries its water to the sea, and nobody has ever asked it why it does so. " * 20
CODE = Path(__file__).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def smollm2() -> TemplateCounter:
    folder = Path(platformdirs.user_cache_dir("ctxkit")) / "models" / "smollm2-135m-instruct"
    if not folder.is_dir():
        pytest.skip("SmolLM2 is not prepared: run `ctxkit models prepare`")
    return TemplateCounter.from_folder(folder)


@given(text=st.one_of(st.text(max_size=200), st.text(alphabet="abcdeETS '123\n\t_(\"éß漢\u0301ﬁ", max_size=80)))
@settings(deadline=None, max_examples=400)
def test_a_real_tokenizer_never_counts_less(smollm2: TemplateCounter, text: str) -> None:
    assert least_tokens(text) <= smollm2.count(text)


@given(st.text(max_size=200))
def test_it_is_never_above_the_upper_bound(text: str) -> None:
    assert least_tokens(text) <= EstimatingCounter().count(text)


@pytest.mark.parametrize("text", [PROSE, CODE], ids=["prose", "code"])
def test_it_is_at_least_half_the_upper_bound_on_prose_and_code(text: str) -> None:
    assert EstimatingCounter().count(text) / 2 <= least_tokens(text) <= EstimatingCounter().count(text)


def test_what_a_server_may_read_as_a_control_token_counts_nothing() -> None:
    assert least_tokens("<|im_start|><tool_call>[INST]") == 0


def test_thoughts_of_earlier_answers_tools_and_calls_are_left_out() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chat = messages_from_dicts(
        [
            {"role": "user", "content": "one two"},
            {"role": "assistant", "content": "<think>a b c\nd</think>three four", "tool_calls": [call]},
        ]
    )
    assert at_least(chat) == EstimatingCounter.at_least(chat) == 4


def test_a_prompt_holds_at_least_its_messages() -> None:
    chat = messages_from_dicts([{"role": "user", "content": PROSE}])
    assert at_least(chat) <= EstimatingCounter().render(chat).tokens
