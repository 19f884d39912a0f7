"""Fleet: which of several equal servers is asked next, which are left out for now, and since when.

A conversation goes to the same server as long as that one is not much busier than the others: rendezvous hashing with
bounded loads (arXiv 1608.01350), so that its prompt cache finds the beginning again.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Generic, TypeVar

from ctxkit.errors import RemoteError, RemoteTimeout, RemoteUnavailable
from ctxkit.models.wire import RetryLater

logger = logging.getLogger(__name__)

M = TypeVar("M")
LOAD_BOUND = 1.25
"""A server takes at most this many times the mean of what runs, before its conversations go elsewhere."""

_GATEWAY_STATUS = (502, 503, 504)  # the server behind the address is not there
_MOST_REST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """state: "up", "resting" (it asked to be left alone for a while), "down" or "drained".

    running: requests that it answers now. failures: since the start, by the type of the error.
    """

    state: str
    running: int
    failures: dict[str, int]


@dataclass(eq=False)
class Replica(Generic[M]):
    """One of the servers; its Fleet's lock guards it. Times are of `time.monotonic`."""

    index: int
    model: M
    running: int = 0
    drained: bool = False
    down_since: float | None = None
    resting_until: float = 0.0
    failures: dict[str, int] = field(default_factory=dict)

    def state(self, now: float) -> str:
        if self.drained:
            return "drained"
        if self.down_since is not None:
            return "down"
        return "resting" if now < self.resting_until else "up"


class Fleet(Generic[M]):
    """For several threads.

    probe: asks a server that is down whether it is there again; raises RemoteError while it is not. A thread does so as
        long as a server is down, first after retry_seconds, then each time after twice as long, at most
        most_retry_seconds.
    """

    def __init__(
        self,
        models: Sequence[M],
        probe: Callable[[M], None],
        *,
        retry_seconds: float = 0.5,
        most_retry_seconds: float = 30.0,
    ) -> None:
        self.replicas = [Replica(index, model) for index, model in enumerate(models)]
        self._probe = probe
        self._retry_seconds = retry_seconds
        self._most_retry_seconds = most_retry_seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def states(self) -> list[ReplicaState]:
        now = time.monotonic()
        with self._lock:
            return [ReplicaState(one.state(now), one.running, dict(one.failures)) for one in self.replicas]

    def drain(self, index: int) -> None:
        """It gets no further request; those that run go on."""
        with self._lock:
            self.replicas[index].drained = True

    def restore(self, index: int) -> None:
        """It is asked again."""
        with self._lock:
            self.replicas[index].drained = False

    def close(self) -> None:
        """Ends the threads that look after servers that are down."""
        self._closed.set()

    def take(self, key: bytes, tried: Sequence[Replica[M]] = ()) -> Replica[M]:
        """The server for a conversation; it counts as busy until it is given back.

        tried: those that failed at this request. Raises RemoteUnavailable where no other is up; RetryLater where all
        that are there asked for a pause.
        """
        now = time.monotonic()
        with self._lock:
            states = {one: one.state(now) for one in self.replicas if one not in tried}
            free = [one for one, state in states.items() if state == "up"]
            if not free:
                raise self._nobody([one for one, state in states.items() if state == "resting"], now)
            replica = _choose(free, key)
            replica.running += 1
            return replica

    def give_back(self, replica: Replica[M], error: RemoteError | None = None) -> None:
        """It has answered, or failed with this error, which may leave it out for a while."""
        with self._lock:
            replica.running -= 1
            if error is None or not self._leaves_out(replica, error):
                return
        logger.warning("server %d is left out: %s", replica.index, type(error).__name__)
        threading.Thread(target=self._watch, args=(replica,), daemon=True, name=f"ctxkit-probe-{replica.index}").start()

    def _nobody(self, resting: Sequence[Replica[M]], now: float) -> RemoteUnavailable:
        told = f"none of the {len(self.replicas)} servers of this model can be asked now"
        if not resting:
            return RemoteUnavailable(f"{told}; try again later")
        wait = min(one.resting_until for one in resting) - now
        message = f"{told}; one may be in {wait:.1f} s"
        return RetryLater(message, retry_after_seconds=max(wait, 0.0), status=429, code="rate_limit_exceeded")

    def _leaves_out(self, replica: Replica[M], error: RemoteError) -> bool:
        """Notes the error; whether the server is down by it, and was not before."""
        name, now = type(error).__name__, time.monotonic()
        replica.failures[name] = replica.failures.get(name, 0) + 1
        if isinstance(error, RetryLater):
            rest = min(error.retry_after_seconds, _MOST_REST_SECONDS)
            replica.resting_until = max(replica.resting_until, now + rest)
            return False
        if not _means_down(error) or replica.down_since is not None:
            return False
        replica.down_since = now
        return True

    def _watch(self, replica: Replica[M]) -> None:
        """Until the server is there again."""
        wait = self._retry_seconds
        while not self._closed.wait(wait):
            try:
                self._probe(replica.model)
            except RemoteError:
                wait = min(wait * 2, self._most_retry_seconds)
                continue
            with self._lock:
                replica.down_since = None
            logger.warning("server %d is there again", replica.index)
            return


def _choose(free: Sequence[Replica[M]], key: bytes) -> Replica[M]:
    """The conversation's own, unless it has more than its share; then the least busy."""
    own = max(free, key=lambda one: _weight(key, one))
    most = math.ceil(LOAD_BOUND * (sum(one.running for one in free) + 1) / len(free))
    return own if own.running < most else min(free, key=lambda one: (one.running, -_weight(key, one)))


def _weight(key: bytes, replica: Replica[M]) -> int:
    digest = blake2b(key, digest_size=8, salt=replica.index.to_bytes(8, "big")).digest()
    return int.from_bytes(digest, "big")


def _means_down(error: RemoteError) -> bool:
    """Whether the server is not there, rather than unable to answer just this request."""
    if isinstance(error, RemoteTimeout | RemoteUnavailable):
        return error.status is None or error.status in _GATEWAY_STATUS
    return False
