"""Policies: how keys and values are kept, seen, placed and weighed. One published method, one file."""

from ctxkit.models.local.policies.actqkv import ActQKV
from ctxkit.models.local.policies.infllm import InfLLM
from ctxkit.models.local.policies.quest import Quest
from ctxkit.models.local.policies.recycled import Recycled
from ctxkit.models.local.policies.selector import Selector, every, layers, similar
from ctxkit.models.local.policies.tidal_decode import TidalDecode
from ctxkit.models.local.policies.token_select import TokenSelect
from ctxkit.models.local.policies.two_stage import TwoStage

__all__ = [
    "ActQKV",
    "InfLLM",
    "Quest",
    "Recycled",
    "Selector",
    "TidalDecode",
    "TokenSelect",
    "TwoStage",
    "every",
    "layers",
    "similar",
]
