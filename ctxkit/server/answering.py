"""Answering: n answers of a model to one prompt, piece by piece as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ctxkit.models.replicas import Replicas
from ctxkit.models.requests import Promptable
from ctxkit.protocols import AsyncTextStream, Model, Reply, Sampling, Telling, TokenLogprob


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of an answer. text: possibly empty. logprobs: of its tokens. reasoning: what is new of the thinking.

    tool_calls: all that there are by now; the last one may not be whole.
    """

    text: str
    logprobs: Sequence[TokenLogprob] = ()
    reasoning: str = ""
    tool_calls: Sequence[Mapping[str, Any]] = ()


Item = tuple[int, Piece | Reply]
"""Which answer, and a piece of it or, at its end, the whole reply."""


def answers(model: Model, prompt: Promptable, sampling: Sampling, n: int = 1) -> AsyncGenerator[Item]:
    """The answers' pieces in the order in which they come. Closing it stops computing.

    With a seed each answer has one of its own. A local model computes them in shared passes.
    """
    return _one(model, prompt, sampling, 0) if n == 1 else _several(model, prompt, sampling, n)


async def _several(model: Model, prompt: Promptable, sampling: Sampling, n: int) -> AsyncGenerator[Item]:
    each = [replace(sampling, seed=None if sampling.seed is None else sampling.seed + at) for at in range(n)]
    queue: asyncio.Queue[Item | None] = asyncio.Queue(maxsize=n)
    tasks = [asyncio.ensure_future(_into(queue, model, prompt, one, at)) for at, one in enumerate(each)]
    try:
        ended = 0
        while ended < n:
            if (found := await queue.get()) is None:
                ended += 1
            else:
                yield found
        for task in tasks:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def replies(items: AsyncGenerator[Item]) -> list[Reply]:
    """The whole answers, in order. Closes the items where it is cancelled."""
    found: dict[int, Reply] = {}
    async with aclosing(items):
        async for at, item in items:
            if isinstance(item, Reply):
                found[at] = item
    return [found[at] for at in sorted(found)]


async def _into(
    queue: asyncio.Queue[Item | None], model: Model, prompt: Promptable, sampling: Sampling, at: int
) -> None:
    try:
        async with aclosing(_one(model, prompt, sampling, at)) as items:
            async for item in items:
                await queue.put(item)
    finally:
        await queue.put(None)


async def _one(model: Model, prompt: Promptable, sampling: Sampling, at: int) -> AsyncGenerator[Item]:
    stream: AsyncTextStream
    if isinstance(model, Replicas):
        stream = model.astream(prompt, sampling)
    else:  # it may count and render before its first piece: not in the thread of the event loop
        stream = await asyncio.to_thread(model.astream, prompt, sampling)
    try:
        telling = stream if isinstance(stream, Telling) else None
        seen = thought = 0
        async for text in stream:
            if telling is None:
                yield at, Piece(text)
                continue
            more = telling.so_far()
            yield at, Piece(text, more.logprobs[seen:], more.reasoning[thought:], more.tool_calls)
            seen, thought = len(more.logprobs), len(more.reasoning)
        yield at, stream.reply
    finally:
        await stream.aclose()
