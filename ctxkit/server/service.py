"""Service: the models, the index and the encoder that a server answers with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ctxkit.protocols import Model, Reply
from ctxkit.server.gate import Gate
from ctxkit.server.indexes import Indexes
from ctxkit.server.keys import ApiKeys
from ctxkit.server.limits import RateLimits
from ctxkit.server.metrics import Metrics
from ctxkit.server.noted import noted
from ctxkit.server.options import ServeOptions
from ctxkit.server.problems import not_found
from ctxkit.server.sessions.conversations import Conversations
from ctxkit.server.sessions.responses import ResponseStore
from ctxkit.server.sessions.store import SessionStore
from ctxkit.server.upstreams import UpstreamCollector

if TYPE_CHECKING:
    from ctxkit.protocols import Encoder
    from ctxkit.retrieval import Searchable

P = ParamSpec("P")
T = TypeVar("T")


class Service:
    """What the routes share. Made once for a server; models and index are shared by all requests.

    models: by the name that clients ask for; the first is the default. index: passages come from it.
    encoder: for /v1/embeddings; the index's by default. store: keeps sessions and responses; without, there are none.
    indexes: of the documents that clients bring; without, they bring none.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        index: Searchable | None = None,
        encoder: Encoder | None = None,
        store: SessionStore | None = None,
        indexes: Indexes | None = None,
        options: ServeOptions | None = None,
    ) -> None:
        if not models:
            raise ValueError("a server needs at least one model")
        self.models = dict(models)
        self.index = index
        self.encoder = encoder if encoder is not None else (index.encoder if index is not None else None)
        self.conversations = Conversations(store) if store is not None else None
        self.responses = ResponseStore(store.database) if store is not None else None
        self.indexes = indexes
        self.options = options or ServeOptions()
        self.keys = ApiKeys(self.options.api_keys)
        self.limits = RateLimits(self.options.requests_per_minute, self.options.tokens_per_minute)
        self.metrics = Metrics()
        self.metrics.registry.register(UpstreamCollector(self))  # of this process alone, and not shown by several
        self.gate = Gate(self.options.max_running, self.options.max_waiting, self.options.max_waiting_per_key)
        self.started = int(time.time())

    def model(self, name: str | None) -> tuple[str, Model]:
        """The model that a client named, and its name; the first without one. Raises Problem 404."""
        if name is None:
            name = next(iter(self.models))
        if name not in self.models:
            known = ", ".join(map(repr, self.models))
            raise not_found(f"no model {name!r} here; there is {known}", "model_not_found", "model")
        noted().model = name
        return name, self.models[name]

    def answer_tokens(self, model: Model, window_tokens: int | None = None) -> int:
        """The most that an answer may have whose request does not say: never more than a quarter of the window."""
        window = min(model.window_tokens, window_tokens or model.window_tokens)
        return min(self.options.answer_tokens, max(window // 4, 1))

    @asynccontextmanager
    async def admitted(self, owner: str) -> AsyncIterator[None]:
        """A turn at the gate, and no longer than a request may take. It counts for the owner's limit of requests.

        Raises Problem 429, 503; TimeoutError.
        """
        self.limits.request(owner)
        async with asyncio.timeout(self.options.timeout_seconds), AsyncExitStack() as stack:
            with self.metrics.waiting.track_inprogress():
                await stack.enter_async_context(self.gate.turn(owner))
            with self.metrics.running.track_inprogress():
                yield

    def answered(self, reply: Reply) -> None:
        """Counts a reply, in the metrics and for the request's line in the log."""
        self.metrics.answered(reply)
        noted().answered(reply)

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What takes the CPU long, outside the event loop's thread."""
        return await asyncio.to_thread(work, *args, **kwargs)  # what is noted of the request goes with it

    def described(self, name: str) -> dict[str, Any]:
        """A model as GET /v1/models says it."""
        model = self.models[name]
        return {
            "id": name,
            "object": "model",
            "created": self.started,
            "owned_by": "ctxkit",
            "max_model_len": model.window_tokens,
            "x_ctxkit": {"counter": model.counter.name, "exact": model.counter.exact},
        }
