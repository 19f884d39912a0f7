"""The gate: so many at once, keys take turns, and what waits too long in line is refused."""

from __future__ import annotations

import asyncio

import pytest

from ctxkit.server.gate import Gate
from ctxkit.server.keys import ANYBODY, ApiKeys
from ctxkit.server.problems import Problem


async def served(gate: Gate, key: str, order: list[str], release: asyncio.Event) -> None:
    async with gate.turn(key):
        order.append(key)
        await release.wait()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_keys_take_turns() -> None:
    async def main() -> list[str]:
        gate, order, release = Gate(1, 100, 100), list[str](), asyncio.Event()
        waiting = []
        for key in ["loud"] * 4 + ["quiet"] * 2:
            waiting.append(asyncio.ensure_future(served(gate, key, order, release)))
            await settled()
        release.set()
        await asyncio.gather(*waiting)
        assert gate.running == gate.waiting == 0
        return order

    assert asyncio.run(main()) == ["loud", "loud", "quiet", "loud", "quiet", "loud"]


def test_a_full_line_is_refused_with_429_and_when_to_come_back() -> None:
    async def main() -> None:
        gate, release = Gate(1, 3, 2), asyncio.Event()
        tasks = []
        for key in ("a", "a", "a"):
            tasks.append(asyncio.ensure_future(served(gate, key, [], release)))
            await settled()
        with pytest.raises(Problem) as mine:
            await served(gate, "a", [], release)
        assert mine.value.status == 429 and mine.value.headers["retry-after"]
        tasks.append(asyncio.ensure_future(served(gate, "b", [], release)))
        await settled()
        with pytest.raises(Problem):
            await served(gate, "c", [], release)
        release.set()
        await asyncio.gather(*tasks)
        assert gate.running == gate.waiting == 0

    asyncio.run(main())


def test_who_goes_away_leaves_the_line_and_loses_nothing() -> None:
    async def main() -> None:
        gate, release, order = Gate(2, 50, 50), asyncio.Event(), list[str]()
        tasks = [asyncio.ensure_future(served(gate, f"k{n % 3}", order, release)) for n in range(20)]
        await settled()
        for task in tasks[::3]:  # some of them run, most of them wait
            task.cancel()
        release.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.running == gate.waiting == 0
        async with gate.turn("again"):
            assert gate.running == 1

    asyncio.run(main())


def test_a_closed_gate_lets_nobody_in() -> None:
    async def main() -> None:
        gate = Gate(1, 1, 1)
        gate.closed = True
        with pytest.raises(Problem) as refusal:
            await served(gate, "a", [], asyncio.Event())
        assert refusal.value.status == 503

    asyncio.run(main())


def test_an_owner_is_the_same_for_a_key_and_no_other_and_is_not_the_key() -> None:
    keys = ApiKeys(["alpha-secret", "beta-secret"])
    alpha, beta = keys.owner_of("Bearer alpha-secret"), keys.owner_of("bearer beta-secret")
    assert alpha != beta and "secret" not in alpha + beta and alpha == keys.owner_of("Bearer  alpha-secret ")
    for wrong in (None, "", "Bearer ", "Basic alpha-secret", "Bearer alpha-secre", "alpha-secret"):
        with pytest.raises(Problem) as refusal:
            keys.owner_of(wrong)
        assert refusal.value.status == 401 and "alpha" not in str(refusal.value)
    assert ApiKeys().owner_of(None) == ANYBODY
