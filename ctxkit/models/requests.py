"""What a model was asked: a Plan, OpenAI messages or a bare string, brought into one form."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctxkit.errors import PromptError
from ctxkit.protocols import ChatMessage, Prompt, PromptMessage, Sampling, Segment, Tool
from ctxkit.tokens import messages_from_dicts

Promptable = Prompt | Sequence[ChatMessage] | str
"""What every model can be given."""

GREEDY = Sampling()
"""The default sampling: greedy, at most 256 tokens."""


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
