"""RemoteModel: any OpenAI-compatible server over HTTP.

What is asked and understood is in `wire`, without I/O. Here are only the connection, the retries and two thin faces.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import Any

import httpx
import stamina

from ctxkit.errors import ModelError, RemoteError, RemoteTimeout, RemoteUnavailable
from ctxkit.models.requests import GREEDY, Promptable, Request, as_request
from ctxkit.models.streams import PieceStream
from ctxkit.models.wire import ChatAnswer, EventParser, RetryLater, chat_body, error_of, model_names, parse_json
from ctxkit.protocols import Counter, Reply, Sampling
from ctxkit.tokens import EstimatingCounter

MAX_RETRY_AFTER_SECONDS = 60.0
"""A server that asks for a longer pause is not waited for."""

_CHAT = "/chat/completions"
_MODELS = "/models"


class RemoteModel:
    """A model behind an OpenAI-compatible server.

    base_url: up to and including the version, as in "http://127.0.0.1:8000/v1".
    api_key: sent as a bearer token; never shown.
    counter: counts prompts where the server does not; an estimate by default.
    timeout_seconds: for connecting and for each wait for more bytes.
    max_retries: further attempts after a retryable error, before the first piece of the answer has come.
    extra_body: fields added to every chat request, for what only this server knows.
    transport: an httpx transport, for tests. It must serve the faces (sync, async) that are used.
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
        transport: Any = None,
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
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self.extra_body = dict(extra_body or {})
        self._api_key = api_key
        self._transport = transport

    def __repr__(self) -> str:
        return f"RemoteModel({self.base_url!r}, {self.name!r}, window_tokens={self.window_tokens})"

    def generate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """Answers. Raises RemoteTimeout, RemoteUnavailable, RemoteRejected."""
        chat = _Chat(self, prompt, sampling, stream=False)
        return chat.finish(self._fetch("POST", _CHAT, chat.body))

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        """Answers piece by piece. Dropping the stream closes the connection."""
        return PieceStream(_Chat(self, prompt, sampling, stream=True))

    async def agenerate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """As `generate`."""
        chat = _Chat(self, prompt, sampling, stream=False)
        return chat.finish(await self._afetch("POST", _CHAT, chat.body))

    def astream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> RemoteStream:
        """As `stream`, for `async for`."""
        return RemoteStream(_Chat(self, prompt, sampling, stream=True))

    def list_models(self) -> list[str]:
        """The ids of the models that the server offers. Raises RemoteError."""
        return model_names(self._fetch("GET", _MODELS))

    async def alist_models(self) -> list[str]:
        """As `list_models`."""
        return model_names(await self._afetch("GET", _MODELS))

    # --- the two faces: connections ----------------------------------------------------------------------------

    def _fetch(self, method: str, path: str, body: Any = None) -> Any:
        for attempt in self._attempts():
            with attempt, self._mapped_errors(), self._open(method, path, body) as response:
                return parse_json(response.read(), status=response.status_code)
        raise AssertionError("unreachable")

    async def _afetch(self, method: str, path: str, body: Any = None) -> Any:
        async for attempt in self._attempts():
            with attempt, self._mapped_errors():
                async with self._aopen(method, path, body) as response:
                    return parse_json(await response.aread(), status=response.status_code)
        raise AssertionError("unreachable")

    @contextmanager
    def _open(self, method: str, path: str, body: Any) -> Iterator[httpx.Response]:
        client = httpx.Client(transport=self._transport, **self._options)
        with client, client.stream(method, self.base_url + path, json=body) as response:
            if response.is_error:
                response.read()
            self._raise_for(response)
            yield response

    @asynccontextmanager
    async def _aopen(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        client = httpx.AsyncClient(transport=self._transport, **self._options)
        async with client, client.stream(method, self.base_url + path, json=body) as response:
            if response.is_error:
                await response.aread()
            self._raise_for(response)
            yield response

    def _raise_for(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        try:
            body = response.json() if response.is_error else "a redirect; check `base_url`"
        except ValueError:
            body = response.text
        raise error_of(response.status_code, body, headers=response.headers, secret=self._api_key)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        """httpx's errors as ctxkit's. Their request, which holds the key, is not kept."""
        try:
            yield
        except httpx.TimeoutException as error:
            what = type(error).__name__
            raise RemoteTimeout(f"{self.base_url} did not answer in {self.timeout_seconds:g} s ({what})") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = str(error) or type(error).__name__
            raise RemoteUnavailable(f"cannot reach {self.base_url}: {reason}; is the server running?") from None

    def _attempts(self) -> Any:
        return stamina.retry_context(
            on=_backoff, attempts=self.max_retries + 1, timeout=None, wait_initial=0.5, wait_max=8.0, wait_jitter=0.5
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext | bool:
        return httpx.create_ssl_context() if self.base_url.startswith("https://") else False

    @property
    def _options(self) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return {"headers": headers, "timeout": httpx.Timeout(self.timeout_seconds), "verify": self._tls}


class _Chat:
    """One question to the server; a `PieceSource` for the sync face, and the same for the async one."""

    def __init__(self, model: RemoteModel, prompt: Promptable, sampling: Sampling, *, stream: bool) -> None:
        self.model = model
        self.request: Request = as_request(prompt)
        self.body = {**chat_body(model.name, self.request, sampling, stream=stream), **model.extra_body}
        self.answer = ChatAnswer()

    def finish(self, body: Any) -> Reply:
        """The reply to a request that was not streamed."""
        text = self.answer.whole(body)
        return self.reply(text, self.answer.reason())

    def reply(self, text: str, finish_reason: str) -> Reply:
        usage, counter = self.answer.usage, self.model.counter
        prompt_tokens = usage.get("prompt_tokens")
        completion_tokens = usage.get("completion_tokens")
        if prompt_tokens is None:
            prompt_tokens = counter.render(self.request.messages, tools=self.request.tools).tokens
        if completion_tokens is None:
            completion_tokens = counter.count(text)
        return Reply(text, finish_reason, prompt_tokens, completion_tokens, self.model.name, self.answer.tool_calls)

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        started = False
        for attempt in self.model._attempts():
            with attempt, self.model._mapped_errors():
                try:
                    for piece in self._read():
                        started = True
                        yield piece
                except RemoteError as error:
                    raise _final(error, started) from None
                break
        return self.answer.reason()
