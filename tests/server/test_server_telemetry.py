"""Spans by OpenTelemetry's GenAI conventions: nested, with numbers, without content; none without the package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxkit.server import Service, telemetry
from ctxkit.server.indexes import Indexes
from ctxkit.testing import ScriptedModel
from tests.server.letters import Letters
from tests.server.running import RunningServer

trace = pytest.importorskip("opentelemetry.trace")
Start = Callable[[Service], RunningServer]
SECRET = "Zanzibar"


@dataclass
class Seen:
    """What was told of one span."""

    name: str
    kind: Any
    attributes: dict[str, Any]
    parent: str | None
    ended: int = 0
    failed: bool = False
    said: list[str] = field(default_factory=list)


class _Span(trace.NonRecordingSpan):  # type: ignore[misc]
    def __init__(self, seen: Seen, number: int) -> None:
        super().__init__(trace.SpanContext(1, number, False))
        self.seen = seen

    def is_recording(self) -> bool:
        return True

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.seen.attributes.update(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.set_attributes({key: value})

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.seen.failed = True
        self.seen.said += [str(description), str(getattr(status, "description", ""))]

    def record_exception(self, exception: BaseException, *_: Any, **__: Any) -> None:
        self.seen.said.append(str(exception))

    def end(self, end_time: int | None = None) -> None:
        self.seen.ended += 1


class _Tracer:
    def __init__(self) -> None:
        self.spans: list[Seen] = []

    def start_span(self, name: str, *, kind: Any, attributes: Mapping[str, Any]) -> _Span:
        above = trace.get_current_span()
        seen = Seen(name, kind, dict(attributes), above.seen.name if isinstance(above, _Span) else None)
        self.spans.append(seen)
        return _Span(seen, len(self.spans))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """What is recorded, in the order of beginning."""
    tracer = _Tracer()
    monkeypatch.setattr(trace, "get_tracer", lambda *_: tracer)
    return tracer.spans


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    indexes = Indexes(tmp_path / "indexes", Letters())
    model = ScriptedModel(lambda request: f"It is {SECRET}", window_tokens=300)
    yield Service({"m": model}, indexes=indexes, encoder=Letters())
    indexes.close()


def post(server: RunningServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.root}/v1/{path}", json=body, timeout=30)


def chat(server: RunningServer, **body: Any) -> httpx.Response:
    return post(server, "chat/completions", messages=[{"role": "user", "content": f"Where is {SECRET}?"}], **body)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_a_span_with_its_request_and_its_usage(
    serve: Start, service: Service, spans: list[Seen], stream: bool
) -> None:
    server = serve(service)
    assert chat(server, max_tokens=20, temperature=0.5, seed=7, n=2, stream=stream).status_code == 200
    server.close()
    (one,) = spans
    assert one.name == "chat m" and one.kind is trace.SpanKind.CLIENT and one.ended == 1 and not one.failed
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ctxkit",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.response.finish_reasons": ["stop", "stop"],
        "ctxkit.window_tokens": 300,
        "ctxkit.messages.dropped": 0,
    }
    assert expected.items() <= one.attributes.items()
    assert one.attributes.get("gen_ai.request.stream") is (True if stream else None)
    assert one.attributes["gen_ai.usage.input_tokens"] > 0
    assert SECRET not in repr(one)


@pytest.mark.parametrize("stream", [False, True])
def test_the_other_ways_to_ask_are_spans_too(serve: Start, service: Service, spans: list[Seen], stream: bool) -> None:
    server = serve(service)
    post(server, "responses", input=SECRET, stream=stream)
    post(server, "completions", prompt=SECRET, stream=stream)
    server.close()
    assert [one.name for one in spans] == ["chat m", "text_completion m"]
    assert [one.attributes["gen_ai.usage.output_tokens"] for one in spans] == [3, 3]
    assert all(one.ended == 1 for one in spans) and SECRET not in repr(spans)


@pytest.mark.parametrize("stream", [False, True])
def test_a_retrieval_belongs_to_the_chat_that_asked_for_it(
    serve: Start, service: Service, spans: list[Seen], stream: bool
) -> None:
    server = serve(service)
    documents = [{"source": "a.txt", "text": f"{SECRET} is an island."}]
    post(server, "index/zoo/documents", documents=documents)
    chat(server, ctxkit={"index": "zoo"}, stream=stream)
    post(server, "index/zoo/search", query=SECRET, k=3)
    server.close()
    asked, within, alone = spans
    assert (asked.name, within.name, alone.name) == ("chat m", "retrieval zoo", "retrieval zoo")
    assert (asked.parent, within.parent, alone.parent) == (None, "chat m", None)
    assert within.attributes["gen_ai.data_source.id"] == "zoo" and "gen_ai.request.model" not in within.attributes
    assert alone.attributes["gen_ai.request.top_k"] == 3
    assert all(one.ended == 1 for one in spans) and SECRET not in repr(spans)


def test_embeddings_are_a_span_of_the_encoder(serve: Start, service: Service, spans: list[Seen]) -> None:
    server = serve(service)
    post(server, "embeddings", input=[f"{SECRET} one", "two"])
    server.close()
    (one,) = spans
    assert one.name == "embeddings letters" and one.attributes["gen_ai.usage.input_tokens"] == 3
    assert SECRET not in repr(one)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"ctxkit": {"window_tokens": 2}, "max_tokens": 1}, "BudgetInfeasible"),
        ({"ctxkit": {"index": "no"}}, "NoSuchIndex"),
    ],
)
def test_a_failure_ends_the_span_with_its_type_and_without_its_message(
    serve: Start, service: Service, spans: list[Seen], body: dict[str, Any], error: str
) -> None:
    server = serve(service)
    assert chat(server, **body).status_code >= 400
    server.close()
    (one,) = spans
    assert (one.attributes["error.type"], one.failed, one.ended) == (error, True, 1)
    assert set(one.said) <= {"None", ""}


def test_a_failing_model_tells_no_content(serve: Start, spans: list[Seen]) -> None:
    server = serve(Service({"m": ScriptedModel([RuntimeError(SECRET)])}))
    assert chat(server).status_code == 500
    server.close()
    assert spans[0].attributes["error.type"] == "RuntimeError" and SECRET not in repr(spans)


def test_an_abandoned_block_is_cancelled(spans: list[Seen]) -> None:
    def stream() -> Iterator[int]:
        with telemetry.span(telemetry.CHAT, "m"):
            yield 1

    steps = stream()
    assert next(steps) == 1
    steps.close()
    assert (spans[0].attributes["error.type"], spans[0].ended) == ("cancelled", 1)


def test_without_the_package_nothing_is_recorded_and_all_works(
    serve: Start, service: Service, spans: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "trace", None)
    server = serve(service)
    assert SECRET in chat(server).json()["choices"][0]["message"]["content"]
    assert chat(server, stream=True).status_code == 200
    server.close()
    assert not spans


def test_the_module_can_be_imported_without_the_package() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from ctxkit.server import telemetry\n"
        "with telemetry.span('chat', 'm', {'a': 1}) as told:\n"
        "    told.set({'b': 2})\n"
        "    with told.current(): pass\n"
        "assert telemetry.trace is None"
    )
    # FastAPI itself may need the package: only the module is loaded, not the application.
    code = (
        "import sys, types\nsys.modules['ctxkit.server'] = types.ModuleType('ctxkit.server')\n"
        f"sys.modules['ctxkit.server'].__path__ = [{str(Path(telemetry.__file__).parent)!r}]\n" + code
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_sdk_takes_the_spans(serve: Start, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="the SDK is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    server = serve(service)
    post(server, "index/zoo/documents", documents=[{"source": "a.txt", "text": f"{SECRET} is an island."}])
    chat(server, ctxkit={"index": "zoo"}, stream=True)
    chat(server, ctxkit={"index": "no"})
    server.close()
    found, asked, failed = exporter.get_finished_spans()
    assert (found.name, asked.name, failed.name) == ("retrieval zoo", "chat m", "chat m")
    assert found.parent.span_id == asked.context.span_id and asked.status.is_ok
    assert failed.status.status_code is trace.StatusCode.ERROR and not failed.status.description and not failed.events
    assert asked.attributes["gen_ai.usage.output_tokens"] == 3
    assert SECRET not in "".join(one.to_json() for one in (found, asked, failed))
