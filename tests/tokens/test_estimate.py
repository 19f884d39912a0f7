"""The estimate is never below a real count, adds up, and survives any input."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Segment
from ctxkit.tokens import bpe_bound
from ctxkit.tokens import estimate as estimate_module
from ctxkit.tokens.bpe_bound import FAMILIES, family_bounds, merged_length
from ctxkit.tokens.estimate import EstimatingCounter

COUNTER = EstimatingCounter(families=FAMILIES)

# Real counts of (cl100k_base, Qwen 2, o200k_base, SmolLM2, GPT-2), in the order of FAMILIES.
RECORDED = [
    ("Hello world", (2, 2, 2, 2, 2)),
    ("The quick brown fox jumps over the lazy dog.", (10, 10, 10, 10, 10)),
    ("don't DON'T they'll I'VE it's", (11, 11, 6, 13, 12)),
    ("HTTPServerError camelCaseName snake_case_name", (8, 8, 9, 12, 12)),
    ('    def f(self, x: int) -> str:\n        return f"{x!r}"\n', (20, 20, 20, 22, 32)),
    ("1234567890 3.14159 2024-03-07T11:22:33Z", (23, 39, 23, 39, 20)),
    ("上下文窗口是有限的资源。", (12, 8, 8, 20, 24)),
    ("หน้าต่างบริบทของแบบจำลอง", (22, 11, 9, 45, 48)),
    ("मॉडल की संदर्भ सीमा निश्चित होती है।", (36, 33, 11, 41, 59)),
    ("نافذة السياق", (9, 7, 4, 11, 13)),
    ("Окно контекста ограничено", (13, 9, 8, 19, 28)),
    ("문맥의 길이는 정해져 있습니다.", (14, 11, 10, 34, 36)),
    ("東京タワーは一九五八年に完成しました。", (20, 13, 14, 31, 26)),
    ("👩‍👩‍👧‍👦🏳️‍🌈🧑🏽‍💻", (37, 20, 25, 38, 34)),
    ("e\u0301te\u0301 \u0958 \u1112\u1161\u11ab", (16, 5, 16, 18, 18)),
    ("<|im_start|>system\nYou are<|im_end|><|endoftext|>", (22, 22, 22, 24, 24)),
    ("====----====\n\n\n\t\t  \r\n\r\n", (6, 6, 6, 7, 13)),
    ("550e8400-e29b-41d4-a716-446655440000", (18, 34, 18, 36, 22)),
    ("aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQ=", (27, 28, 22, 31, 28)),
    ("deadbeef cafebabe 0x7ffee4c0", (14, 14, 14, 15, 13)),
    ("SolidGoldMagikarp StreamerBot", (8, 8, 8, 8, 5)),
    ("antidisestablishmentarianism floccinaucinihilipilification", (15, 15, 15, 15, 14)),
    ("xqzjkvwpt QZXJKVB zzzzzzzz", (15, 15, 15, 19, 18)),
    ("\x00\x01\x1c\x1f\x7f\x85", (7, 7, 7, 7, 7)),
    ("the's\u017f '\u017f 'LLama", (10, 8, 8, 10, 10)),
    ("\U00020bb7\u91ce\u5bb6\u3067\U0001d573\U0001d58a\U0001d591\U0001d591\U0001d594", (23, 9, 22, 25, 24)),
    ("\u0130stanbul \u01c5 \xdf \ufb01 \xbd \u2460", (14, 14, 12, 15, 15)),
]

ANY_TEXT = st.text(alphabet=st.characters(), max_size=200)


def message(*segments: tuple[str, str | None], **more: object) -> PromptMessage:
    return PromptMessage("user", tuple(Segment(text, owner) for text, owner in segments), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "real"), RECORDED, ids=[ascii(text)[:30] for text, _ in RECORDED])
def test_no_family_is_estimated_below_its_recorded_count(text: str, real: tuple[int, ...]) -> None:
    assert all(bound >= count for bound, count in zip(family_bounds(text), real, strict=True))
    assert COUNTER.count(text) >= max(real)


def test_common_english_is_counted_exactly() -> None:
    assert COUNTER.count("The quick brown fox jumps over the lazy dog.") == 10


def test_chinese_stays_within_the_dearest_tokenizer() -> None:
    assert COUNTER.count("上下文窗口是有限的资源。") == 24


def test_recorded_cases_stay_tight_in_sum() -> None:
    estimated = sum(COUNTER.count(text) for text, _ in RECORDED)
    assert estimated <= 1.2 * sum(max(real) for _, real in RECORDED)


def test_the_counter_says_that_it_is_not_exact() -> None:
    assert COUNTER.exact is False
    assert COUNTER.name == "estimate"
    assert EstimatingCounter(name="gpt-x").name == "gpt-x"


@given(ANY_TEXT)
def test_a_text_costs_at_least_one_token_and_at_most_its_bytes(text: str) -> None:
    # Qwen reads normal form C, which may be longer; three times is Unicode's own limit for UTF-8.
    limit = 3 * len(text.encode("utf-8", "surrogatepass"))
    assert min(len(text), 1) <= COUNTER.count(text) <= limit


@given(st.lists(ANY_TEXT, max_size=6))
def test_a_batch_equals_single_counts(texts: list[str]) -> None:
    assert COUNTER.count_batch(texts * 2) == [COUNTER.count(text) for text in texts] * 2


def test_equal_texts_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    real = bpe_bound.family_bounds
    monkeypatch.setattr(estimate_module, "family_bounds", lambda text: (seen.append(text), real(text))[1])
    assert len(COUNTER.count_batch(["a", "b", "a", "a"])) == 4
    assert seen == ["a", "b"]


def test_special_tokens_are_ordinary_characters() -> None:
    assert COUNTER.count("<|endoftext|>") >= 7


@pytest.mark.parametrize(
    "text",
    [
        "\ud800",
        "a\udfffb",
        "\0" * 100,
        "\ufffe\uffff",
        "\U0010ffff",
        " " * 5000,
        "\n" * 5000,
        "'" * 999,
        "\u0301" * 999,
    ],
    ids=ascii,
)
def test_odd_text_is_counted(text: str) -> None:
    assert 1 <= COUNTER.count(text) <= len(text.encode("utf-8", "surrogatepass"))


def test_empty_text_costs_nothing() -> None:
    assert COUNTER.count("") == 0
    assert COUNTER.count_batch([]) == []


@pytest.mark.parametrize("unit", ["a", "=", " ", "word ", "é", "漢", "x1", "\n", "a'", "\u0301"], ids=ascii)
def test_a_long_line_without_a_break_is_counted(unit: str) -> None:
    text = unit * (200_000 // len(unit.encode()))
    assert 0 < COUNTER.count(text) <= 200_000


def test_fewer_families_are_never_dearer() -> None:
    text = "        indented = code\n" * 3
    assert EstimatingCounter(families=("o200k",)).count(text) < COUNTER.count(text)
    assert COUNTER.count(text) == max(EstimatingCounter(families=(name,)).count(text) for name in FAMILIES)


def test_a_wrong_setting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="message_tokens.*-1"):
        EstimatingCounter(message_tokens=-1)
    with pytest.raises(ValueError, match="families.*wordpiece"):
        EstimatingCounter(families=("wordpiece",))


# --- BPE itself, against an independent implementation ----------------------------------------------------------------


@pytest.fixture(scope="module")
def small_bpe() -> tuple[Tokenizer, Mapping[bytes, int]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    words = [word for path in Path(bpe_bound.__file__).parent.glob("*.py") for word in path.read_text("utf-8").split()]
    tokenizer.train_from_iterator(words, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    tokens = ["".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in merges]
    return tokenizer, {token.encode(): rank for rank, token in enumerate(tokens) if token.isascii()}


@given(seed=st.integers(0, 10**9), size=st.integers(1, 300), share=st.floats(0, 1))
@settings(deadline=None)
def test_the_first_merges_never_count_less_than_all_merges(
    small_bpe: tuple[Tokenizer, Mapping[bytes, int]], seed: int, size: int, share: float
) -> None:
    tokenizer, ranks = small_bpe
    rng = random.Random(seed)
    text = "".join(rng.choices([*map(bytes.decode, ranks), *"etaoinsr_().="], k=size))[:size]
    full = len(tokenizer.encode(text).ids)
    first = {token: rank for token, rank in ranks.items() if rank < share * len(ranks)}
    assert merged_length(text.encode(), ranks) == full
    assert merged_length(text.encode(), first) >= full


def test_both_ways_of_merging_agree() -> None:
    ranks = bpe_bound._tables().ascii["gpt2"]
    rng = random.Random(1)
    for size in (2, 7, 20, 48):
        for _ in range(100):
            piece = "".join(rng.choices("abcdeinorst", k=size)).encode()
            assert merged_length(piece, ranks) == bpe_bound._merged_length_heap(piece, ranks)


# --- the data file ----------------------------------------------------------------------------------------------------


def test_the_data_file_is_small_and_whole() -> None:
    assert Path(bpe_bound.__file__).with_name("data").joinpath("bpe_bounds.xz").stat().st_size < 120_000
    words = bpe_bound._tables().words
    assert len(words) > 25_000
    assert all(word.isascii() and word.removeprefix(" ").isalpha() for word in words)


# --- render -----------------------------------------------------------------------------------------------------------


def test_a_prompt_without_messages_costs_its_template() -> None:
    rendering = COUNTER.render([])
    assert (rendering.tokens, rendering.ids, rendering.by_owner) == (32, None, {TEMPLATE: 32})


def test_overheads_go_to_the_template_and_texts_to_their_owners() -> None:
    rendering = COUNTER.render([message(("Hello world", "q")), message((" and", None))])
    assert rendering.by_owner == {TEMPLATE: 32 + 2 * 8 + 1, "q": 2}
    assert rendering.tokens == 51


def test_a_piece_is_charged_to_the_segment_it_begins_in() -> None:
    rendering = COUNTER.render([message(("The qui", "a"), ("ck brown", "b"), ("", "c"), (" fox", "d"))])
    assert rendering.by_owner == {TEMPLATE: 40, "a": 2, "b": 1, "d": 1}


def test_tools_and_calls_are_charged_apart() -> None:
    tool = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"q": "naïve 漢"}'}}
    plain = COUNTER.render([message(("go", "q"))])
    rendering = COUNTER.render([message(("go", "q"), tool_calls=(call,), owner="turn")], tools=[tool])
    assert rendering.by_owner[TOOLS] > 256
    assert rendering.by_owner["turn"] >= COUNTER.count(json.dumps(call, ensure_ascii=False, separators=(",", ":")))
    assert rendering.by_owner[TEMPLATE] == plain.by_owner[TEMPLATE]
    assert rendering.tokens == sum(rendering.by_owner.values())


@given(st.lists(st.lists(st.tuples(ANY_TEXT, st.sampled_from(["a", "b", None])), max_size=4), max_size=4))
@settings(deadline=None)
def test_owners_add_up_and_segments_never_change_the_total(parts: list[list[tuple[str, str | None]]]) -> None:
    split = COUNTER.render([message(*segments) for segments in parts])
    whole = COUNTER.render([message(("".join(text for text, _ in segments), "a")) for segments in parts])
    assert sum(split.by_owner.values()) == split.tokens
    assert split.tokens == whole.tokens
    assert min(split.by_owner.values()) >= 0


# --- a real tokenizer, where one has been prepared --------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    path = Path(platformdirs.user_cache_dir("ctxkit")) / "models" / "smollm2-135m-instruct" / "tokenizer.json"
    if not path.is_file():
        pytest.skip("SmolLM2 is not prepared: run `ctxkit models prepare`")
    return Tokenizer.from_file(str(path))


@given(text=st.one_of(st.text(max_size=200), st.text(alphabet="abcdeETS '123\n\t_(\"éß漢", max_size=80)))
@settings(deadline=None, max_examples=400)
def test_smollm2_is_never_estimated_below_its_count(smollm2: Tokenizer, text: str) -> None:
    if "<" not in text:  # a special token spelled out would be one token
        assert family_bounds(text)[FAMILIES.index("smollm2")] >= len(smollm2.encode(text, add_special_tokens=False).ids)
