"""Policies: one paper, one file. What a `LocalModel` keeps in memory, sees, and from where."""

from ctxkit.models.local.policies.base import Policy
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.policies.streaming_llm import StreamingLLM

__all__ = ["Full", "Policy", "StreamingLLM"]
