"""What every Model keeps, whatever is behind it: one matrix over the scripted, the local and the remote model."""

from __future__ import annotations

import asyncio

import pytest

from ctxkit.errors import ModelError, PromptError
from ctxkit.protocols import Model, PromptMessage, Reply, Sampling, Segment

SAMPLING = Sampling(max_tokens=12)


async def _pieces(model: Model, prompt: str, sampling: Sampling) -> tuple[list[str], Reply]:
    stream = model.astream(prompt, sampling)
    return [piece async for piece in stream], stream.reply


def test_it_is_a_model(model: Model) -> None:
    assert isinstance(model, Model)
    assert model.window_tokens > 0
    assert model.counter.count("one two") > 0
    assert "\n" not in repr(model)


def test_generate_stream_and_their_async_twins_agree(model: Model) -> None:
    reply = model.generate("Hello 42", SAMPLING)
    stream = model.stream("Hello 42", SAMPLING)
    pieces = list(stream)
    async_pieces, async_reply = asyncio.run(_pieces(model, "Hello 42", SAMPLING))
    assert "".join(pieces) == reply.text
    assert async_pieces == pieces
    assert stream.reply == reply == async_reply == asyncio.run(model.agenerate("Hello 42", SAMPLING))


def test_an_async_model_serves_one_event_loop_after_another_and_several_tasks(model: Model) -> None:
    async def ask_thrice() -> list[Reply]:
        return await asyncio.gather(*(model.agenerate("Hello", SAMPLING) for _ in range(3)))

    first, second = asyncio.run(ask_thrice()), asyncio.run(ask_thrice())
    assert first == second
    assert first[0] == first[1] == first[2]


def test_a_str_is_one_user_message(model: Model) -> None:
    as_dicts = model.generate([{"role": "user", "content": "Hello 42"}], SAMPLING)
    assert model.generate("Hello 42", SAMPLING) == as_dicts


def test_messages_of_blocks_and_prompt_messages_are_prompts(model: Model) -> None:
    blocks = model.generate([{"role": "user", "content": [{"type": "text", "text": "Hello 42"}]}], SAMPLING)
    message = PromptMessage("user", (Segment("Hello "), Segment("42")))
    assert model.generate([message], SAMPLING) == blocks  # pyright: ignore[reportArgumentType]


def test_max_tokens_ends_with_length(model: Model) -> None:
    reply = model.generate("Hello", Sampling(max_tokens=2))
    assert (reply.finish_reason, reply.completion_tokens) == ("length", 2)


def test_no_piece_is_empty(model: Model) -> None:
    assert all(model.stream("Hello", Sampling(max_tokens=40)))


def test_a_stop_string_ends_the_reply_and_is_not_part_of_it(model: Model) -> None:
    text = model.generate("Hello", SAMPLING).text
    stop = text[len(text) // 2 :][:3]
    stream = model.stream("Hello", Sampling(max_tokens=12, stop=("never this", stop)))
    assert "".join(stream) == text[: text.index(stop)] == stream.reply.text
    assert stream.reply.finish_reason == "stop"


def test_the_reply_of_an_unfinished_stream_is_an_error(model: Model) -> None:
    stream = model.stream("Hello", SAMPLING)
    next(iter(stream))
    with pytest.raises(ModelError, match="not ended"):
        _ = stream.reply
    stream.close()


def test_a_closed_stream_has_a_cancelled_reply_with_what_came(model: Model) -> None:
    stream = model.stream("Hello", SAMPLING)
    first = next(iter(stream))
    stream.close()
    stream.close()
    assert (stream.reply.text, stream.reply.finish_reason) == (first, "cancelled")
    assert list(stream) == []


def test_a_stream_closed_before_it_began_is_cancelled_too(model: Model) -> None:
    stream = model.stream("Hello", SAMPLING)
    stream.close()
    assert (stream.reply.text, stream.reply.finish_reason) == ("", "cancelled")


def test_a_closed_async_stream_is_cancelled_too(model: Model) -> None:
    async def first_piece() -> tuple[str, Reply]:
        stream = model.astream("Hello", SAMPLING)
        piece = await anext(aiter(stream))
        await stream.aclose()
        return piece, stream.reply

    piece, reply = asyncio.run(first_piece())
    assert (reply.text, reply.finish_reason) == (piece, "cancelled")


@pytest.mark.parametrize("prompt", [[], 7, ["text"], [{"content": "no role"}]])
def test_what_is_no_prompt_is_refused(model: Model, prompt: object) -> None:
    with pytest.raises(ValueError):
        model.generate(prompt)  # pyright: ignore[reportArgumentType]


def test_an_empty_message_list_names_the_reason(model: Model) -> None:
    with pytest.raises(PromptError, match="no messages"):
        model.generate([])
