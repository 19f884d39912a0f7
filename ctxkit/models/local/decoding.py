"""The decode loop: passes, choices, and drafts that are judged several at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ctxkit.errors import ModelError
from ctxkit.models.local.batching import Scheduler, Stopped
from ctxkit.models.local.choosing import Chooser, Chosen
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.speculation import Drafter


def decode(
    scheduler: Scheduler,
    context: KVContext,
    logits: Tensor,
    chooser: Chooser,
    *,
    max_tokens: int,
    drafter: Drafter | None,
    stopped: Stopped,
) -> Iterator[Chosen]:
    """The answer's tokens. The pass for the next one runs when it is asked for.

    context: has the prompt. logits: after it, float32 [vocabulary]. drafter: guesses what comes; the guesses are judged
    in one pass, which may so run ahead of the reader by as many tokens as hold. What does not hold is taken back.
    """
    text = list(context.ids)
    chosen = chooser.choose_all(logits[None])
    made = 0
    while True:
        yield from chosen
        made += len(chosen)
        text.extend(one.token for one in chosen)
        if made >= max_tokens or chooser.done or stopped():
            return
        guesses = () if drafter is None else drafter.draft(text, max_tokens - made - 1)
        rows = _pass(scheduler, context, [text[-1], *(guess.token for guess in guesses)], stopped)
        if rows is None:
            return
        chosen = chooser.choose_all(rows, guesses)
        if drafter is not None and guesses:
            _take_back(scheduler, context, len(guesses) + 1 - len(chosen))
            drafter.note(len(chosen) - 1, len(guesses))


def _pass(scheduler: Scheduler, context: KVContext, ids: Sequence[int], stopped: Stopped) -> Tensor | None:
    """Logits after each of `ids`, float32 [ids, vocabulary]."""
    if len(ids) == 1:
        logits = scheduler.step(context, ids[0], stopped)
        return None if logits is None else logits[None]
    with scheduler.turn():
        return scheduler.engine.forward(ids, context, keep=len(ids), settle=False)


def _take_back(scheduler: Scheduler, context: KVContext, tokens: int) -> None:
    if not scheduler.engine.crop(context, len(context) - tokens):
        raise ModelError(f"{context.policy!r} cannot take back {tokens} drafted tokens; answer without speculation")
    scheduler.engine.settle(context, "step")
