"""What images, files and opaque blocks cost, by the published rules; and how counters charge them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.errors import CtxkitError, PartError
from ctxkit.protocols import TEMPLATE, Counter, PromptMessage, Segment
from ctxkit.testing import WhitespaceCounter
from ctxkit.testing.tiny import tiny_tokenizer
from ctxkit.tokens import (
    AnthropicImages,
    AnthropicPatches,
    EstimatingCounter,
    FilePages,
    FixedCost,
    MediaRule,
    MediaRules,
    OpenAIChatCounter,
    OpenAIPatches,
    OpenAITiles,
    QwenVL,
    TemplateCounter,
    messages_from_dicts,
)
from ctxkit.tokens.image_size import image_size

# --- headers, written by hand -----------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\0\0\0"


def jpeg(width: int, height: int, profile_bytes: int = 0) -> bytes:
    profile = b"".join(
        b"\xff\xe2" + struct.pack(">H", 2 + 60_000) + bytes(60_000) for _ in range(profile_bytes // 60_000)
    )
    return (
        b"\xff\xd8\xff\xe0\0\x10JFIF"
        + bytes(10)
        + profile
        + b"\xff\xff\xc2\0\x11\x08"
        + struct.pack(">HH", height, width)
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height)


def bmp(width: int, height: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<Iii", 40, width, -height)


def webp_lossy(width: int, height: int) -> bytes:
    return b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\x9d\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)


def webp_lossless(width: int, height: int) -> bytes:
    return b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)


def webp_extended(width: int, height: int) -> bytes:
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + sides


HEADERS: list[Callable[[int, int], bytes]] = [png, jpeg, gif, bmp, webp_lossy, webp_lossless, webp_extended]


@pytest.mark.parametrize("header", HEADERS)
@given(width=st.integers(1, 16_383), height=st.integers(1, 16_383))
def test_every_format_names_its_size(header: Callable[[int, int], bytes], width: int, height: int) -> None:
    assert image_size(header(width, height)) == (width, height)
    assert image_size(header(width, height) + b"pixels") == (width, height)


@pytest.mark.parametrize("header", HEADERS)
@given(stop=st.integers(0, 60), changes=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 255)), max_size=4))
def test_a_damaged_image_is_a_typed_error_or_a_size(
    header: Callable[[int, int], bytes], stop: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(header(640, 480))
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        width, height = image_size(bytes(data[:stop]))
    except PartError:
        return
    assert width > 0
    assert height > 0


@pytest.mark.parametrize(
    "garbage", [b"", b"<svg/>", b"\0" * 40, b"RIFF\0\0\0\0WAVEfmt ", jpeg(8, 8)[:-6] + b"\xff\xd9"]
)
def test_garbage_is_refused_with_what_to_do(garbage: bytes) -> None:
    with pytest.raises(PartError, match=r"convert the image|damaged|send the whole file"):
        image_size(garbage)


# --- rules ------------------------------------------------------------------------------------------------------------


def image(data: bytes, **fields: Any) -> dict[str, Any]:
    url = "data:image/x;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url, **fields}}


FAR = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
GPT_41 = OpenAIPatches(multiplier=1.0)
PUBLISHED = [
    (OpenAITiles(), 1024, 1024, 765),
    (OpenAITiles(), 2048, 4096, 1105),
    (OpenAITiles(), 512, 512, 255),
    (OpenAITiles(2_833, 5_667), 1024, 1024, 25_501),
    (GPT_41, 1024, 1024, 1024),
    (GPT_41, 1800, 2400, 1452),
    (OpenAIPatches(), 1024, 1024, 1659),
    (OpenAIPatches(2.46), 32, 33, 5),
    (OpenAIPatches(1.72), 1800, 2400, 2498),
    (AnthropicImages(), 200, 200, 54),
    (AnthropicImages(), 1000, 1000, 1334),
    (AnthropicImages(), 1092, 1092, 1590),
    (AnthropicImages(), 8000, 8000, 1600),
    (AnthropicPatches(), 1024, 1024, 1369),
    (AnthropicPatches(), 1920, 1080, 1600),
    (QwenVL(), 1024, 1024, 37 * 37 + 2),
    (QwenVL(max_pixels=1280 * 28 * 28), 4096, 4096, 35 * 35 + 2),
    (QwenVL(), 10, 10, 4 + 2),
    (FixedCost(576), 10, 10, 576),
]


@pytest.mark.parametrize(("rule", "width", "height", "tokens"), PUBLISHED, ids=str)
def test_a_rule_gives_its_published_counts(rule: MediaRule, width: int, height: int, tokens: int) -> None:
    assert rule.tokens(image(png(width, height))) == tokens


RULES: list[MediaRule] = [
    OpenAITiles(),
    OpenAIPatches(),
    OpenAIPatches(strict_bound=True),
    AnthropicImages(),
    AnthropicPatches(),
    QwenVL(),
    FixedCost(9),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(width=st.integers(1, 30_000), ratio=st.floats(0.01, 100))
def test_an_image_out_of_sight_is_charged_no_less_than_any(rule: MediaRule, width: int, ratio: float) -> None:
    height = min(max(int(width * ratio), 1), 30_000)
    if max(width, height) <= 200 * min(width, height):
        assert 0 < rule.tokens(image(png(width, height))) <= rule.tokens(FAR)


def test_low_detail_costs_the_base_and_is_not_looked_into() -> None:
    assert OpenAITiles().tokens(image(b"", detail="low")) == 85
    assert OpenAITiles().tokens(image(png(2048, 4096), detail="high")) == 1105


def test_the_other_forms_of_an_image_block_are_read_too() -> None:
    encoded = base64.b64encode(png(1000, 1000)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": encoded}
    assert AnthropicImages().tokens({"type": "image", "source": source}) == 1334
    assert AnthropicImages().tokens({"type": "input_image", "image_url": f"data:image/png;base64,{encoded}"}) == 1334


def test_a_size_behind_a_long_colour_profile_is_found() -> None:
    assert OpenAITiles().tokens(image(jpeg(512, 512, profile_bytes=240_000))) == 255


def test_a_data_url_that_is_no_image_is_refused() -> None:
    with pytest.raises(PartError, match="none of PNG"):
        OpenAITiles().tokens(image(b"hello"))
    with pytest.raises(PartError, match="not base64"):
        OpenAITiles().tokens({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}})


def test_qwen_refuses_a_sliver() -> None:
    with pytest.raises(PartError, match="200 to 1"):
        QwenVL().tokens(image(png(2_001, 10)))


FILE = {"type": "file", "file": {"filename": "report.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}


def test_files_are_charged_by_the_page() -> None:
    assert FilePages(1_500, pages={"report.pdf": 12}).tokens(FILE) == 18_000
    assert FilePages(1_500).tokens({**FILE, "metadata": {"pages": 2}}) == 3_000


def test_a_file_of_unknown_length_says_what_to_do() -> None:
    with pytest.raises(PartError, match=r"'report.pdf'.*pages=\{name: pages\}"):
        FilePages(1_500).tokens(FILE)


def test_rules_are_combined_by_type() -> None:
    rules = MediaRules(images=OpenAITiles(), files=FilePages(10, {"report.pdf": 3}))
    assert (rules.tokens(FAR), rules.tokens(FILE)) == (1445, 30)
    with pytest.raises(PartError, match=r"'input_audio'; pass MediaRules\(others="):
        rules.tokens({"type": "input_audio", "input_audio": {}})
    with pytest.raises(PartError, match="OpenAITiles prices images, not .* 'file'"):
        OpenAITiles().tokens(FILE)


# --- counters ---------------------------------------------------------------------------------------------------------


def template_counter(media: MediaRule | None) -> Counter:
    return TemplateCounter(tiny_tokenizer(), media=media)


def openai_counter(media: MediaRule | None) -> Counter:
    return OpenAIChatCounter(WhitespaceCounter().count, media=media)


COUNTERS: dict[str, Callable[[MediaRule | None], Counter]] = {
    "template": template_counter,
    "openai": openai_counter,
    "estimate": lambda media: EstimatingCounter(media=media),
    "whitespace": lambda media: WhitespaceCounter(media=media),
}
every_counter = pytest.mark.parametrize("make", COUNTERS.values(), ids=COUNTERS)
Make = Callable[[MediaRule | None], Counter]


def _message(*blocks: dict[str, Any]) -> PromptMessage:
    return PromptMessage(
        "user", (Segment("see ", "a"), *(Segment("", "b", block) for block in blocks), Segment("this", "a"))
    )


@every_counter
def test_an_image_is_charged_to_its_owner_and_leaves_no_ids(make: Make) -> None:
    counter = make(OpenAITiles())
    plain, seen = counter.render([_message()]), counter.render([_message(image(png(1024, 1024)), FAR)])
    assert seen.by_owner["b"] == 765 + 1445
    assert seen.ids is None
    assert seen.tokens == sum(seen.by_owner.values())
    assert seen.by_owner[TEMPLATE] == plain.by_owner.get(TEMPLATE, 0) if TEMPLATE in seen.by_owner else True


@every_counter
def test_media_without_a_rule_are_refused_with_what_to_do(make: Make) -> None:
    with pytest.raises(PartError, match=r"'image_url' is not text.*pass `media=`"):
        make(None).render([_message(FAR)])


OPAQUE = [
    {"type": "thinking", "thinking": "let me think about it", "signature": "x" * 500},
    {"type": "thinking", "thinking": [{"type": "text", "text": "let me think about it"}]},
    {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "let me think about it"}],
        "encrypted_content": "y",
    },
]


@every_counter
@pytest.mark.parametrize("block", OPAQUE, ids=lambda block: json.dumps(block)[:30])
def test_thinking_is_charged_its_text_and_no_signature(make: Make, block: dict[str, Any]) -> None:
    counter = make(None)
    assert counter.render([_message(block)]).by_owner["b"] == counter.count("let me think about it")


@every_counter
def test_sealed_thinking_is_charged_nothing(make: Make) -> None:
    blocks = ({"type": "redacted_thinking", "data": "z" * 900}, {"type": "reasoning", "encrypted_content": "z" * 900})
    assert make(None).render([_message(*blocks)]).by_owner.get("b", 0) == 0


@every_counter
def test_another_block_of_the_provider_is_charged_its_fields(make: Make) -> None:
    counter = make(None)
    call = {"type": "server_tool_use", "name": "web_search", "input": {"query": "rivers and seas"}}
    assert counter.render([_message(call)]).by_owner["b"] == counter.count(json.dumps(call))


@every_counter
def test_the_text_is_counted_as_without_the_image(make: Make) -> None:
    blocks: list[Any] = [{"type": "text", "text": "two words"}, FAR, {"type": "text", "text": " and more"}]
    rendering = make(FixedCost(100)).render(messages_from_dicts([{"role": "user", "content": blocks}]))
    texts = [block for block in blocks if block["type"] == "text"]
    without = make(None).render(messages_from_dicts([{"role": "user", "content": texts}]))
    assert rendering.tokens == without.tokens + 100


@every_counter
def test_a_rule_that_fails_is_a_typed_error(make: Make) -> None:
    with pytest.raises(CtxkitError):
        make(OpenAITiles()).render([_message(FILE)])


def test_fields_that_ctxkit_does_not_know_are_estimated() -> None:
    counter = EstimatingCounter()
    plain, more = (
        counter.render(messages_from_dicts([{"role": "assistant", "content": "yes", **fields}])).tokens
        for fields in ({}, {"reasoning_content": "a long and winding thought"})
    )
    assert more >= plain + counter.count("a long and winding thought")
