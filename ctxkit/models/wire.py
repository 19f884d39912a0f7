"""OpenAI's chat protocol without any I/O: request bodies, server-sent events, answers and errors.

Both faces of RemoteModel, sync and async, feed bytes in here and get text and typed errors out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ctxkit.errors import RemoteError, RemoteRejected, RemoteTimeout, RemoteUnavailable
from ctxkit.models.requests import Request
from ctxkit.protocols import Sampling, TokenLogprob
from ctxkit.tokens.messages import text_of

_LINE_END = re.compile(rb"\r\n|\n|\r")
_SHOWN_CHARACTERS = 300
_TIMEOUT_STATUS = (408, 504)
_WINDOW_FIELDS = ("max_model_len", "context_length", "n_ctx", "n_ctx_train")
_CACHE_FIELDS = ("cache_read_input_tokens", "cache_creation_input_tokens")


class RetryLater(RemoteUnavailable):
    """The server said when to come back."""

    def __init__(self, message: str, *, retry_after_seconds: float, status: int, code: str | None) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after_seconds = retry_after_seconds


def chat_body(model: str, request: Request, sampling: Sampling, *, stream: bool) -> dict[str, Any]:
    """The JSON body of POST /chat/completions."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [message.to_dict() for message in request.messages],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": stream,
    }
    optional = {
        "top_k": sampling.top_k,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty or None,
        "logprobs": True if sampling.logprobs is not None else None,
        "top_logprobs": sampling.logprobs or None,
        "response_format": None if sampling.response_format is None else dict(sampling.response_format),
        "tools": [dict(tool) for tool in request.tools] or None,
        "tool_choice": sampling.tool_choice if request.tools else None,
        "stream_options": {"include_usage": True} if stream else None,
    }
    return {**body, **{key: value for key, value in optional.items() if value is not None}}


def reported_prompt_tokens(usage: Mapping[str, Any]) -> int | None:
    """Prompt tokens that the server says it read; None where it does not say.

    Tokens from its cache are added: some servers leave them out of `prompt_tokens`, and a check against truncation must
    not take that for a cut.
    """
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    counts = [usage.get("prompt_tokens"), cached, *(usage.get(key) for key in _CACHE_FIELDS)]
    total = sum(count for count in counts if isinstance(count, int) and count > 0)
    return total if counts[0] and total else None


def cached_prompt_tokens(usage: Mapping[str, Any]) -> int:
    """Prompt tokens that the server says it had in its cache; 0 where it does not say."""
    details = usage.get("prompt_tokens_details")
    told = details.get("cached_tokens") if isinstance(details, Mapping) else None
    cached = usage.get("cache_read_input_tokens") if told is None else told
    return cached if isinstance(cached, int) and cached > 0 else 0


class EventParser:
    """Server-sent events from bytes cut anywhere: the `data` of each."""

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[str]:
        self._buffer += chunk
        # A trailing \r may be half of \r\n: leave it until more comes.
        end = len(self._buffer) - self._buffer.endswith(b"\r")
        *lines, rest = _lines(self._buffer[:end])
        self._buffer = rest + self._buffer[end:]
        return self._events(lines)

    def flush(self) -> list[str]:
        """The last event, where the server did not end it with an empty line."""
        lines = _lines(self._buffer)
        self._buffer = b""
        return self._events([*lines, b""])

    def _events(self, lines: Iterable[bytes]) -> list[str]:
        found = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                found.append(data.decode("utf-8", errors="replace"))
        return found


def _lines(data: bytes) -> list[bytes]:
    return _LINE_END.split(data) if b"\r" in data else data.split(b"\n")


