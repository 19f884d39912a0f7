"""What a model was asked: a Plan, OpenAI messages or a bare string, brought into one form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctxkit.errors import ContextTruncatedByServer, PartError, PromptError
from ctxkit.protocols import ChatMessage, Counter, Prompt, PromptMessage, Reply, Sampling, Segment, Tool
from ctxkit.tokens import at_least, messages_from_dicts

Promptable = Prompt | Sequence[ChatMessage] | str
"""What every model can be given."""

GREEDY = Sampling()
"""The default sampling: greedy, at most 256 tokens."""

_SLACK_TOKENS = 32  # templates differ from version to version
_SLACK_SHARE = 0.05
_ESTIMATE_SLACK_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Request:
    """Messages and tools; `ids` only where they were made with the asked model's own counter. Is a `Prompt`."""

    messages: tuple[PromptMessage, ...]
    tools: tuple[Tool, ...] = ()
    ids: tuple[int, ...] | None = None


def as_request(prompt: Promptable, counter_names: Collection[str] = ()) -> Request:
    """`prompt` as a Request. A str is one user message.

    counter_names: the counters whose ids the model can be fed; the ids of a plan made with another one are left out.
    Raises PromptError for anything else, and where there is no message at all.
    """
    request = _as_request(prompt, counter_names)
    if not request.messages:
        raise PromptError("the prompt has no messages; give at least one")
    return request


def _as_request(prompt: Any, counter_names: Collection[str]) -> Request:
    if isinstance(prompt, str):
        return Request((PromptMessage("user", (Segment(prompt),)),))
    if hasattr(prompt, "messages"):
        maker = getattr(prompt, "counter_name", None)
        ids = getattr(prompt, "ids", None) if maker is None or maker in counter_names else None
        return Request(tuple(prompt.messages), tuple(getattr(prompt, "tools", ())), None if ids is None else tuple(ids))
    if isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt):
        return Request(messages_from_dicts(prompt))
    if isinstance(prompt, Sequence) and all(isinstance(message, PromptMessage) for message in prompt):
        return Request(tuple(prompt))
    raise PromptError(f"a prompt is a Plan, a list of chat messages or a str, got {type(prompt).__name__}")


def check_window(prompt_tokens: int, max_tokens: int, window_tokens: int) -> None:
    """Raises PromptError where prompt and answer together are longer than the window: nothing is ever cut silently."""
    if prompt_tokens + max_tokens > window_tokens:
        raise PromptError(
            f"the prompt has {prompt_tokens:,} tokens and `max_tokens` is {max_tokens:,}; the window holds "
            f"{window_tokens:,}. Shorten the prompt to {max(window_tokens - max_tokens, 0):,} tokens (ctxkit.fit does) "
            f"or lower `max_tokens`"
        )


def check_not_truncated(request: Request, counter: Counter, reported_tokens: int | None, reply: Reply) -> None:
    """Raises ContextTruncatedByServer where the server reports clearly fewer prompt tokens than it was sent.

    reported_tokens: None where the server does not say. An exact counter allows for 32 tokens or 5 %; where its
    counter is an estimate, the report must be a tenth below the lower bound of `ctxkit.tokens.at_least`.
    """
    if reported_tokens is None or reported_tokens >= _fewest_possible(request, counter):
        return
    planned = count_prompt(request, counter)
    raise ContextTruncatedByServer(
        f"the prompt has {planned:,} tokens by {counter.name!r}, but the server reports {reported_tokens:,}: it has "
        f"probably cut the prompt to fit its own window. Start the server with a larger window (Ollama: `num_ctx`, "
        f"llama.cpp: `--ctx-size`, vLLM: `--max-model-len`), or plan with a window of {reported_tokens:,} tokens. If "
        f"the server leaves cached tokens out of its report, pass `check_truncation=False`",
        planned_tokens=planned,
        reported_tokens=reported_tokens,
        reply=reply,
    )


def count_prompt(request: Request, counter: Counter) -> int:
    """Tokens of the prompt by `counter`; its text alone where the counter cannot price the other blocks."""
    if request.ids is not None:
        return len(request.ids)
    try:
        return counter.render(request.messages, tools=request.tools).tokens
    except PartError:
        return counter.render(_text_only(request.messages)).tokens


def _fewest_possible(request: Request, counter: Counter) -> float:
    if not counter.exact:
        return at_least(request.messages) * (1 - _ESTIMATE_SLACK_SHARE)
    certain = len(request.ids) if request.ids is not None else _certain_tokens(request, counter)
    return certain - max(_SLACK_TOKENS, certain * _SLACK_SHARE)


def _certain_tokens(request: Request, counter: Counter) -> int:
    """Tokens that surely stand in the prompt. What only the server can count, media and its own form of tools, may be
    counted too high: left out. Nothing is certain of messages that the counter's own template refuses."""
    try:
        if not any(message.blocks for message in request.messages):
            rendering = counter.render(request.messages, tools=request.tools)
            if rendering.ids is not None:
                return rendering.tokens
        return counter.render(_text_only(request.messages)).tokens
    except PromptError:
        return 0


def _text_only(messages: Sequence[PromptMessage]) -> list[PromptMessage]:
    return [
        replace(
            message,
            segments=tuple(segment for segment in message.segments if segment.block is None),
            tool_calls=(),
            original=None,
        )
        for message in messages
    ]
