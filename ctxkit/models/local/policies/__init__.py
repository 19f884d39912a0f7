"""Policies: one paper, one file. What a `LocalModel` keeps in memory, sees, and from where."""

from ctxkit.models.local.policies.act import ACT
from ctxkit.models.local.policies.actqkv import ActQKV
from ctxkit.models.local.policies.base import Policy, Span
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.policies.h2o import H2O
from ctxkit.models.local.policies.infllm import InfLLM
from ctxkit.models.local.policies.keyformer import Keyformer
from ctxkit.models.local.policies.ledger import MessageLedger
from ctxkit.models.local.policies.lm_infinite import LMInfinite
from ctxkit.models.local.policies.log_n import LogN
from ctxkit.models.local.policies.quest import Quest
from ctxkit.models.local.policies.razor_attention import RazorAttention
from ctxkit.models.local.policies.recycled import Recycled
from ctxkit.models.local.policies.selector import Selector, every, layers, similar
from ctxkit.models.local.policies.sirllm import SirLLM
from ctxkit.models.local.policies.snapkv import SnapKV
from ctxkit.models.local.policies.speckv import SpecKV
from ctxkit.models.local.policies.streaming_llm import StreamingLLM
from ctxkit.models.local.policies.tidal_decode import TidalDecode
from ctxkit.models.local.policies.token_select import TokenSelect
from ctxkit.models.local.policies.two_stage import TwoStage
from ctxkit.models.local.policies.zero_tuning import ZeroTuning

__all__ = [
    "ACT",
    "ActQKV",
    "Full",
    "H2O",
    "InfLLM",
    "Keyformer",
    "LMInfinite",
    "LogN",
    "MessageLedger",
    "Policy",
    "Quest",
    "RazorAttention",
    "Recycled",
    "Selector",
    "SirLLM",
    "SnapKV",
    "Span",
    "SpecKV",
    "StreamingLLM",
    "TidalDecode",
    "TokenSelect",
    "TwoStage",
    "ZeroTuning",
    "every",
    "layers",
    "similar",
]
