"""What answers, how it is drawn, and what it can do beyond text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ctxkit.protocols.prompts import ChatMessage, Counter, Prompt

if TYPE_CHECKING:
    import numpy as np


_MOST_LOGPROBS = 20  # as OpenAI's
_RESPONSE_FORMATS = frozenset({"text", "json_object", "json_schema", "regex", "grammar"})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is drawn.

    max_tokens: the answer's most. temperature: 0 is greedy. seed: for temperatures above 0.
    stop: strings that end the reply and are not part of it.
    frequency_penalty: taken from a token's logit for each time it stands in the answer already (OpenAI's field); keeps
        a small model from going round in circles.
    logprobs: the log-probability of each token of the answer, and of so many likeliest others (OpenAI's
        `top_logprobs`; 0 for none); None, the default, for neither.
    response_format: the form of the answer, as OpenAI's chat API writes it: {"type": "json_object"} or {"type":
        "json_schema", "json_schema": {"schema": ...}}. A local model, and some servers, also take {"type": "regex",
        "regex": ...} and {"type": "grammar", "grammar": ...} (GBNF). The answer has it unless its length ended it.
    tool_choice: "auto" (the default where there are tools), "none", "required", or {"type": "function", "function":
        {"name": ...}}.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    logprobs: int | None = None
    response_format: Mapping[str, Any] | None = None
    tool_choice: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not -2 <= self.frequency_penalty <= 2:
            raise ValueError(f"`frequency_penalty` must be in [-2, 2], got {self.frequency_penalty!r}")
        if self.max_tokens < 1:
            raise ValueError(f"`max_tokens` must be at least 1, got {self.max_tokens!r}")
        if self.temperature < 0:
            raise ValueError(f"`temperature` must be 0 (greedy) or more, got {self.temperature!r}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], got {self.top_p!r}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"`top_k` must be at least 1 or None, got {self.top_k!r}")
        if any(not text for text in self.stop):
            raise ValueError("`stop` must not hold an empty string: it would end every reply at once")
        if self.logprobs is not None and not 0 <= self.logprobs <= _MOST_LOGPROBS:
            raise ValueError(f"`logprobs` must be in [0, {_MOST_LOGPROBS}] or None, got {self.logprobs!r}")
        if self.response_format is not None:
            _check_response_format(self.response_format)
        if isinstance(self.tool_choice, str) and self.tool_choice not in ("auto", "none", "required"):
            raise ValueError(f"`tool_choice` must be auto, none, required or a function, got {self.tool_choice!r}")


def _check_response_format(form: Mapping[str, Any]) -> None:
    kind = form.get("type")
    if kind not in _RESPONSE_FORMATS:
        raise ValueError(f"`response_format` must be of a type in {sorted(_RESPONSE_FORMATS)}, got {form!r}")
    schema = form.get("json_schema")
    if kind == "json_schema" and not (isinstance(schema, Mapping) and "schema" in schema):
        raise ValueError('`response_format` of the type "json_schema" needs {"json_schema": {"schema": ...}}')
    if kind in ("regex", "grammar") and not isinstance(form.get(kind), str):
        raise ValueError(f'`response_format` of the type "{kind}" needs {{"{kind}": "..."}}')


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer, and how likely the model found it.

    token: its text; the bytes of a character may be spread over several tokens, and each is U+FFFD then.
    logprob: natural, of the model's own distribution: before temperature, penalty and form.
    id: its number; None where a server does not say. top: the likeliest tokens in its place, the likeliest first.
    """

    token: str
    logprob: float
    id: int | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer.

    text: what the model said, without its tool calls and without what it thought.
    finish_reason: "stop" (the model or a stop string ended it), "length", "tool_calls", "cancelled", or
        "content_filter" (something of it is withheld).
    tool_calls: in OpenAI's form.
    logprobs: of each token that the model wrote, in order, but for the one that ended it; empty unless asked for.
    reasoning: what a reasoning model thought before it answered.
    refusal: what is withheld of the answer, and why; empty where nothing is.
    cached_tokens: of the prompt, those that did not have to be read again; 0 also where nobody says. Tells how an
        answer was made and not what it is: equal answers may differ in it.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    cached_tokens: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SoFar:
    """What has come of an answer that is being made, besides its text.

    logprobs: of the tokens of all pieces until now. tool_calls: in OpenAI's form; the last one's name and arguments may
    not be whole yet. reasoning: as `Reply` has it. The sequences may grow while the answer goes on.
    """

    logprobs: Sequence[TokenLogprob] = ()
    tool_calls: Sequence[Mapping[str, Any]] = ()
    reasoning: str = ""


@runtime_checkable
class Telling(Protocol):
    """A stream that says between two pieces what has come besides text. Not every model's streams do."""

    def so_far(self) -> SoFar: ...


class TextStream(Protocol):
    """Pieces of an answer as they come. Dropping or closing it stops the computation; `reply` is there at the end."""

    @property
    def reply(self) -> Reply: ...

    def __iter__(self) -> Iterator[str]: ...

    def close(self) -> None: ...


class AsyncTextStream(Protocol):
    """`TextStream` for `async for`."""

    @property
    def reply(self) -> Reply: ...

    def __aiter__(self) -> AsyncIterator[str]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Model(Protocol):
    """Anything that answers a prompt.

    `capabilities` names what a model can do beyond text in, text out: "score", "logits", "embeds", "fork", "crop",
    "sync_text", "attention_evidence". Ask before use: a model has the methods of the capabilities it names.
    """

    @property
    def name(self) -> str: ...

    @property
    def window_tokens(self) -> int: ...

    @property
    def capabilities(self) -> frozenset[str]: ...

    @property
    def counter(self) -> Counter: ...

    def generate(self, prompt: Prompt | Sequence[ChatMessage] | str, sampling: Sampling = ...) -> Reply: ...

    def stream(self, prompt: Prompt | Sequence[ChatMessage] | str, sampling: Sampling = ...) -> TextStream: ...

    async def agenerate(self, prompt: Prompt | Sequence[ChatMessage] | str, sampling: Sampling = ...) -> Reply: ...

    def astream(self, prompt: Prompt | Sequence[ChatMessage] | str, sampling: Sampling = ...) -> AsyncTextStream: ...


@dataclass(frozen=True, slots=True)
class Located:
    """The prompt of one user message, token by token.

    ids: exactly what the model is fed.
    starts: where each token begins in the message, in characters, rising: -1 for what the template puts before it, the
        message's length for what comes behind it.
    """

    ids: tuple[int, ...]
    starts: tuple[int, ...]


@runtime_checkable
class WindowAttention(Protocol):
    """A model of the capability "attention_evidence": it shows what the end of a prompt attends to."""

    @property
    def window_tokens(self) -> int: ...

    def locate(self, prompt: str) -> Located:
        """The prompt of one user message, in tokens that know their place."""
        ...

    def window_attention(
        self, ids: Sequence[int], *, window: int, first_layer: int = 0, lookahead_tokens: int = 0
    ) -> np.ndarray:
        """Attention probabilities of the last `window` ids, float32 [window + looked ahead, len(ids)].

        An entry is the most that any head of any layer from `first_layer` on gives to that id; 0 for what comes after
        the query. lookahead_tokens: so many tokens are generated greedily, and attend too, up to the end of the answer.
        """
        ...
