"""Whatever is done to tracks, they hold what a plain list would hold, and give back every page."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.runs import Runs
from ctxkit.models.local.paging.track import Track

MEMBERS = [(0, 0), (0, 1), (2, 0)]
PAGE = 4


def _pool(**given: object) -> PagePool:
    return PagePool(2, 3, page_tokens=PAGE, **given)  # type: ignore[arg-type]


@dataclass
class Text:
    """A track, and what it should hold: positions, the value of each, and the origins of their keys."""

    track: Track
    positions: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    origins: list[int] = field(default_factory=list)
    length: int = 0

    def extend(self, tokens: int, value: float, origin: int) -> None:
        place = self.track.extend(self.length, tokens, origin)
        rows = torch.arange(len(MEMBERS))[:, None, None]
        written = (value + torch.arange(tokens) / 64)[None, :, None] + rows
        pages = torch.from_numpy(self.track.pages[:, place.slots].astype(np.int64))
        self.track.pool.write(
            pages, torch.from_numpy(place.offsets), written.expand(-1, -1, 2), written.expand(-1, -1, 3)
        )
        self.positions += range(self.length, self.length + tokens)
        self.values += [value + i / 64 for i in range(tokens)]
        self.origins += [origin] * tokens
        self.length += tokens

    def keep(self, mask: np.ndarray) -> None:
        self.track.keep_tokens(mask)
        for own in (self.positions, self.values, self.origins):
            own[:] = [item for item, kept in zip(own, mask, strict=True) if kept]

    def crop(self, length: int) -> None:
        self.track.crop(length)
        kept = sum(position < length for position in self.positions)
        for own in (self.positions, self.values, self.origins):
            del own[kept:]
        self.length = min(self.length, length)

    def fork(self) -> Text:
        return Text(self.track.fork(), list(self.positions), list(self.values), list(self.origins), self.length)

    def check(self) -> None:
        runs = self.track.runs
        assert runs.token_positions().tolist() == self.positions
        assert np.repeat(runs.origin, runs.count).tolist() == self.origins
        slots, offsets = runs.token_places()
        keys, values = self.track.pool.read(self.track.pages[:, slots], offsets)
        rows = torch.arange(len(MEMBERS))[:, None]
        for part in (keys, values):
            assert torch.equal(part, (torch.tensor(self.values)[None] + rows)[..., None].expand_as(part))
        assert self.track.tokens == len(self.positions)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["extend", "keep", "crop", "fork", "compact"]), st.integers(0, 10**6)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_tracks_hold_what_lists_would_hold(operations: list[tuple[str, int]]) -> None:
    pool = _pool()
    texts = [Text(Track(pool, 0, MEMBERS))]
    for number, (operation, seed) in enumerate(operations):
        draw = np.random.default_rng(seed)
        text = texts[seed % len(texts)]
        if operation == "extend":
            text.extend(int(draw.integers(1, 11)), 10.0 * number, text.length // 8 * 8)
        elif operation == "keep":
            text.keep(draw.random(len(text.positions)) < draw.random())
        elif operation == "crop":
            text.crop(int(draw.integers(0, text.length + 1)))
        elif operation == "fork" and len(texts) < 4:
            texts.append(text.fork())
        elif operation == "compact":
            text.track.compact()
        for other in texts:
            other.check()
    for text in texts:
        text.track.close()
        assert text.track.tokens == 0
    assert pool.used == 0


def test_a_window_that_moves_on_forever_has_a_short_table() -> None:
    text = Text(Track(_pool(), 0, MEMBERS))
    for step in range(300):
        text.extend(3, float(step), 0)
        text.keep(np.arange(len(text.positions)) >= len(text.positions) - 10)
        text.check()
        assert text.track.pages.shape[1] <= 12
    assert text.track.pool.capacity <= 12 * len(MEMBERS)


def test_tokens_that_lie_apart_are_moved_together() -> None:
    text = Text(Track(_pool(), 0, MEMBERS))
    text.extend(40, 0.0, 0)
    text.keep(np.arange(40) % PAGE == 0)
    text.check()
    assert text.track.pool.used == 3 * len(MEMBERS)


def test_a_pool_says_no_before_it_takes_anything() -> None:
    page_bytes = PAGE * (2 + 3) * 4
    pool = _pool(max_bytes=5 * page_bytes)
    track = Track(pool, 0, MEMBERS)
    track.extend(0, PAGE, 0)
    with pytest.raises(MemoryInsufficient, match="keys and values need"):
        track.extend(PAGE, 1, 0)
    assert track.tokens == PAGE
    assert pool.used == 3
    assert pool.allocated_bytes <= 5 * page_bytes


def test_int8_pages_are_within_half_a_step_of_what_was_written() -> None:
    pool = _pool(dtype=torch.int8)
    pages = torch.from_numpy(pool.take(2).astype(np.int64))[:, None].expand(2, PAGE)
    keys = torch.randn(2, PAGE, 2, generator=torch.Generator().manual_seed(0))
    keys[0, 0] = 0
    pool.write(pages, torch.arange(PAGE), keys, torch.ones(2, PAGE, 3))
    assert pool.pages.key_scales is not None
    read = pool.pages.keys[pages[:, 0]].float() * pool.pages.key_scales[pages[:, 0]][..., None]
    assert bool(((read - keys).abs() <= keys.abs().amax(-1, keepdim=True) / 254 + 1e-7).all())


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 45), st.integers(0, 45))
def test_parts_of_runs_are_the_parts_of_their_tokens(kept: list[bool], low: int, high: int) -> None:
    track = Track(_pool(), 0, MEMBERS)
    track.extend(0, len(kept), 0)
    mask = np.array(kept)
    runs = track.runs.pick(mask)
    positions = np.flatnonzero(mask)
    assert runs.token_positions().tolist() == positions.tolist()
    assert runs.before(low).token_positions().tolist() == positions[positions < low].tolist()
    assert runs.since(low).token_positions().tolist() == positions[positions >= low].tolist()
    outside = positions[(positions < low) | (positions >= max(low, high))]
    assert runs.outside(low, high).token_positions().tolist() == outside.tolist()
    assert Runs.empty().then(runs).token_positions().tolist() == positions.tolist()
