"""Upstreams: how the servers behind the models are, for /health and /metrics, by number and never by address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctxkit.models.fleet import ReplicaState
from ctxkit.models.replicas import Replicas

if TYPE_CHECKING:
    from ctxkit.server.service import Service

_ASKED = ("up", "resting")


def replica_states(service: Service) -> dict[str, list[ReplicaState]]:
    """Of each model that is answered by servers, by its name."""
    return {name: model.states for name, model in service.models.items() if isinstance(model, Replicas)}


def has_any(states: Sequence[ReplicaState]) -> bool:
    """Whether one of them is there; one that asked for a pause is."""
    return any(one.state in _ASKED for one in states)


class UpstreamCollector(Collector):
    """The states when they are asked for, so that nothing is counted twice."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "replica"]
        up = GaugeMetricFamily("ctxkit_upstream_up", "1 where the server can be asked", labels=labels)
        running = GaugeMetricFamily("ctxkit_upstream_running", "Requests that the server answers", labels=labels)
        failures = CounterMetricFamily(
            "ctxkit_upstream_failures", "Requests that failed there, by error", labels=[*labels, "error"]
        )
        for name, states in replica_states(self._service).items():
            for index, one in enumerate(states):
                up.add_metric([name, str(index)], one.state == "up")
                running.add_metric([name, str(index)], one.running)
                for error, count in one.failures.items():
                    failures.add_metric([name, str(index), error], count)
        yield from (up, running, failures)
