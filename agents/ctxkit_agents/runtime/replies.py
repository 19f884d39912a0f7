"""Replies to and from JSON, and the digest of what was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ctxkit.models.requests import Request
from ctxkit.protocols import Model, Reply, Sampling, TokenLogprob
from ctxkit_agents.runtime.checkpoint import digest_of


def asked_digest(model: Model, request: Request, sampling: Sampling) -> str:
    """Equal for equal questions: the model's name, messages, tools and sampling."""
    messages = [message.to_dict() for message in request.messages]
    return digest_of([model.name, messages, [dict(tool) for tool in request.tools], asdict(sampling)])


def reply_to_json(reply: Reply) -> dict[str, Any]:
    return asdict(reply)


def reply_from_json(value: Mapping[str, Any]) -> Reply:
    logprobs = tuple(_logprob(one) for one in value["logprobs"])
    return Reply(**{**value, "tool_calls": tuple(value["tool_calls"]), "logprobs": logprobs})


def _logprob(value: Mapping[str, Any]) -> TokenLogprob:
    return TokenLogprob(**{**value, "top": tuple(_logprob(one) for one in value["top"])})
