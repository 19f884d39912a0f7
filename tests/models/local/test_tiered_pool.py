"""Pages that do not fit on the device are in the host's memory, and come back as they went."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.tiered import TieredPool
from ctxkit.models.local.policies import InfLLM, Policy, Quest, TokenSelect
from ctxkit.testing import tiny_llama

PAGE = 2
PAGE_BYTES = PAGE * (1 + 1) * 4


def _pool(device_pages: int, host_pages: int | None = None) -> TieredPool:
    host = None if host_pages is None else host_pages * PAGE_BYTES
    return TieredPool(1, 1, device_bytes=device_pages * PAGE_BYTES, host_bytes=host, page_tokens=PAGE)


def _fill(pool: TieredPool, page: int, value: float) -> None:
    tokens = torch.full((1, PAGE, 1), value)
    pool.write(torch.full((1, PAGE), page), torch.arange(PAGE), tokens, -tokens)


def _value(pool: TieredPool, page: int) -> float:
    place = pool.seen(np.array([page], np.int32))
    assert torch.equal(pool.pages.keys[int(place[0])], -pool.pages.values[int(place[0])])
    return float(pool.pages.keys[int(place[0]), 0, 0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["write", "see", "host", "release"]), st.integers(0, 19)), max_size=60))
def test_every_page_holds_what_was_last_written_wherever_it_is(operations: list[tuple[str, int]]) -> None:
    pool = _pool(3)
    pages = pool.take(20)
    written: dict[int, float] = {}
    released: set[int] = set()
    for number, (operation, at) in enumerate(operations):
        pool.next_use()
        page = int(pages[at])
        if at in released:
            continue
        if operation == "write":
            _fill(pool, page, float(number))
            written[at] = float(number)
        elif operation == "see" and at in written:
            assert _value(pool, page) == written[at]
        elif operation == "host" and at in written:
            place = int(pool.on_host(pages[at : at + 1])[0])
            assert float(pool.host.pages.keys[place, 0, 0]) == written[at]
        elif operation == "release":
            pool.release(pages[at : at + 1])
            released.add(at)
        assert pool.device.used <= 3
    pool.release(np.array([page for at, page in enumerate(pages) if at not in released], np.int32))
    assert pool.used == pool.device.used == pool.host.used == 0


def test_what_was_seen_longest_ago_makes_room() -> None:
    pool = _pool(2)
    one, two, three = pool.take(3)
    for page in (one, two):
        pool.next_use()
        _fill(pool, int(page), float(page))
    pool.next_use()
    pool.seen(np.array([one], np.int32))
    pool.next_use()
    _fill(pool, int(three), 9.0)
    assert pool.host.used == 1
    assert float(pool.host.pages.keys[0, 0, 0]) == float(two)


def test_what_one_layer_sees_at_once_must_fit_on_the_device() -> None:
    pool = _pool(2)
    pages = pool.take(3)
    for page in pages:
        pool.next_use()
        _fill(pool, int(page), 1.0)
    with pytest.raises(MemoryInsufficient, match="sees 3 pages at once and the device may hold 2"):
        pool.next_use()
        pool.seen(pages)


def test_both_memories_together_have_a_limit() -> None:
    pool = _pool(2, 2)
    pool.take(4)
    with pytest.raises(MemoryInsufficient):
        pool.take(1)


@pytest.mark.parametrize(
    "policy",
    [
        TokenSelect(keep_tokens=16, sinks=4, recent=24),
        Quest(keep_tokens=16, page=8, dense_layers=0, sinks=4, recent=24),
        InfLLM(blocks=2, block_tokens=8, representatives=2, sinks=4, recent=24),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_a_small_device_gives_what_a_large_one_gives(policy: Policy) -> None:
    ids = np.random.default_rng(0).integers(3, 270, 400).tolist()
    large, small = (
        Engine(tiny_llama(), prefill_tokens=32),
        Engine(tiny_llama(), prefill_tokens=32, max_kv_bytes=120_000, host_kv_bytes=10_000_000),
    )
    rows = []
    for engine in (large, small):
        context = engine.new_context(policy)
        first = engine.prefill(ids, context)
        assert first is not None
        rows.append(torch.stack([first, *(engine.step([context], [token])[0] for token in ids[:6])]))
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-4, atol=1e-4)
    assert small.pool.allocated_bytes <= 120_000 < large.pool.allocated_bytes
