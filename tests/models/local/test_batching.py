"""Scheduler: answers that are read at the same time share passes, and are what they would be alone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from ctxkit.errors import MemoryInsufficient
from ctxkit.models import LocalModel
from ctxkit.models.local.batching import Scheduler
from ctxkit.models.local.engine import Engine
from ctxkit.protocols import Sampling
from ctxkit.testing import tiny_counter, tiny_llama, tiny_model

PROMPTS = ["Hello 42", "Other " * 40, "", "naïve café 日本"]
SAMPLING = Sampling(max_tokens=24)


@pytest.fixture(scope="module")
def tiny() -> LocalModel:
    return tiny_model(prefix_bytes=0)  # what an answer took is free when it ends


@pytest.fixture
def shapes(tiny: LocalModel) -> Iterator[list[tuple[int, int]]]:
    """(contexts, tokens) of each forward pass."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(tuple(kwargs["input_ids"].shape))

    hook = tiny.model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


def _waits(scheduler: Scheduler, asks: int, turns: int = 0) -> None:
    """Returns once so many wait; they cannot get on while somebody has the turn."""
    while (len(scheduler._asks), len(scheduler._turns)) != (asks, turns):
        threading.Event().wait(0.001)


def _together(scheduler: Scheduler, calls: list[Callable[[], Any]]) -> list[Any]:
    """Runs the calls in a thread each; none gets on before all of them wait."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with scheduler.turn():
            futures = [pool.submit(call) for call in calls]
            while len(scheduler._asks) + len(scheduler._turns) < len(calls):
                threading.Event().wait(0.001)
        return [future.result(timeout=60) for future in futures]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_of_four_threads_are_those_of_one_after_the_other(dtype: torch.dtype) -> None:
    weights = tiny_llama().double() if dtype is torch.float64 else tiny_llama()
    model = LocalModel(weights, tiny_counter(), prefill_tokens=32, prefix_bytes=0)
    alone = [model.generate(prompt, SAMPLING) for prompt in PROMPTS]
    calls: list[Callable[[], Any]] = [lambda prompt=prompt: model.generate(prompt, SAMPLING) for prompt in PROMPTS]
    assert _together(model.scheduler, calls) == alone
    assert model.engine.pool.used == 0


def test_those_who_wait_share_a_pass(tiny: LocalModel, shapes: list[tuple[int, int]]) -> None:
    streams = [tiny.stream(prompt, SAMPLING) for prompt in PROMPTS]
    firsts = [next(stream) for stream in streams]
    alone = [tiny.generate(prompt, SAMPLING).text for prompt in PROMPTS]
    shapes.clear()
    seconds = _together(tiny.scheduler, [lambda stream=stream: next(stream) for stream in streams])
    assert shapes[0] == (4, 1)
    rests = ["".join(stream) for stream in streams]
    assert [first + second + rest for first, second, rest in zip(firsts, seconds, rests, strict=True)] == alone


def test_a_pass_has_at_most_max_batch_contexts_and_the_first_to_ask_are_in_the_first() -> None:
    engine = Engine(tiny_llama())
    scheduler = Scheduler(engine, max_batch=2)
    contexts = [engine.new_context() for _ in range(5)]
    batches: list[list[int]] = []
    step = engine.step

    def noted(some: Any, ids: Any) -> Any:
        batches.append(list(ids))
        return step(some, ids)

    engine.step = noted  # pyright: ignore[reportAttributeAccessIssue]
    with ThreadPoolExecutor(5) as pool:
        with scheduler.turn():
            futures = []
            for token, context in enumerate(contexts):
                futures.append(pool.submit(scheduler.step, context, token))
                _waits(scheduler, token + 1)
        rows = [future.result() for future in futures]
    assert batches == [[0, 1], [2, 3], [4]]
    assert all(row is not None and row.shape == rows[0].shape for row in rows)


def test_turns_keep_their_order_and_the_tokens_that_wait_go_between_two() -> None:
    engine = Engine(tiny_llama())
    scheduler = Scheduler(engine)
    context, order = engine.new_context(), list[str]()

    def turn(name: str, waiting_turns: int) -> None:
        with scheduler.turn():
            order.append(name)
            _waits(scheduler, 1, waiting_turns)

    def steps() -> None:
        for name in ("one", "two", "three"):
            scheduler.step(context, 5)
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        with scheduler.turn():
            futures = [pool.submit(turn, "first", 1)]
            _waits(scheduler, 0, 1)
            futures.append(pool.submit(turn, "second", 0))
            _waits(scheduler, 0, 2)
            futures.append(pool.submit(steps))
            _waits(scheduler, 1, 2)
        for future in futures:
            future.result()
    assert [name for name in order if name in ("first", "second")] == ["first", "second"]
    assert order.index("two") > order.index("first") and order.index("three") > order.index("second")
    assert context.ids == [5, 5, 5]


def test_a_long_prompt_is_read_in_chunks_with_others_tokens_between() -> None:
    model = LocalModel(tiny_llama(), tiny_counter(), prefill_tokens=8, prefix_bytes=0)
    stream = model.stream("Hello", Sampling(max_tokens=200))
    next(stream)
    order: list[int] = []
    hook = model.model.register_forward_pre_hook(
        lambda module, args, kwargs: order.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    _together(model.scheduler, [lambda: model.generate("word " * 60, Sampling(max_tokens=1)), lambda: list(stream)])
    hook.remove()
    chunks = [index for index, tokens in enumerate(order) if tokens == 8]
    assert len(chunks) > 10
    assert 1 in order[chunks[0] : chunks[-1]]


def test_a_stream_that_is_dropped_leaves_and_the_others_go_on(tiny: LocalModel) -> None:
    alone = tiny.generate("Other", SAMPLING).text
    dropped, kept = tiny.stream("Hello", SAMPLING), tiny.stream("Other", SAMPLING)
    pieces = [next(dropped), next(kept)][1:]
    used = tiny.engine.pool.used
    del dropped
    gc.collect()
    assert 0 < tiny.engine.pool.used < used
    assert "".join([*pieces, *kept]) == alone
    assert tiny.engine.pool.used == 0


def test_one_that_stops_while_it_waits_is_not_computed(tiny: LocalModel, shapes: list[tuple[int, int]]) -> None:
    one, two = tiny.stream("Hello", SAMPLING), tiny.stream("Other", SAMPLING)
    next(one)
    next(two)
    shapes.clear()
    with ThreadPoolExecutor(2) as pool:
        with tiny.scheduler.turn():
            futures = [pool.submit(next, stream, None) for stream in (one, two)]
            _waits(tiny.scheduler, 2)
            one.stop()
        assert futures[0].result() is None
        assert futures[1].result()
    assert shapes[0] == (1, 1)
    assert one.reply.finish_reason == "cancelled"


def test_memory_promised_to_one_answer_is_refused_to_the_next() -> None:
    weights, counter = tiny_llama(), tiny_counter()
    model = LocalModel(weights, counter, prefix_bytes=0)
    stream = model.stream("Hello", Sampling(max_tokens=300))
    next(stream)
    model.engine.pool.max_bytes = 60 * model.engine.pool.page_bytes * 2
    passes: list[int] = []
    hook = weights.register_forward_pre_hook(lambda module, args: passes.append(1))
    assert model.engine.pool.used < 20
    with pytest.raises(MemoryInsufficient):
        model.generate("Hello", Sampling(max_tokens=300))
    assert passes == []
    hook.remove()
    stream.close()
    assert model.generate("Hello", Sampling(max_tokens=300)).completion_tokens > 0


def test_an_error_reaches_only_the_one_whose_pass_it_is() -> None:
    engine = Engine(tiny_llama())
    scheduler = Scheduler(engine)
    good, bad = engine.new_context(), engine.new_context()
    step = engine.step

    def failing(contexts: Any, ids: Any) -> Any:
        if bad in contexts:
            raise MemoryInsufficient("too much", needed_bytes=2, allowed_bytes=1)
        return step(contexts, ids)

    engine.step = failing  # pyright: ignore[reportAttributeAccessIssue]

    def outcome(context: Any) -> Any:
        try:
            return scheduler.step(context, 7)
        except MemoryInsufficient as error:
            return error

    rows = _together(scheduler, [lambda: outcome(bad), lambda: outcome(good)])
    assert isinstance(rows[0], MemoryInsufficient)
    assert good.ids == [7] and bad.ids == []
    assert torch.equal(rows[1], step([engine.new_context()], [7])[0])


def test_an_interrupted_leader_leaves_the_pass_to_the_others() -> None:
    engine = Engine(tiny_llama())
    scheduler = Scheduler(engine)
    contexts = [engine.new_context(), engine.new_context()]
    step, interrupted = engine.step, list[int]()

    def interrupting(some: Any, ids: Any) -> Any:
        if not interrupted:
            interrupted.append(threading.get_ident())
            raise KeyboardInterrupt
        return step(some, ids)

    engine.step = interrupting  # pyright: ignore[reportAttributeAccessIssue]

    def outcome(context: Any) -> Any:
        try:
            return scheduler.step(context, 7)
        except KeyboardInterrupt:
            return "interrupted"

    rows = _together(scheduler, [lambda context=context: outcome(context) for context in contexts])
    assert sorted(isinstance(row, str) for row in rows) == [False, True]
    assert sorted(len(context) for context in contexts) == [0, 1]
    assert scheduler._asks == []


def test_a_turn_whose_waiting_is_interrupted_holds_up_nobody() -> None:
    engine = Engine(tiny_llama())
    scheduler = Scheduler(engine)
    context = engine.new_context()
    may_turn, looked = scheduler._may_turn, list[object]()

    def interrupted(mine: object) -> bool:
        if looked:  # it waits, and looks again
            raise KeyboardInterrupt
        looked.append(mine)
        return may_turn(mine)

    def turn() -> None:
        with pytest.raises(KeyboardInterrupt), scheduler.turn():
            pass

    with ThreadPoolExecutor(2) as pool:
        with scheduler.turn():
            scheduler._may_turn = interrupted  # pyright: ignore[reportAttributeAccessIssue]
            waiting = pool.submit(turn)
            _waits(scheduler, 0, 1)
            step = pool.submit(scheduler.step, context, 7)
        assert waiting.result(timeout=60) is None
        assert step.result(timeout=60) is not None
    assert context.ids == [7]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_batch"):
        Scheduler(Engine(tiny_llama()), max_batch=0)
