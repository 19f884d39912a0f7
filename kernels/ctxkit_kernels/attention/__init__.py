"""Attention over pages: one query, or a chunk of queries, over whichever runs of tokens a table lists."""

from ctxkit_kernels.attention.choose import all_attention_kernels, attention_kernels
from ctxkit_kernels.attention.interface import (
    AttentionKernels,
    Gathered,
    Merged,
    Pages,
    Table,
    Turns,
    merge_state,
    with_sink,
)
from ctxkit_kernels.attention.reference import (
    TorchAttention,
    chunk_logits,
    precise,
    precise_dtype,
    shift_turns,
    turned,
)

__all__ = [
    "AttentionKernels",
    "Gathered",
    "Merged",
    "Pages",
    "Table",
    "TorchAttention",
    "Turns",
    "all_attention_kernels",
    "attention_kernels",
    "chunk_logits",
    "merge_state",
    "precise",
    "precise_dtype",
    "shift_turns",
    "turned",
    "with_sink",
]
