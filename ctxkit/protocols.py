"""The few types that cross layers: messages, renderings, vectors, and the protocols of the replaceable parts.

Nothing here computes. An implementation lives in the layer that its name belongs to; callers depend on this file only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np

ChatMessage = Mapping[str, Any]
"""One message as OpenAI's chat API writes it: role, content and, for tools, tool_calls or tool_call_id."""

Tool = Mapping[str, Any]
"""One tool as OpenAI's chat API writes it: {"type": "function", "function": {name, description, parameters}}."""

TEMPLATE = "template"
"""Owner of the prompt tokens that belong to no part: role markers, separators, the generation prompt."""

TOOLS = "tools"
"""Owner of the prompt tokens that the tool schemas take, where they can be told from the template."""

_MOST_LOGPROBS = 20  # as OpenAI's
_RESPONSE_FORMATS = frozenset({"text", "json_object", "json_schema", "regex", "grammar"})


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a message and the id of the part that owns it (None: glue, charged to the template).

    block: a content block that is not text (an image, a file, signed thinking), as the caller's message wrote it; the
        segment's text is then empty.
    """

    text: str
    owner: str | None = None
    block: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One chat message that remembers which part each piece of its text came from.

    owner: charged for what the message carries outside its text (tool calls).
    original: the message as the caller gave it, in OpenAI's form. What stands in it unchanged is sent as it was given,
        keys that ctxkit knows nothing of included.
    """

    role: str
    segments: tuple[Segment, ...]
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    owner: str | None = None
    original: ChatMessage | None = None

    @property
    def content(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def blocks(self) -> tuple[Mapping[str, Any], ...]:
        """The content blocks that are not text, in order."""
        return tuple(segment.block for segment in self.segments if segment.block is not None)

    def to_dict(self) -> dict[str, Any]:
        """The message in OpenAI's chat format."""
        if self.original is not None:
            return dict(self.original)
        message: dict[str, Any] = {"role": self.role, "content": self._content_value()}
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            message["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            message["name"] = self.name
        return message

    def _content_value(self) -> str | list[dict[str, Any]]:
        if not self.blocks:
            return self.content
        return [
            dict(segment.block) if segment.block is not None else {"type": "text", "text": segment.text}
            for segment in self.segments
            if segment.block is not None or segment.text
        ]


@dataclass(frozen=True, slots=True)
class Rendering:
    """What a counter made of some messages.

    tokens: length of the prompt, generation prompt included.
    ids: the exact ids the model is fed, None where the counter is an estimate.
    by_owner: tokens per owner (part ids, `TEMPLATE`, `TOOLS`); sums to `tokens` exactly.
    """

    tokens: int
    ids: tuple[int, ...] | None
    by_owner: Mapping[str, int]


class Counter(Protocol):
    """Counts with one model's own tokenizer and chat template.

    `exact` is False for an estimator; its counts are then upper bounds.
    """

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool: ...

    def count(self, text: str) -> int:
        """Tokens of `text` alone, as plain text: special tokens spelled in it are ordinary characters."""
        ...

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """`count` of each text; equal texts are tokenised once."""
        ...

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        """The whole prompt: chat template, tools and generation prompt included. Raises PromptError."""
        ...


class Prompt(Protocol):
    """What a model can be given: a Plan, or anything with messages and, where known, exact ids."""

    @property
    def messages(self) -> Sequence[PromptMessage]: ...

    @property
    def ids(self) -> tuple[int, ...] | None: ...

    @property
    def tools(self) -> Sequence[Tool]: ...


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
    finish_reason: "stop" (the model or a stop string ended it), "length", "tool_calls" or "cancelled".
    tool_calls: in OpenAI's form.
    logprobs: of each token that the model wrote, in order, but for the one that ended it; empty unless asked for.
    reasoning: what a reasoning model thought before it answered.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning: str = ""


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


@dataclass(frozen=True)
class Vectors:
    """Vectors of some texts, ragged: text i owns rows `offsets[i]:offsets[i + 1]` of `values`.

    A single-vector encoder gives one row per text, a multi-vector encoder one row per token.

    values: float32 [rows, dims], L2-normalised rows.
    offsets: int64 [texts + 1], starts at 0, ends at rows.
    """

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]


@dataclass(frozen=True)
class TokenVectors(Vectors):
    """`Vectors` with one row per token.

    token_ids: int32 [rows], ids of the encoder's own vocabulary. Token-aware clustering makes one k-means per id.
    spans: int32 [rows, 2], half-open character spans in the row's own text; empty (0, 0) for tokens that stand in no
        text: special tokens, markers, the masks that a query is padded with.
    """

    token_ids: np.ndarray
    spans: np.ndarray


@runtime_checkable
class Spanned(Protocol):
    """Vectors that know where in the text each row stands: half-open char spans, int32 [rows, 2]; (0, 0): nowhere."""

    @property
    def spans(self) -> np.ndarray: ...


class Encoder(Protocol):
    """Text to vectors. `fingerprint` changes whenever the same text would get other vectors."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def dims(self) -> int: ...

    @property
    def multi_vector(self) -> bool: ...

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as this encoder cuts it; chunk sizes are measured with it."""
        ...

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors: ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which bytes of a chunk answered the query: half-open byte span in the chunk's text, and how strongly."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Match:
    """Which token of a chunk answered a token of the query best: its half-open byte span in the chunk's text.

    asked: the query's token as text. similarity: the inner product of both vectors.
    asked_at: where in the query that token begins, in characters; -1 where nobody knows.
    """

    start: int
    end: int
    asked: str
    similarity: float
    asked_at: int = -1


@dataclass(frozen=True, slots=True)
class Ranking:
    """Where one retrieval method put a hit: its name, the rank (from 1) and that method's own score."""

    method: str
    rank: int
    score: float
