"""The public list of agents."""

from __future__ import annotations

import ctxkit_agents


def test_the_public_list_is_sorted_and_real() -> None:
    assert ctxkit_agents.__all__ == sorted(ctxkit_agents.__all__)
    assert all(getattr(ctxkit_agents, name).__doc__ for name in ctxkit_agents.__all__)
    assert set(ctxkit_agents._ON_USE) == set(ctxkit_agents.__all__)
