"""Triton kernels over pages: one query per head over what its row sees, and the gather. `triton.py` launches them.

A program takes blocks of RUNS runs, SPAN tokens of each, or parts of long runs one at a time. The matrix units want 16
rows, and a group has fewer heads: so each run of a block has rows of its own, with the query turned as that run asks.
One product then serves runs of different turns; what a row makes of other rows' runs is masked, and the rows of one
head are merged at the end. Logits are times log2(e), so that weights are powers of two.

Import this only where Triton is to run: it reads TRITON_INTERPRET when the kernels are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import triton
import triton.language as tl

from ctxkit_kernels.triton_maxsim import interpreted

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
_INTERPRETED = tl.constexpr(interpreted())

# They differ from step to step: not worth a compilation for each kind.
_UNLIKE = "runs blocks blocks_each partitions tokens queries length first_stride count_stride turn_stride bias_row"
kernel = cast(Callable[[Any], Any], triton.jit(do_not_specialize=_UNLIKE.split()))


def block_of(size: int) -> int:
    """A power of two that holds `size`, of at least what the matrix units take."""
    return max(16, int(triton.next_power_of_2(size)))


@kernel
def safe(best: tl.tensor):  # type: ignore[no-untyped-def]
    """A largest logit that can be subtracted: 0 where there is none, so that -inf less it stays -inf."""
    return tl.where(best == float("-inf"), 0.0, best)


@kernel
def capped(logits: tl.tensor, cap: tl.tensor):  # type: ignore[no-untyped-def]
    """cap * tanh(logits)."""
    return cap * (2 * tl.sigmoid(2 * logits) - 1)


@kernel
def columns(start: tl.tensor, inside: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """SIZE numbers from each pointer [n] on, [n, BLOCK]; zeros behind them, and where not `inside`."""
    column = tl.arange(0, BLOCK)
    mask = inside[:, None] if SIZE == BLOCK else inside[:, None] & (column < SIZE)[None, :]
    return tl.load(start[:, None] + column[None, :], mask=mask, other=0)


@kernel
def softened(logits: tl.tensor, best: tl.tensor, total: tl.tensor):  # type: ignore[no-untyped-def]
    """One step of softmax [m, t]: weights, what earlier sums are worth now [m], and the new best and total [m]."""
    new = tl.maximum(best, tl.max(logits, axis=1))
    weights = tl.exp2(logits - safe(new)[:, None])
    fade = tl.exp2(best - safe(new))
    return weights, fade, new, total * fade + tl.sum(weights, axis=1)


@kernel
def multiplied(one: tl.tensor, two: tl.tensor, sums: tl.tensor, PRECISION: tl.constexpr):  # type: ignore[no-untyped-def]
    """`sums` + one @ two, of one type. The interpreter cannot multiply bfloat16: wider numbers give the same."""
    if _INTERPRETED:
        one, two = one.to(tl.float32), two.to(tl.float32)
    return tl.dot(one, two, sums, input_precision=PRECISION)


@kernel
def _narrow(numbers: tl.tensor):  # type: ignore[no-untyped-def]
    """As the matrix units take them; int8 is exact in bfloat16."""
    return numbers.to(tl.float32).to(tl.bfloat16) if numbers.dtype == tl.int8 else numbers


@kernel
def _product(rows: tl.tensor, keys: tl.tensor, sums: tl.tensor):  # type: ignore[no-untyped-def]
    """`sums` and float32 rows [m, d] times keys [t, d]. What 16 bits leave of a row is multiplied too."""
    keys = tl.trans(_narrow(keys))
    high = rows.to(keys.dtype)
    sums = multiplied(high, keys, sums, "ieee")
    if keys.dtype != tl.float32:
        sums = multiplied((rows - high.to(tl.float32)).to(keys.dtype), keys, sums, "ieee")
    return sums


@kernel
def _angles(cos: tl.tensor, sin: tl.tensor, turn: tl.tensor, PAIRS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The cosines and sines of a turn [1, BLOCK], or of turns [n, BLOCK]."""
    column = tl.arange(0, BLOCK)
    at = (turn * PAIRS + column)[None, :] if len(turn.shape) == 0 else turn[:, None] * PAIRS + column[None, :]
    mask = (column < PAIRS)[None, :]
    return tl.load(cos + at, mask=mask, other=0.0), tl.load(sin + at, mask=mask, other=0.0)


