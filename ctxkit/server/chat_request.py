"""ChatRequest: the body of POST /v1/chat/completions, and the Sampling it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ctxkit.protocols import Sampling
from ctxkit.server.labels import Untrusted
from ctxkit.server.problems import unsupported

Overflow = Literal["fit", "refuse", "chain"]

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # What OpenAI knows and ctxkit does not do: the values that ask for nothing.
    "audio": (None,),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "web_search_options": (None,),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0, 0.0),
    "verbosity": (None,),
}
_HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning_effort",
    }
)


class ContextOptions(BaseModel):
    """ctxkit's own field of a request, `ctxkit`: what happens to its context.

    overflow: what is done with a conversation that is longer than the window. "fit": the best of it is sent. "refuse":
        400 context_length_exceeded. "chain": the question is answered by Chain-of-Agents over all of it.
    window_tokens: a smaller window than the model's.
    index: put passages into the prompt: of the server's index (true), of the caller's own of that name, or none.
    session: continue this session: its messages stand before those of the request.
    untrusted: what is done with tool calls behind untrusted passages, where that is stricter than the server's policy.
        "allow": nothing. "flag": `x_ctxkit.labels` names them. "refuse_tools": they are withheld.
    """

    model_config = ConfigDict(extra="forbid")

    overflow: Overflow = "fit"
    window_tokens: int | None = Field(default=None, ge=1)
    index: bool | str = True
    session: str | None = None
    untrusted: Untrusted | None = None


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """As OpenAI writes it, and `ctxkit`. Fields that nobody knows are kept, and named in the answer."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=16)
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    ctxkit: ContextOptions = ContextOptions()

    def ignored_fields(self) -> list[str]:
        """The fields that nobody here knows. Raises Problem for those that OpenAI knows and ctxkit does not do."""
        extra = self.model_extra or {}
        for name, neutral in _NEUTRAL.items():
            if extra.get(name) not in neutral:
                raise unsupported(name, f"`{name}` is not supported here; leave it out")
        if self.top_logprobs is not None and not self.logprobs:
            raise unsupported("top_logprobs", "`top_logprobs` needs `logprobs: true`")
        return sorted(extra.keys() - _NEUTRAL.keys() - _HARMLESS)

    def sampling(self, answer_tokens: int) -> Sampling:
        """answer_tokens: the most, where the request does not say. Greedy where it names no temperature."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.max_completion_tokens or self.max_tokens or answer_tokens,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            top_k=self.top_k,
            stop=tuple(stop),
            seed=self.seed,
            frequency_penalty=self.frequency_penalty or 0.0,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            response_format=self.response_format,
            tool_choice=self.tool_choice if self.tools else None,
        )
