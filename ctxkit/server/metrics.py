"""Metrics: what a server did, for Prometheus."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from ctxkit.protocols import Reply

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Of one server. Where it is several processes (prometheus-client's PROMETHEUS_MULTIPROC_DIR), of all of them.

    Labels are routes, statuses and kinds: nothing that a client can make many of."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ctxkit_requests", "Requests, by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "ctxkit_request_seconds", "Time of a request", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.tokens = Counter("ctxkit_tokens", "Tokens, by kind", ["kind"], registry=self.registry)
        self.reduced = Counter(
            "ctxkit_tokens_left_out", "Tokens of conversations that did not go to the model", registry=self.registry
        )
        self.running = self._gauge("ctxkit_requests_running", "Requests being answered")
        self.waiting = self._gauge("ctxkit_requests_waiting", "Requests waiting for their turn")
        self._shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        if self._shared:
            _forget_dead(Path(self._shared))

    def answered(self, reply: Reply) -> None:
        self.tokens.labels("prompt").inc(reply.prompt_tokens)
        self.tokens.labels("completion").inc(reply.completion_tokens)

    def text(self) -> bytes:
        if not self._shared:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together, path=self._shared)  # type: ignore[no-untyped-call]
        return generate_latest(together)

    def _gauge(self, name: str, told: str) -> Gauge:
        return Gauge(name, told, registry=self.registry, multiprocess_mode="livesum")


def _forget_dead(folder: Path) -> None:
    """What a process that was killed was doing: nobody does that any more."""
    for path in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(path.stem.rpartition("_")[2]), 0)  # only asks
        except ProcessLookupError:
            path.unlink(missing_ok=True)  # another process may have been faster
        except (ValueError, PermissionError):
            continue  # none of ours