@kernel
def _store_merged(  # type: ignore[no-untyped-def]
    out: tl.tensor,
    lse: tl.tensor,
    place: tl.tensor,
    sums: tl.tensor,
    best: tl.tensor,
    total: tl.tensor,
    GROUP: tl.constexpr,
    VALUES: tl.constexpr,
    RUNS: tl.constexpr,
    HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The rows of each head as one, to the results from `place` on: sums [rows, BLOCK], best and total [rows]."""
    bests = tl.reshape(best, [RUNS, HEADS])
    top = tl.max(bests, axis=0)
    share = tl.exp2(bests - safe(top)[None, :])
    whole = tl.sum(tl.reshape(total, [RUNS, HEADS]) * share, axis=0)
    mean = tl.sum(tl.reshape(sums, [RUNS, HEADS, BLOCK]) * share[:, :, None], axis=0)
    mean /= tl.maximum(whole, 1.0)[:, None]  # of what sees a token, the best weighs 1
    head = tl.arange(0, HEADS)
    column = tl.arange(0, BLOCK)
    mask = (head < GROUP)[:, None] & (column < VALUES)[None, :]
    tl.store(out + (place + head)[:, None] * VALUES + column[None, :], mean, mask=mask)
    tl.store(lse + place + head, (top + tl.log2(whole)) * LN2, mask=head < GROUP)


# fmt: off
@kernel
def paged_kernel(  # type: ignore[no-untyped-def]
    q: tl.tensor, keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor,
    pages: tl.tensor, first: tl.tensor, count: tl.tensor, turn: tl.tensor, bias: tl.tensor, cos: tl.tensor,
    sin: tl.tensor, out: tl.tensor, lse: tl.tensor, runs: tl.tensor, blocks: tl.tensor, blocks_each: tl.tensor,
    first_stride: tl.tensor, count_stride: tl.tensor, turn_stride: tl.tensor, bias_row: tl.tensor,
    key_page: tl.tensor, value_page: tl.tensor, key_scale_page: tl.tensor, value_scale_page: tl.tensor,
    factor: tl.tensor, cap: tl.tensor, WEIGHED: tl.constexpr, GROUP: tl.constexpr, PAGE: tl.constexpr,
    PAIRS: tl.constexpr, REST: tl.constexpr, VALUES: tl.constexpr, BIASES: tl.constexpr, SCALED: tl.constexpr,
    CAPPED: tl.constexpr, RUNS: tl.constexpr, SPAN: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr, BLOCK_REST: tl.constexpr, BLOCK_VALUES: tl.constexpr,
):  # fmt: on
    """`out` and `lse` of each partition of a row's runs; or, where not WEIGHED, the logits to `out`."""
    DIMS: tl.constexpr = 2 * PAIRS + REST
    HEADS: tl.constexpr = ROWS // RUNS
    row = tl.program_id(0).to(tl.int64)
    own, head = tl.arange(0, ROWS) // HEADS, tl.arange(0, ROWS) % HEADS
    place = tl.arange(0, RUNS * SPAN)
    query = q + (row * GROUP + head) * DIMS
    one, two, rest = 0.0, 0.0, 0.0
    if PAIRS > 0:
        one = columns(query, head < GROUP, PAIRS, BLOCK_PAIRS).to(tl.float32) * factor
        two = columns(query + PAIRS, head < GROUP, PAIRS, BLOCK_PAIRS).to(tl.float32) * factor
    if REST > 0:
        rest = columns(query + 2 * PAIRS, head < GROUP, REST, BLOCK_REST).to(tl.float32) * factor
    best = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sums = tl.zeros([ROWS, BLOCK_VALUES], tl.float32)
    start = tl.program_id(1) * blocks_each
    for block in range(start, tl.minimum(start + blocks_each, blocks)):
        run = block // PARTS if RUNS == 1 else block * RUNS + place // SPAN  # of each place; a number if it is one
        asked = block // PARTS * RUNS + own
        token = block % PARTS * SPAN + place % SPAN
        there = tl.load(count + row * count_stride + run, mask=run < runs, other=0)
        page = tl.load(pages + row * runs + run, mask=run < runs, other=0).to(tl.int64)  # if none are there, any
        slot = tl.load(first + row * first_stride + run, mask=run < runs, other=0) + token
        inside = token < there
        key = keys + page * key_page + slot * DIMS
        logits = tl.zeros([ROWS, RUNS * SPAN], tl.float32)
        if PAIRS > 0:
            turner = run if RUNS == 1 else asked
            which = tl.load(turn + row * turn_stride + turner, mask=turner < runs, other=0)
            by_cos, by_sin = _angles(cos, sin, which, PAIRS, BLOCK_PAIRS)
            logits = _product(one * by_cos - two * by_sin, columns(key, inside, PAIRS, BLOCK_PAIRS), logits)
            logits = _product(two * by_cos + one * by_sin, columns(key + PAIRS, inside, PAIRS, BLOCK_PAIRS), logits)
        if REST > 0:
            logits = _product(rest, columns(key + 2 * PAIRS, inside, REST, BLOCK_REST), logits)
        if SCALED:
            logits *= tl.load(key_scales + page * key_scale_page + slot, mask=inside, other=0.0)[None, :]
        if CAPPED:
            logits = capped(logits, cap)
        if BIASES > 0:
            added = tl.load(bias + row * bias_row + head % BIASES * runs + asked, mask=asked < runs, other=0.0)
            logits += added[:, None] * LOG2E
        mine = own[:, None] == (place // SPAN)[None, :]
        logits = tl.where(mine & inside[None, :], logits, float("-inf"))
        if WEIGHED:
            weights, fade, best, total = softened(logits, best, total)
            if SCALED:
                weights *= tl.load(value_scales + page * value_scale_page + slot, mask=inside, other=0.0)[None, :]
            value = columns(values + page * value_page + slot * VALUES, inside, VALUES, BLOCK_VALUES)
            value = _narrow(value)
            sums = multiplied(weights.to(value.dtype), value, sums * fade[:, None], "ieee")
        else:
            held = mine & ((head < GROUP) & (asked < runs))[:, None] & (token < PAGE)[None, :]
            to = out + ((row * GROUP + head[:, None]) * runs + run) * PAGE + token
            tl.store(to, logits * LN2, mask=held)
    if WEIGHED:
        result = (tl.program_id(1) * tl.num_programs(0) + row) * GROUP
        _store_merged(out, lse, result, sums, best, total, GROUP, VALUES, RUNS, HEADS, BLOCK_VALUES)


@kernel
def merge_kernel(  # type: ignore[no-untyped-def]
    parts: tl.tensor,
    parts_lse: tl.tensor,
    out: tl.tensor,
    lse: tl.tensor,
    partitions: tl.tensor,
    VALUES: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
):
    """One query's parts [partitions, queries, VALUES] as one, by their lse."""
    query, queries = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    column = tl.program_id(1) * BLOCK_VALUES + tl.arange(0, BLOCK_VALUES)
    best = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    sums = tl.zeros([BLOCK_VALUES], tl.float32)
    for step in range(tl.cdiv(partitions, BLOCK_PARTS)):
        part = step * BLOCK_PARTS + tl.arange(0, BLOCK_PARTS)
        at = part * queries + query
        known = tl.load(parts_lse + at, mask=part < partitions, other=float("-inf")) * LOG2E
        weights, fade, best, total = softened(known[None, :], best, total)
        mask = (part < partitions)[:, None] & (column < VALUES)[None, :]
        part_out = tl.load(parts + at[:, None] * VALUES + column[None, :], mask=mask, other=0.0)
        sums = sums * fade + tl.sum(part_out * tl.reshape(weights, [BLOCK_PARTS])[:, None], axis=0)
    tl.store(out + query * VALUES + column, sums / tl.maximum(total, 1.0), mask=column < VALUES)
    tl.store(lse + query + tl.arange(0, 1), (best + tl.log2(total)) * LN2)  # each of the columns: one number


# fmt: off
@kernel
def gather_kernel(  # type: ignore[no-untyped-def]
    keys: tl.tensor, values: tl.tensor, key_scales: tl.tensor, value_scales: tl.tensor, pages: tl.tensor,
    first: tl.tensor, count: tl.tensor, turn: tl.tensor, ends: tl.tensor, cos: tl.tensor, sin: tl.tensor,
    keys_out: tl.tensor, values_out: tl.tensor, runs: tl.tensor, length: tl.tensor, first_stride: tl.tensor,
    count_stride: tl.tensor, turn_stride: tl.tensor, key_page: tl.tensor, value_page: tl.tensor,
    key_scale_page: tl.tensor, value_scale_page: tl.tensor, PAGE: tl.constexpr, PAIRS: tl.constexpr,
    REST: tl.constexpr, VALUES: tl.constexpr, SCALED: tl.constexpr, SPAN: tl.constexpr, PARTS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr, BLOCK_REST: tl.constexpr, BLOCK_VALUES: tl.constexpr,
):  # fmt: on
    """SPAN tokens of one run, to where the tokens of the runs before it end. A key is turned back."""
    DIMS: tl.constexpr = 2 * PAIRS + REST
    row, run = tl.program_id(1).to(tl.int64), tl.program_id(0) // PARTS
    token = tl.program_id(0) % PARTS * SPAN + tl.arange(0, SPAN)
    there = tl.load(count + row * count_stride + run)
    to = tl.load(ends + row * count_stride + run) - there + token
    page = tl.load(pages + row * runs + run, mask=there > 0, other=0).to(tl.int64)
    slot = tl.load(first + row * first_stride + run) + token
    inside = (token < there) & (to < length)
    key_scale = tl.full([SPAN, 1], 1.0, tl.float32)
    value_scale = tl.full([SPAN, 1], 1.0, tl.float32)
    if SCALED:
        key_scale = tl.load(key_scales + page * key_scale_page + slot, mask=inside, other=0.0)[:, None]
        value_scale = tl.load(value_scales + page * value_scale_page + slot, mask=inside, other=0.0)[:, None]
    start = keys + page * key_page + slot * DIMS
    result = keys_out + (row * length + to) * DIMS
    if PAIRS > 0:
        one = columns(start, inside, PAIRS, BLOCK_PAIRS).to(tl.float32) * key_scale
        two = columns(start + PAIRS, inside, PAIRS, BLOCK_PAIRS).to(tl.float32) * key_scale
        which = tl.load(turn + row * turn_stride + run)
        by_cos, by_sin = _angles(cos, sin, which, PAIRS, BLOCK_PAIRS)
        _store_columns(result, one * by_cos + two * by_sin, inside, PAIRS, BLOCK_PAIRS)
        _store_columns(result + PAIRS, two * by_cos - one * by_sin, inside, PAIRS, BLOCK_PAIRS)
    if REST > 0:
        rest = columns(start + 2 * PAIRS, inside, REST, BLOCK_REST).to(tl.float32) * key_scale
        _store_columns(result + 2 * PAIRS, rest, inside, REST, BLOCK_REST)
    value = columns(values + page * value_page + slot * VALUES, inside, VALUES, BLOCK_VALUES)
    _store_columns(
        values_out + (row * length + to) * VALUES, value.to(tl.float32) * value_scale, inside, VALUES, BLOCK_VALUES
    )


@kernel
def _store_columns(start: tl.tensor, numbers: tl.tensor, inside: tl.tensor, SIZE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first SIZE of each row of `numbers`, from each pointer on."""
    column = tl.arange(0, BLOCK)
    tl.store(start[:, None] + column[None, :], numbers, mask=inside[:, None] & (column < SIZE)[None, :])
