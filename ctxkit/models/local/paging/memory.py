"""How much memory keys and values may take, and how much a text would need, before any of it is taken."""

from __future__ import annotations

import os

import torch

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.paging.context import KVContext

_LEFT_FREE = 0.1


def allowed_bytes(device: torch.device) -> int | None:
    """What the device has free now, less a tenth; None where the system does not say."""
    if device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return None
    return int(free * (1 - _LEFT_FREE))


def needed_pages(context: KVContext, tokens: int, pass_tokens: int) -> int:
    """Pages that a context will have at its largest while `tokens` more are read, at most `pass_tokens` in a pass."""
    page = context.pool.page_tokens
    total = 0
    for track in context.tracks:
        reach = context.reach(track)
        end = track.tokens + tokens
        if reach is not None and not context.policy.keeps_all:
            end = min(end, reach.sinks + reach.recent + context.slack_tokens + min(tokens, pass_tokens))
        total += max(0, -(-end // page) + 2 - len(track.pages[0])) * len(track.members)
    return total


def check_memory(context: KVContext, tokens: int, pass_tokens: int, *, promised_pages: int = 0) -> None:
    """Raises MemoryInsufficient where reading `tokens` more would take more than the pool may.

    promised_pages: what others will still take.
    """
    pool = context.pool
    if pool.max_bytes is None:
        return
    needed = (pool.used + promised_pages + needed_pages(context, tokens, pass_tokens)) * pool.page_bytes
    if needed > pool.max_bytes:
        raise MemoryInsufficient(
            f"{len(context) + tokens:,} tokens need {needed:,} bytes of keys and values, and {pool.max_bytes:,} are "
            "allowed. Shorten the prompt, close a session, allow more (`max_kv_bytes`), or use a policy that keeps "
            "less, such as StreamingLLM",
            needed_bytes=needed,
            allowed_bytes=pool.max_bytes,
        )
