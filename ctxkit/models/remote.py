"""RemoteModel: any OpenAI-compatible server over HTTP.

What is asked and understood is in `wire`, without I/O; the connection is in `http`. Here are two thin faces.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from itertools import chain
from typing import Any, cast

import httpx

from ctxkit.models.http import Connection
from ctxkit.models.requests import GREEDY, Promptable, as_request, check_not_truncated, count_prompt
from ctxkit.models.streams import CANCELLED, AsyncPieceSource, Collected, PieceStream
from ctxkit.models.wire import (
    ChatAnswer,
    StreamReader,
    cached_prompt_tokens,
    chat_body,
    model_names,
    model_windows,
    reported_prompt_tokens,
)
from ctxkit.protocols import Counter, Reply, Sampling, SoFar
from ctxkit.tokens import EstimatingCounter

_CHAT = "/chat/completions"
_MODELS = "/models"


class RemoteModel:
    """A model behind an OpenAI-compatible server.

    base_url: up to and including the version, as in "http://127.0.0.1:8000/v1".
    window_tokens: prompt and answer together; servers do not say.
    api_key: sent as a bearer token; never shown.
    counter: counts prompts before they are sent, and answers where the server does not; an estimate by default.
    timeout_seconds: for connecting and for each wait for more bytes.
    max_retries: further attempts after a retryable error, before the first piece of the answer has come.
    extra_body: fields added to every chat request, for what only this server knows.
    check_truncation: raise ContextTruncatedByServer where the server reports clearly fewer prompt tokens than it was
        sent; for a stream at its end, and only where the server says how many it read.
    tell_more: a piece of a stream may be empty, where something else has come: of a tool call, or of what the model
        thinks. The stream's `so_far` says what.
    join_pieces: what has come together is one piece of a stream, instead of one for each event of the server.
    transport: an httpx transport, for tests. It must serve the faces (sync, async) that are used.
    async_transport: of the async face alone, KeptTransport where many streams are read at once. It is never closed.
    """

    capabilities: frozenset[str] = frozenset()

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        window_tokens: int,
        api_key: str | None = None,
        counter: Counter | None = None,
        timeout_seconds: float = 60.0,
        max_retries: int = 2,
        extra_body: Mapping[str, Any] | None = None,
        check_truncation: bool = True,
        join_pieces: bool = False,
        tell_more: bool = False,
        transport: Any = None,
        async_transport: Any = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"`base_url` must start with http:// or https://, got {base_url!r}")
        if window_tokens < 1 or timeout_seconds <= 0 or max_retries < 0:
            raise ValueError(
                "`window_tokens` must be at least 1, `timeout_seconds` above 0 and `max_retries` at least 0, "
                f"got {window_tokens!r}, {timeout_seconds!r} and {max_retries!r}"
            )
        self.base_url = base_url.rstrip("/")
        self.name = model
        self.window_tokens = window_tokens
        self.counter: Counter = counter if counter is not None else EstimatingCounter()
        self.extra_body = dict(extra_body or {})
        self.check_truncation = check_truncation
        self.join_pieces = join_pieces
        self.tell_more = tell_more
        self.connection = Connection(
            self.base_url,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            transport=transport,
            async_transport=async_transport,
        )

    def __repr__(self) -> str:
        return f"RemoteModel({self.base_url!r}, {self.name!r}, window_tokens={self.window_tokens})"

    def generate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """Answers. Raises RemoteTimeout, RemoteUnavailable, RemoteRejected, ContextTruncatedByServer."""
        chat = _Chat(self, prompt, sampling, stream=False)
        return chat.whole(self.connection.fetch("POST", _CHAT, chat.body))

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        """Answers piece by piece. Dropping the stream closes the connection."""
        return PieceStream(_Chat(self, prompt, sampling, stream=True))

    async def agenerate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """As `generate`."""
        chat = _Chat(self, prompt, sampling, stream=False)
        return chat.whole(await self.connection.afetch("POST", _CHAT, chat.body))

    def astream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> RemoteStream:
        """As `stream`, for `async for`."""
        return RemoteStream(_Chat(self, prompt, sampling, stream=True))

    def list_models(self) -> list[str]:
        """The ids of the models that the server offers. Raises RemoteError."""
        return model_names(self.connection.fetch("GET", _MODELS))

    async def alist_models(self) -> list[str]:
        """As `list_models`."""
        return model_names(await self.connection.afetch("GET", _MODELS))

    def list_windows(self) -> dict[str, int | None]:
        """By the ids of `list_models` the window in tokens; None where the server does not say. Raises RemoteError."""
        return model_windows(self.connection.fetch("GET", _MODELS))

    def probe(self) -> None:
        """Asks once, and not for long, whether the server is there. Raises RemoteError where it is not."""
        self.connection.probe(_MODELS)


class RemoteStream(Collected):
    """`AsyncTextStream` over a connection. Cancelling the reader, or `aclose`, closes the connection."""

    def __init__(self, source: AsyncPieceSource) -> None:
        super().__init__(source)
        self._source = source
        self._pieces = source.apieces()

    def __aiter__(self) -> RemoteStream:
        return self

    async def __anext__(self) -> str:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._finish(self._source.reason())
            raise
        self._text.append(piece)
        return piece

    async def aclose(self) -> None:
        """Closes the connection. `reply` then holds what came so far, with finish reason "cancelled"."""
        await self._pieces.aclose()
        self._finish(CANCELLED)


class _Chat:
    """One question to the server. `pieces` and `apieces` are the same steps; the bytes are understood in one place."""

    def __init__(self, model: RemoteModel, prompt: Promptable, sampling: Sampling, *, stream: bool) -> None:
        self.request = as_request(prompt, {model.counter.name})
        self.body = {**chat_body(model.name, self.request, sampling, stream=stream), **model.extra_body}
        self.answer = ChatAnswer()
        self._model = model
        self._connection = model.connection

    def whole(self, body: Any) -> Reply:
        """The reply to a request that was not streamed."""
        with self._connection.typed_errors():
            text = self.answer.whole(body)
        self._check_truncation(text)
        return self.reply(text, self.answer.reason())

    def _check_truncation(self, text: str) -> None:
        """Raises ContextTruncatedByServer, with the answer `text`, where the prompt has not arrived whole."""
        reported = reported_prompt_tokens(self.answer.usage)
        if reported is not None and self._model.check_truncation:
            reply = self.reply(text, self.answer.reason())
            check_not_truncated(self.request, self._model.counter, reported, reply)

    def reason(self) -> str:
        return self.answer.reason()

    def reply(self, text: str, finish_reason: str) -> Reply:
        """With the server's own token counts; the counter's where it gave none."""
        usage, counter = self.answer.usage, self._model.counter
        prompt_tokens = usage.get("prompt_tokens")
        completion_tokens = usage.get("completion_tokens")
        if prompt_tokens is None:
            prompt_tokens = count_prompt(self.request, counter)
        if completion_tokens is None:
            completion_tokens = counter.count(text)
        return Reply(
            text,
            finish_reason,
            prompt_tokens,
            completion_tokens,
            self._model.name,
            self.answer.tool_calls,
            tuple(self.answer.logprobs),
            self.answer.reasoning,
            cached_tokens=min(cached_prompt_tokens(usage), prompt_tokens),
        )

    def so_far(self) -> SoFar:
        return SoFar(self.answer.logprobs, self.answer.tool_calls, self.answer.reasoning)

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        given: list[str] = []
        with ExitStack() as stack, self._connection.typed_errors():
            first, rest = self._start(stack)
            for piece in chain(first, rest):
                if stopped.is_set():
                    return "cancelled"
                given.append(piece)
                yield piece
        self._check_truncation("".join(given))
        return self.reason()

    async def apieces(self) -> AsyncGenerator[str, None]:
        given: list[str] = []
        async with AsyncExitStack() as stack:
            with self._connection.typed_errors():
                first, rest = await self._astart(stack)
                for piece in first:
                    given.append(piece)
                    yield piece
                async for piece in rest:
                    given.append(piece)
                    yield piece
        self._check_truncation("".join(given))

    def _start(self, stack: ExitStack) -> tuple[list[str], Iterator[str]]:
        """Opens the stream and reads its first piece, with retries; the connection then belongs to `stack`."""
        for attempt in self._connection.attempts():
            with attempt, self._connection.typed_errors(), ExitStack() as opened:
                response = opened.enter_context(self._connection.open("POST", _CHAT, self.body))
                rest = self._texts(response, self._reader(response))
                first = [piece for piece in [next(rest, None)] if piece is not None]
                stack.push(opened.pop_all())
                return first, rest
        raise AssertionError("unreachable")

    async def _astart(self, stack: AsyncExitStack) -> tuple[list[str], AsyncIterator[str]]:
        async for attempt in self._connection.attempts():
            with attempt, self._connection.typed_errors():
                async with AsyncExitStack() as opened:
                    response = await opened.enter_async_context(self._connection.aopen("POST", _CHAT, self.body))
                    rest = self._atexts(response, self._reader(response))
                    first = [piece for piece in [await anext(rest, None)] if piece is not None]
                    stack.push_async_exit(opened.pop_all())
                    return first, rest
        raise AssertionError("unreachable")

    def _reader(self, response: httpx.Response) -> StreamReader:
        self.answer = ChatAnswer()
        content_type = response.headers.get("content-type", "")
        return StreamReader(
            self.answer, content_type, join_pieces=self._model.join_pieces, tell_more=self._model.tell_more
        )

    @staticmethod
    def _texts(response: httpx.Response, reader: StreamReader) -> Iterator[str]:
        for chunk in response.iter_bytes():
            yield from reader.feed(chunk)
        yield from reader.end()

    @staticmethod
    async def _atexts(response: httpx.Response, reader: StreamReader) -> AsyncIterator[str]:
        # httpx's own iterators cost as much as the reading; they are for what is packed, which streams are not.
        packed = "content-encoding" in response.headers
        chunks = response.aiter_bytes() if packed else cast(httpx.AsyncByteStream, response.stream)
        async for chunk in chunks:
            for piece in reader.feed(chunk):
                yield piece
        for piece in reader.end():
            yield piece
