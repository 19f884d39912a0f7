"""Metrics: what a server did, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ctxkit.protocols import Reply

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Of one server. Labels are routes, statuses and kinds: nothing that a client can make many of."""

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
        self.running = Gauge("ctxkit_requests_running", "Requests being answered", registry=self.registry)
        self.waiting = Gauge("ctxkit_requests_waiting", "Requests waiting for their turn", registry=self.registry)

    def answered(self, reply: Reply) -> None:
        self.tokens.labels("prompt").inc(reply.prompt_tokens)
        self.tokens.labels("completion").inc(reply.completion_tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
