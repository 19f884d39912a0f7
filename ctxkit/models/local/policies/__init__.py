"""Policies: one paper, one file. What a `LocalModel` keeps in memory, sees, and from where."""

from ctxkit.models.local.policies.act import ACT
from ctxkit.models.local.policies.base import Policy, Span
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.policies.h2o import H2O
from ctxkit.models.local.policies.keyformer import Keyformer
from ctxkit.models.local.policies.ledger import MessageLedger
from ctxkit.models.local.policies.lm_infinite import LMInfinite
from ctxkit.models.local.policies.log_n import LogN
from ctxkit.models.local.policies.razor_attention import RazorAttention
from ctxkit.models.local.policies.sirllm import SirLLM
from ctxkit.models.local.policies.snapkv import SnapKV
from ctxkit.models.local.policies.speckv import SpecKV
from ctxkit.models.local.policies.streaming_llm import StreamingLLM
from ctxkit.models.local.policies.zero_tuning import ZeroTuning

__all__ = [
    "ACT",
    "H2O",
    "Full",
    "Keyformer",
    "LMInfinite",
    "LogN",
    "MessageLedger",
    "Policy",
    "RazorAttention",
    "SirLLM",
    "SnapKV",
    "Span",
    "SpecKV",
    "StreamingLLM",
    "ZeroTuning",
]
