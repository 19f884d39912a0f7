"""Replicas: several servers of one model as one Model."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager

from ctxkit.errors import ContextTruncatedByServer, RemoteError, RemoteRejected
from ctxkit.models.fleet import Fleet, Replica, ReplicaState
from ctxkit.models.remote import RemoteModel, RemoteStream
from ctxkit.models.requests import GREEDY, Promptable, Request, as_request, count_prompt
from ctxkit.models.streams import CANCELLED, PieceStream
from ctxkit.protocols import Counter, Reply, Sampling, SoFar

_MOST_TRIES = 3
"""A request that ends every server which it is sent to must not end all of them."""
_OF_THE_REQUEST = (RemoteRejected, ContextTruncatedByServer)
"""No other server would do better."""


class Replicas:
    """Servers that offer the same model. Give each RemoteModel `max_retries=0`: another server is the better retry.

    A conversation goes to the same server while that one is up and not much busier than the others. A server that
    cannot be reached is left out until it answers again; one that asks for a pause gets it. A request that failed
    before the first piece of its answer goes to another server, to three at most; after the first piece it fails.

    window_tokens: the smallest of theirs. counter: the first one's.
    retry_seconds: until a server that is down is looked at, then twice as long each time, up to most_retry_seconds.
    Raises what RemoteModel raises, and RemoteUnavailable where no server is left.
    """

    capabilities: frozenset[str] = frozenset()

    def __init__(
        self, models: Sequence[RemoteModel], *, retry_seconds: float = 0.5, most_retry_seconds: float = 30.0
    ) -> None:
        if not models:
            raise ValueError("`models` must hold at least one")
        if not 0 < retry_seconds <= most_retry_seconds:
            raise ValueError(
                f"`retry_seconds` must be above 0 and at most `most_retry_seconds`, got {retry_seconds!r} and "
                f"{most_retry_seconds!r}"
            )
        self.name = models[0].name
        self.window_tokens = min(one.window_tokens for one in models)
        self.counter: Counter = models[0].counter
        self.fleet = Fleet(
            models, RemoteModel.probe, retry_seconds=retry_seconds, most_retry_seconds=most_retry_seconds
        )

    def __repr__(self) -> str:
        return f"Replicas({self.name!r}, {len(self.fleet.replicas)} servers, window_tokens={self.window_tokens})"

    @property
    def states(self) -> list[ReplicaState]:
        """Of each server, in the order given."""
        return self.fleet.states()

    def drain(self, index: int) -> None:
        """Takes a server out: it gets no further request, and what it answers now goes on."""
        self.fleet.drain(index)

    def restore(self, index: int) -> None:
        """Takes a drained server in again."""
        self.fleet.restore(index)

    def close(self) -> None:
        """Stops looking after servers that are down."""
        self.fleet.close()

    def generate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """Answers."""
        tries = _Tries(self, prompt)
        while True:
            with tries.turn() as model:
                return model.generate(tries.request, sampling)

    async def agenerate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """As `generate`."""
        tries = _Tries(self, prompt)
        while True:
            with tries.turn() as model:
                return await model.agenerate(tries.request, sampling)

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        """Answers piece by piece. Dropping the stream closes the connection."""
        return PieceStream(_Streamed(self, prompt, sampling))

    def astream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> RemoteStream:
        """As `stream`, for `async for`."""
        return RemoteStream(_Streamed(self, prompt, sampling))


class _Tries:
    """One request on its way from server to server. begun: the first piece of its answer has come."""

    def __init__(self, replicas: Replicas, prompt: Promptable) -> None:
        self.request = as_request(prompt, {replicas.counter.name})
        self.begun = False
        self._fleet = replicas.fleet
        self._key = affinity_key(self.request)
        self._tried: list[Replica[RemoteModel]] = []
        self._last: RemoteError | None = None

    @contextmanager
    def turn(self) -> Iterator[RemoteModel]:
        """A server to ask. An error passes in silence where another one may do better: take the next turn.

        Raises the error of the last server where none is left, and RemoteUnavailable where there was none.
        """
        try:
            replica = self._fleet.take(self._key, self._tried)
        except RemoteError as nobody:
            raise self._last or nobody from None
        self._tried.append(replica)
        failed: RemoteError | None = None
        try:
            yield replica.model
        except RemoteError as error:
            failed = self._last = error
            if self.begun or len(self._tried) == _MOST_TRIES or isinstance(error, _OF_THE_REQUEST):
                raise
        finally:
            self._fleet.give_back(replica, failed)


class _Streamed:
    """One answer in the making, for both faces."""

    def __init__(self, replicas: Replicas, prompt: Promptable, sampling: Sampling) -> None:
        self._tries = _Tries(replicas, prompt)
        self._sampling = sampling
        self._name, self._counter = replicas.name, replicas.counter
        self._stream: PieceStream | RemoteStream | None = None

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        while True:
            with self._tries.turn() as model, closing(model.stream(self._tries.request, self._sampling)) as stream:
                self._stream = stream
                for piece in stream:
                    if stopped.is_set():
                        return CANCELLED
                    self._tries.begun = True
                    yield piece
                return self.reason()

    async def apieces(self) -> AsyncGenerator[str, None]:
        while True:
            with self._tries.turn() as model:
                async with aclosing(model.astream(self._tries.request, self._sampling)) as stream:
                    self._stream = stream
                    async for piece in stream:
                        self._tries.begun = True
                        yield piece
                    return

    def so_far(self) -> SoFar:
        return SoFar() if self._stream is None else self._stream.so_far()

    def reason(self) -> str:
        return CANCELLED if self._stream is None else self._stream.reply.finish_reason

    def reply(self, text: str, finish_reason: str) -> Reply:
        """Of the server that answered."""
        if self._stream is not None:
            return self._stream.reply
        request = self._tries.request
        return Reply(text, finish_reason, count_prompt(request, self._counter), self._counter.count(text), self._name)


def affinity_key(request: Request) -> bytes:
    """What the turns of one conversation share: its messages up to the first one of the user."""
    first = next((at for at, one in enumerate(request.messages) if one.role == "user"), 0)
    return json.dumps([one.to_dict() for one in request.messages[: first + 1]], sort_keys=True).encode()