class ChatAnswer:
    """Puts an answer together from a whole body or from stream chunks."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] = {}
        self.done = False
        self.logprobs: list[TokenLogprob] = []
        self.reasoning = ""
        self.told_more = False  # of a call or of thinking, by the last event
        self._calls: dict[int, dict[str, Any]] = {}

    def whole(self, body: Any) -> str:
        """Takes a non-streamed answer; its text. Raises RemoteError."""
        choice = self._choice(body)
        message = choice.get("message") or {}
        self._add_calls(message.get("tool_calls"))
        self._add_reasoning(message)
        self.done = True
        return text_of(message.get("content")) or message.get("refusal") or ""

    def event(self, data: str) -> str:
        """Takes the data of one stream event; the text it adds, possibly empty. Raises RemoteError."""
        self.told_more = False
        if data.strip() == "[DONE]":
            self.done = True
            return ""
        body = parse_json(data, status=200)
        if isinstance(body, dict) and body.get("choices") == []:  # the usage comes in a chunk of its own
            self.usage = body.get("usage") or self.usage
            return ""
        delta = self._choice(body).get("delta") or {}
        self._add_calls(delta.get("tool_calls"))
        self._add_reasoning(delta)
        return text_of(delta.get("content")) or delta.get("refusal") or ""

    @property
    def tool_calls(self) -> tuple[Mapping[str, Any], ...]:
        """The calls in the order of their index, arguments as the JSON string the model wrote."""
        return tuple(call for _, call in sorted(self._calls.items())) if self._calls else ()

    @property
    def finished(self) -> bool:
        return self.done or self.finish_reason is not None

    def check_finished(self) -> None:
        """Raises RemoteUnavailable where the connection ended in the middle of the answer."""
        if not self.finished:
            raise RemoteUnavailable("the server ended the stream before the answer was finished; ask again")

    def reason(self) -> str:
        """The finish reason in ctxkit's words."""
        if self._calls and self.finish_reason in (None, "stop", "tool_calls", "function_call"):
            return "tool_calls"
        return self.finish_reason or "stop"

    def _choice(self, body: Any) -> Mapping[str, Any]:
        if not isinstance(body, dict):
            raise RemoteError(f"the server's answer is not a JSON object but {type(body).__name__}")
        if body.get("error") or body.get("object") == "error":
            raise error_of(_status_in(body), body)
        choices = body.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise RemoteError(f"the server's answer has no `choices`: {_short(json.dumps(body))}")
        self.usage = body.get("usage") or self.usage
        self.finish_reason = choices[0].get("finish_reason") or self.finish_reason
        if (logprobs := choices[0].get("logprobs")) is not None:
            self.logprobs += _logprobs(logprobs)
        return choices[0]

    def _add_reasoning(self, said: Mapping[str, Any]) -> None:
        """Servers that tell thinking from answering call it by one of two names."""
        thought = said.get("reasoning_content") or said.get("reasoning")
        if isinstance(thought, str):
            self.reasoning += thought
            self.told_more = True

    def _add_calls(self, deltas: Any) -> None:
        for position, delta in enumerate(deltas or ()):
            self.told_more = True
            index = delta.get("index", position)
            empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            call = self._calls.setdefault(index, empty)
            function = delta.get("function") or {}
            call["id"] = delta.get("id") or call["id"]
            call["function"]["name"] += function.get("name") or ""
            call["function"]["arguments"] += _as_text(function.get("arguments"))


