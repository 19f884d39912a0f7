"""ScriptedModel: a Model that says what it was told to say."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from ctxkit.errors import ModelError
from ctxkit.models.requests import GREEDY, Promptable, Request, as_request, check_window
from ctxkit.models.streams import AsyncPieceStream, PieceStream, adrain, drain
from ctxkit.models.text import StopGuard
from ctxkit.protocols import Counter, Reply, Sampling
from ctxkit.testing.counter import WhitespaceCounter

Line = str | Exception | Sequence[Mapping[str, Any]]
"""One scripted answer: a text, an error to raise, or tool calls in OpenAI's form."""

_PIECE = re.compile(r"\S+\s*|\s+")


class ScriptedModel:
    """Answers with `replies`, one after the other, or with what a function makes of each request.

    replies: texts, exceptions (raised), lists of tool calls; or a callable of one Request that returns one of these.
    prompts: the requests it saw, in order.

    Streams word by word; `max_tokens` and `stop` are honoured, and like a local model it refuses a prompt that does
    not fit into its window together with `max_tokens`. Raises ModelError when asked more often than it has replies.

    >>> model = ScriptedModel(["Hello there."])
    >>> model.generate("Hi").text
    'Hello there.'
    """

    capabilities: frozenset[str] = frozenset()

    def __init__(
        self,
        replies: Sequence[Line] | Callable[[Request], Line],
        *,
        counter: Counter | None = None,
        window_tokens: int = 8192,
        name: str = "scripted",
    ) -> None:
        self.counter: Counter = counter if counter is not None else WhitespaceCounter()
        self.window_tokens = window_tokens
        self.name = name
        self.prompts: list[Request] = []
        self._replies = replies if callable(replies) else _one_after_the_other(list(replies))

    def __repr__(self) -> str:
        return f"ScriptedModel({self.name!r}, window_tokens={self.window_tokens}, asked={len(self.prompts)})"

    def generate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        return drain(self.stream(prompt, sampling))

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        return PieceStream(self._answer(prompt, sampling))

    async def agenerate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        return await adrain(self.astream(prompt, sampling))

    def astream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> AsyncPieceStream:
        return AsyncPieceStream(self.stream(prompt, sampling))

    def _answer(self, prompt: Promptable, sampling: Sampling) -> _ScriptedAnswer:
        request = as_request(prompt, {self.counter.name})
        tokens = self.counter.render(request.messages, tools=request.tools).tokens
        tokens = len(request.ids) if request.ids is not None else tokens
        check_window(tokens, sampling.max_tokens, self.window_tokens)
        self.prompts.append(request)
        line = self._replies(request)
        if isinstance(line, Exception):
            raise line
        return _ScriptedAnswer(self, line, sampling, tokens)


class _ScriptedAnswer:
    def __init__(self, model: ScriptedModel, line: Line, sampling: Sampling, prompt_tokens: int) -> None:
        self.model = model
        self.text = line if isinstance(line, str) else ""
        self.tool_calls = () if isinstance(line, str | Exception) else tuple(line)
        self.sampling = sampling
        self.prompt_tokens = prompt_tokens

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        guard = StopGuard(self.sampling.stop)
        said = ""
        for word in _PIECE.findall(self.text):
            if stopped.is_set():
                return "cancelled"
            if self.model.counter.count(said + word) > self.sampling.max_tokens:
                yield from filter(None, [guard.flush()])
                return "length"
            said += word
            yield from filter(None, [guard.feed(word)])
            if guard.hit:
                return "stop"
        yield from filter(None, [guard.flush()])
        return "tool_calls" if self.tool_calls else "stop"

    def reply(self, text: str, finish_reason: str) -> Reply:
        spent = self.model.counter.count(text)
        return Reply(text, finish_reason, self.prompt_tokens, spent, self.model.name, self.tool_calls)


def _one_after_the_other(replies: list[Line]) -> Callable[[Request], Line]:
    lock = threading.Lock()
    rest = iter(replies)

    def next_reply(request: Request) -> Line:
        with lock:
            for reply in rest:
                return reply
        raise ModelError(f"the scripted model has {len(replies)} replies and was asked once more; give it another")

    return next_reply
