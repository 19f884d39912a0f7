"""Look-ahead: a prompt is read together with a draft of its answer, which only the policy sees."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from ctxkit.errors import PolicyError
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext


def draft_answer(engine: Engine, ids: Sequence[int], tokens: int, *, eos_ids: Collection[int] = ()) -> list[int]:
    """The greedy answer of a small model with the same tokens, at most `tokens` ids, up to one of `eos_ids`."""
    context = engine.new_context()
    found: list[int] = []
    try:
        logits = engine.prefill(ids, context)
        while logits is not None and len(found) < tokens:
            token = int(logits.argmax())
            if token in eos_ids:
                break
            found.append(token)
            logits = engine.step([context], [token])[0]
    finally:
        engine.close(context)
    return found


def prefill_with_lookahead(engine: Engine, ids: Sequence[int], context: KVContext, draft_ids: Sequence[int]) -> Tensor:
    """As `engine.prefill`, with a policy whose window goes on into the draft, such as `SpecKV`.

    The prompt's last `window` ids and the draft are read in one pass, which the policy observes. Then the draft is
    taken back, and the policy chooses among the prompt's tokens. Returns the logits after the prompt's last id, float32
    [vocabulary]. Raises PolicyError where the policy does not look at the prompt's end, or drops tokens as it goes, so
    that the draft cannot be taken back; the context then has to be closed.
    """
    policy = context.policy
    if "prompt" not in policy.needs or not ids:
        raise PolicyError(
            f"look-ahead is for a prompt and a policy that observes its end, such as SpecKV; got {policy}"
        )
    end = len(context) + len(ids)
    body = len(ids) - min(policy.window, len(ids))
    for start in range(0, body, engine.prefill_tokens):
        engine.forward(ids[start : min(body, start + engine.prefill_tokens)], context)
    logits = engine.forward([*ids[body:], *draft_ids], context, keep=len(draft_ids) + 1, observe=True)[0]
    if not context.crop(end):
        raise PolicyError(f"{policy!r} drops tokens while they are read; a look-ahead cannot be taken back from it")
    engine.settle(context, "prompt")
    return logits