class StreamReader:
    """Bytes of a streamed answer to its text. Also takes an answer that the server did not stream after all.

    join_pieces: the text of all events that came together is one piece. tell_more: an event that adds no text but of a
    call, or of thinking, is an empty piece.
    """

    def __init__(
        self, answer: ChatAnswer, content_type: str, *, join_pieces: bool = False, tell_more: bool = False
    ) -> None:
        self._answer = answer
        self._tells = tell_more
        self._joins = join_pieces
        self._events = EventParser() if content_type.startswith("text/event-stream") else None
        self._body = bytearray()

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The pieces of text in `chunk`. Raises RemoteError for an error event, after the text before it."""
        if self._events is None:
            self._body += chunk
            return
        yield from self._texts(self._events.feed(chunk))

    def end(self) -> Iterator[str]:
        """What was still open. Raises RemoteUnavailable where the answer is not finished."""
        if self._events is None:
            text = self._answer.whole(parse_json(bytes(self._body), status=200))
            yield from [text] if text else []
            return
        yield from self._texts(self._events.flush())
        self._answer.check_finished()

    def _texts(self, events: Iterable[str]) -> Iterator[str]:
        if not self._joins:
            yield from self._each(events)
            return
        ready: list[str] = []
        try:
            ready.extend(self._each(events))
        except RemoteError:
            yield from _joined(ready)  # what came before the error
            raise
        yield from _joined(ready)

    def _each(self, events: Iterable[str]) -> Iterator[str]:
        for event in events:
            if self._answer.done:
                continue
            text = self._answer.event(event)
            if text or (self._tells and self._answer.told_more):
                yield text


def _joined(pieces: list[str]) -> list[str]:
    return ["".join(pieces)] if pieces else []


def parse_json(content: bytes | str, *, status: int) -> Any:
    """JSON, or RemoteError with the beginning of what came instead."""
    try:
        return json.loads(content)
    except ValueError:
        shown = _short(content if isinstance(content, str) else content.decode("utf-8", errors="replace"))
        raise RemoteError(f"the server did not answer in JSON: {shown!r}", status=status) from None


def model_names(body: Any) -> list[str]:
    """The ids in an answer to GET /models. Raises RemoteError."""
    entries = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(entries, Sequence):
        raise RemoteError("the server's list of models has no `data`")
    return [str(entry["id"]) for entry in entries if isinstance(entry, Mapping) and "id" in entry]


def model_windows(body: Any) -> dict[str, int | None]:
    """By the ids in an answer to GET /models the window in tokens, None where it is not said. Raises RemoteError.

    Servers call it `max_model_len` (vLLM), `context_length`, `n_ctx`; llama.cpp tells in `meta` what it serves
    (`n_ctx`) or what the model was trained for (`n_ctx_train`).
    """
    named = set(model_names(body))
    return {
        str(one["id"]): _window_in(one) for one in body["data"] if isinstance(one, Mapping) and one.get("id") in named
    }


def _window_in(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    told = {**(meta if isinstance(meta, Mapping) else {}), **entry}
    found = (told.get(name) for name in _WINDOW_FIELDS)
    return next((one for one in found if isinstance(one, int) and not isinstance(one, bool) and one > 0), None)


def error_of(status: int, body: Any, *, headers: Mapping[str, str] | None = None) -> RemoteError:
    """The typed error for an error answer. `body` is its JSON, or its text where it is none."""
    text, code, param = _message_code_param(body)
    message = f"the server answered {status}: {_short(text) or 'no message'}"
    if status in _TIMEOUT_STATUS:
        return RemoteTimeout(message, status=status, code=code)
    wait = retry_after_seconds(headers or {})
    if status == 429 or status >= 500:
        if wait is not None:
            return RetryLater(message, retry_after_seconds=wait, status=status, code=code)
        return RemoteUnavailable(message, status=status, code=code)
    return RemoteRejected(message, status=status, code=code, param=param)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What `retry-after` asks for: seconds or an HTTP date. None where it is absent or makes no sense."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except ValueError:
        return None


def _message_code_param(body: Any) -> tuple[str, str | None, str | None]:
    """From {"error": {message, code, param}}, {"error": "..."}, {"message": ...}, {"detail": ...} or plain text."""
    if not isinstance(body, Mapping):
        return str(body or ""), None, None
    error = body.get("error") or body
    if not isinstance(error, Mapping):
        return str(error), None, None
    code, param = error.get("code") or error.get("type"), error.get("param")
    text = error.get("message") or error.get("detail") or json.dumps(error, ensure_ascii=False)
    said = text if isinstance(text, str) else json.dumps(text)
    return said, None if code is None else str(code), None if param is None else str(param)


def _status_in(body: Mapping[str, Any]) -> int:
    """The HTTP status that an error inside an answer names; 500 where it names none."""
    error = body.get("error")
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else body.get("code")
    is_status = str(code).isdigit() and 400 <= int(str(code)) <= 599
    return int(str(code)) if is_status else 500


def _logprobs(given: Any) -> list[TokenLogprob]:
    """From {"content": [{token, logprob, top_logprobs}]}; empty where a server has none, or another form of them."""
    content = given.get("content") if isinstance(given, Mapping) else None
    return [_logprob(entry) for entry in content or () if isinstance(entry, Mapping) and "logprob" in entry]


def _logprob(entry: Mapping[str, Any]) -> TokenLogprob:
    top = tuple(_logprob(other) for other in entry.get("top_logprobs") or () if isinstance(other, Mapping))
    return TokenLogprob(str(entry.get("token", "")), float(entry["logprob"]), top=top)


def _as_text(arguments: Any) -> str:
    """Some servers send arguments as an object."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
