"""How much memory keys and values may take, and how much a text would need, before any of it is taken."""

from __future__ import annotations

import os

import torch

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.adapter import ModelShape
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.pool import PAGE_TOKENS, PagePool
from ctxkit.models.local.policies.base import Reach

_LEFT_FREE = 0.1
_SPARE_PAGES = 2  # per head: runs that begin and end within a page


def allowed_bytes(device: torch.device) -> int | None:
    """What the device has free now, less a tenth; None where the system does not say."""
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return None
    return int(free * (1 - _LEFT_FREE))


def token_bytes(shape: ModelShape, layer: int, dtype: torch.dtype | None = None) -> int:
    """One token's keys and values in one layer, stored as `dtype`, by default as the model computes them."""
    of, kind = shape.layers[layer], dtype or shape.dtype
    scales = 2 * torch.float32.itemsize if kind == torch.int8 else 0
    return of.kv_heads * ((of.dims + of.value_dims) * kind.itemsize + scales)


def kv_bytes(
    shape: ModelShape,
    tokens: int,
    *,
    dtype: torch.dtype | None = None,
    reach: Reach | None = None,
    pass_tokens: int = 512,
) -> int:
    """What a new context takes at its largest while `tokens` are read, where heads see `reach` and keep no more."""
    total = 0
    for layer, of in enumerate(shape.layers):
        own = reach if of.sliding is None else Reach(0, of.sliding)
        kept = tokens
        if own is not None:
            kept = min(tokens, own.sinks + own.recent + KVContext.slack_tokens + min(tokens, pass_tokens))
        total += (-(-kept // PAGE_TOKENS) + _SPARE_PAGES) * PAGE_TOKENS * token_bytes(shape, layer, dtype)
    return total


def needed_pages(context: KVContext, tokens: int, pass_tokens: int) -> int:
    """Pages that a context will have at its largest while `tokens` more are read, at most `pass_tokens` in a pass."""
    page = context.pool.page_tokens
    total = 0
    for track in context.tracks:
        most, end = context.most_kept(track), track.tokens + tokens
        if most is not None:
            end = min(end, most + min(tokens, pass_tokens))
        total += max(0, -(-end // page) + _SPARE_PAGES - len(track.pages[0])) * len(track.members)
    return total


def missing_bytes(pool: PagePool, pages: int) -> int:
    """By how much `pages` more would go over what the pool may take; 0 where they would not."""
    return 0 if pool.max_bytes is None else max(0, (pool.used + pages) * pool.page_bytes - pool.max_bytes)


def check_memory(pool: PagePool, pages: int, tokens: int) -> None:
    """Raises MemoryInsufficient where `pages` more, for a text of `tokens`, would take more than the pool may."""
    if not missing_bytes(pool, pages):
        return
    needed, allowed = (pool.used + pages) * pool.page_bytes, pool.max_bytes or 0
    raise MemoryInsufficient(
        f"{tokens:,} tokens need {needed:,} bytes of keys and values, and {allowed:,} are allowed. Shorten the prompt, "
        "close a session, allow more (`max_kv_bytes`), or use a policy that keeps less, such as StreamingLLM",
        needed_bytes=needed,
        allowed_bytes=allowed,
    )
