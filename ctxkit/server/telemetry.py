"""Telemetry: OpenTelemetry spans by the GenAI conventions. They never hold content: no message, no passage, no text.

The conventions are still in development, so every name of theirs stands here. Without the package (extra `telemetry`),
or without an SDK that somebody set up, nothing is recorded.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ctxkit import __version__
from ctxkit.protocols import Reply, Sampling

try:
    from opentelemetry import trace
except ImportError:  # nobody records: every span is a Span(None)
    trace = None  # type: ignore[assignment]

CHAT, COMPLETION, EMBEDDINGS, RETRIEVAL = "chat", "text_completion", "embeddings", "retrieval"

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
TEMPERATURE = "gen_ai.request.temperature"
TOP_P = "gen_ai.request.top_p"
TOP_K = "gen_ai.request.top_k"
SEED = "gen_ai.request.seed"
CHOICES = "gen_ai.request.choice.count"
STREAM = "gen_ai.request.stream"
CONVERSATION = "gen_ai.conversation.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
FINISH_REASONS = "gen_ai.response.finish_reasons"
DATA_SOURCE = "gen_ai.data_source.id"
ERROR = "error.type"
WINDOW_TOKENS = "ctxkit.window_tokens"
ORIGINAL_TOKENS = "ctxkit.original_tokens"
REDUCED = "ctxkit.messages.reduced"
DROPPED = "ctxkit.messages.dropped"


class Span:
    """What is told of an operation; to nobody where nobody records."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Those that are None are left out."""
        if self._span is not None:
            self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def fitted(self, report: Mapping[str, Any]) -> None:
        """report: `x_ctxkit` of the answer; only its numbers are taken."""
        dropped = len(report["dropped"]) + report["dropped_more"]
        sizes = {WINDOW_TOKENS: report["window_tokens"], ORIGINAL_TOKENS: report["original_tokens"]}
        self.set({**sizes, REDUCED: len(report["reduced"]), DROPPED: dropped})

    def answered(self, replies: Sequence[Reply]) -> None:
        """The tokens of all the answers, and why each ended."""
        used = {
            INPUT_TOKENS: sum(one.prompt_tokens for one in replies),
            OUTPUT_TOKENS: sum(one.completion_tokens for one in replies),
        }
        self.set({**used, FINISH_REASONS: [one.finish_reason or "error" for one in replies]})

    @contextmanager
    def current(self) -> Iterator[None]:
        """Spans that begin in the block belong to this one. No `yield` of a stream may stand in it: its steps run in
        tasks of their own, and what one of them entered another cannot leave."""
        if self._span is None or trace is None:
            yield
            return
        # Neither exception nor status from there: both would hold the error's message.
        with trace.use_span(self._span, record_exception=False, set_status_on_exception=False):
            yield


@contextmanager
def span(operation: str, of: str, attributes: Mapping[str, Any] | None = None) -> Iterator[Span]:
    """A span `{operation} {of}` around the block. of: the model; of a retrieval, the index."""
    if trace is None:
        yield Span()
        return
    known = {OPERATION: operation, PROVIDER: "ctxkit", DATA_SOURCE if operation == RETRIEVAL else REQUEST_MODEL: of}
    begun = trace.get_tracer("ctxkit", __version__).start_span(
        f"{operation} {of}", kind=trace.SpanKind.CLIENT, attributes=known
    )
    told = Span(begun)
    told.set(attributes or {})
    try:
        yield told
    except BaseException as error:  # its type only: a message may hold content
        cancelled = isinstance(error, GeneratorExit | CancelledError)
        begun.set_attribute(ERROR, "cancelled" if cancelled else type(error).__name__)
        begun.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        begun.end()


def request_attributes(
    sampling: Sampling, *, n: int = 1, stream: bool = False, session: str | None = None
) -> dict[str, Any]:
    """The attributes of a request for an answer."""
    return {
        MAX_TOKENS: sampling.max_tokens,
        TEMPERATURE: sampling.temperature,
        TOP_P: sampling.top_p,
        SEED: sampling.seed,
        CHOICES: n if n > 1 else None,
        STREAM: stream or None,
        CONVERSATION: session,
    }
