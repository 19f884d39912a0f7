"""What the store owes to policies that drop tokens in the middle of a text."""

import numpy as np
import pytest
import torch

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.runs import Runs
from ctxkit.models.local.paging.track import Track
from ctxkit.models.local.policies.base import View, copied_states


def runs_of(*rows):
    """Runs of (slot, first, count, position)."""
    columns = np.array(rows, np.int64).T
    return Runs(*columns, np.zeros(len(rows), np.int64))


@pytest.mark.parametrize(
    ("rows", "first_query", "gap"),
    [
        ([(0, 0, 4, 0), (1, 0, 6, 20)], 26, [16, 0]),  # queries behind all runs
        ([(0, 0, 4, 0), (1, 0, 6, 20)], 22, [16, 0]),  # the last run goes on into the queries
        ([(0, 0, 4, 0), (1, 0, 2, 20), (2, 0, 4, 22)], 22, [16, 0, 0]),  # and with a run of its own
        ([(0, 0, 4, 0), (1, 0, 2, 10), (2, 0, 3, 30)], 30, [24, 18, 0]),
        ([(0, 0, 5, 0)], 0, [0]),  # nothing before the queries
    ],
)
def test_packed_tokens_follow_each_other_up_to_the_first_query(rows, first_query, gap):
    assert View.of(runs_of(*rows)).packed(first_query).gap.tolist() == gap


def test_a_copy_of_states_shares_no_dictionary_however_deep():
    states = {"policy": {"retain": {"part": {"rounds": 1}}}}
    copy = copied_states(states)
    copy["policy"]["retain"]["part"]["rounds"] = 2
    assert states == {"policy": {"retain": {"part": {"rounds": 1}}}}


def scattered(max_pages):
    """A full pool, and a track of 64 tokens in its 4 pages."""
    pool = PagePool(4, 4)
    pool.max_bytes = max_pages * pool.page_bytes
    track = Track(pool, 0, [(0, 0)])
    place = track.extend(0, 64, 0)
    pages = torch.from_numpy(track.pages[:, place.slots].astype(np.int64))
    own = torch.arange(64.0)[None, :, None].expand(-1, -1, 4)
    pool.write(pages, torch.from_numpy(place.offsets), own, own)
    return pool, track


def held(pool, track):
    slots, offsets = track.runs.token_places()
    return pool.pages.keys[track.pages[0, slots], offsets][:, 0].tolist()


@pytest.mark.parametrize(("max_pages", "pages"), [(4, 4), (5, 1)])
def test_tokens_are_moved_together_only_where_there_is_room(max_pages, pages):
    pool, track = scattered(max_pages)
    track.keep_tokens(np.arange(64) % 16 == 3)
    assert held(pool, track) == [3, 19, 35, 51]
    assert track.runs.token_positions().tolist() == [3, 19, 35, 51]
    assert pool.used == pages
    track.close()
    assert pool.used == 0


def test_a_pool_that_grew_within_a_pass_can_be_moved_in_outside_of_one():
    pool = PagePool(4, 4)
    with torch.inference_mode():
        track = Track(pool, 0, [(0, 0)])
        track.extend(0, 64, 0)
    track.keep_tokens(np.arange(64) % 16 == 3)
    assert pool.used == 1


def test_more_than_may_be_taken_is_refused():
    pool, track = scattered(4)
    with pytest.raises(MemoryInsufficient):
        track.extend(64, 1, 0)
