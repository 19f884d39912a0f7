"""Policies: how keys and values are kept, seen, placed and weighed. One published method, one file."""

from ctxkit.models.local.policies.act import ACT
from ctxkit.models.local.policies.base import Policy
from ctxkit.models.local.policies.lm_infinite import LMInfinite
from ctxkit.models.local.policies.log_n import LogN
from ctxkit.models.local.policies.razor_attention import RazorAttention
from ctxkit.models.local.policies.streaming_llm import StreamingLLM
from ctxkit.models.local.policies.zero_tuning import ZeroTuning

__all__ = ["ACT", "LMInfinite", "LogN", "Policy", "RazorAttention", "StreamingLLM", "ZeroTuning"]
