"""Connection: HTTP to an OpenAI-compatible server, sync and async, with typed errors and retries."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any

import httpx
import stamina

from ctxkit.errors import RemoteError, RemoteRejected, RemoteTimeout, RemoteUnavailable
from ctxkit.models.wire import RetryLater, error_of, parse_json

MAX_RETRY_AFTER_SECONDS = 60.0
"""A server that asks for a longer pause is not waited for."""


class Connection:
    """Opens requests. A client lives as long as its request, so one Connection serves any thread and event loop.

    async_transport: sends the requests of the async face, without a client.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None,
        timeout_seconds: float,
        max_retries: int,
        transport: Any = None,
        async_transport: Any = None,
    ) -> None:
        self.base_url = base_url
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self._api_key = api_key
        self._transport = transport
        self._async_transport = async_transport

    def __repr__(self) -> str:
        return f"Connection({self.base_url!r})"

    def fetch(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON answer. Raises RemoteError."""
        for attempt in self.attempts():
            with attempt, self.typed_errors(), self.open(method, path, body) as response:
                return parse_json(response.read(), status=response.status_code)
        raise AssertionError("unreachable")

    async def afetch(self, method: str, path: str, body: Any = None) -> Any:
        """As `fetch`."""
        async for attempt in self.attempts():
            with attempt, self.typed_errors():
                async with self.aopen(method, path, body) as response:
                    return parse_json(await response.aread(), status=response.status_code)
        raise AssertionError("unreachable")

    def probe(self, path: str, timeout_seconds: float = 5.0) -> None:
        """Whether the server answers at all, asked once. A refusal (4xx) is an answer. Raises RemoteError."""
        with self.typed_errors(), suppress(RemoteRejected):
            options = {**self._options, "timeout": httpx.Timeout(min(timeout_seconds, self.timeout_seconds))}
            with httpx.Client(transport=self._transport, **options) as client:
                if not (response := client.get(self.base_url + path)).is_success:
                    raise _error(response)

    @contextmanager
    def open(self, method: str, path: str, body: Any) -> Iterator[httpx.Response]:
        """A successful response whose body is not read yet."""
        client = httpx.Client(transport=self._transport, **self._options)
        with client, client.stream(method, self.base_url + path, json=body) as response:
            if not response.is_success:
                response.read()
                raise _error(response)
            yield response

    @asynccontextmanager
    async def aopen(self, method: str, path: str, body: Any) -> AsyncIterator[httpx.Response]:
        """As `open`."""
        async with self._answered(method, self.base_url + path, body) as response:
            if not response.is_success:
                await response.aread()
                raise _error(response)
            yield response

    @asynccontextmanager
    async def _answered(self, method: str, url: str, body: Any) -> AsyncIterator[httpx.Response]:
        """By a client of its own, or by the transport itself: that spares a server a client for every request."""
        if self._async_transport is None:
            client = httpx.AsyncClient(transport=self._transport, **self._options)
            async with client, client.stream(method, url, json=body) as response:
                yield response
            return
        extensions = {"timeout": self._options["timeout"].as_dict()}
        request = httpx.Request(method, url, json=body, headers=self._options["headers"], extensions=extensions)
        response = await self._async_transport.handle_async_request(request)
        response.request = request
        async with aclosing(response):
            yield response

    @contextmanager
    def typed_errors(self) -> Iterator[None]:
        """httpx's errors as ctxkit's, without the request they hold; and no key in any message."""
        try:
            yield
        except httpx.TimeoutException as error:
            what = type(error).__name__
            raise RemoteTimeout(f"{self.base_url} did not answer in {self.timeout_seconds:g} s ({what})") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            reason = self._redacted(str(error) or type(error).__name__)
            raise RemoteUnavailable(f"no answer from {self.base_url}: {reason}. Is the server running?") from None
        except RemoteError as error:
            error.args = tuple(self._redacted(str(argument)) for argument in error.args)
            raise

    def attempts(self) -> Any:
        """A stamina context: one attempt and `max_retries` more after retryable errors."""
        if not self.max_retries:
            return _Once()  # a context that never waits is 40 us of every request
        return stamina.retry_context(
            on=_backoff, attempts=self.max_retries + 1, timeout=None, wait_initial=0.5, wait_max=8.0, wait_jitter=0.5
        )

    def _redacted(self, text: str) -> str:
        return text.replace(self._api_key, "***") if self._api_key else text

    @cached_property
    def _tls(self) -> ssl.SSLContext | bool:
        return httpx.create_ssl_context() if self.base_url.startswith("https://") else False

    @property
    def _options(self) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return {"headers": headers, "timeout": httpx.Timeout(self.timeout_seconds), "verify": self._tls}


class _Once:
    """One attempt."""

    def __iter__(self) -> Iterator[AbstractContextManager[None]]:
        yield nullcontext()

    async def __aiter__(self) -> AsyncIterator[AbstractContextManager[None]]:
        yield nullcontext()


def _error(response: httpx.Response) -> RemoteError:
    """The error that a response other than 2xx means; its body has been read."""
    if response.is_redirect:
        return error_of(response.status_code, f"moved to {response.headers.get('location')}; correct `base_url`")
    try:
        body = response.json()
    except ValueError:
        body = response.text
    return error_of(response.status_code, body, headers=response.headers)


def _backoff(error: Exception) -> bool | float:
    """Whether to try again, or the seconds the server asked to wait first."""
    if isinstance(error, RetryLater):
        wait = error.retry_after_seconds
        return wait if wait <= MAX_RETRY_AFTER_SECONDS else False
    return isinstance(error, RemoteError) and error.retryable
