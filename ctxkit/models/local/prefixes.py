"""PrefixStore: finished contexts, kept for the next prompt that begins the same."""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies.base import Policy

_MOST_CONTEXTS = 32
_LEAST_TOKENS = 16  # a shorter common beginning is read faster than it is looked after


class PrefixStore:
    """Least recently used contexts leave first, once all together take more than `max_bytes`.

    Nothing is copied: what is taken out is a fork, which shares the stored pages until it writes to one of them.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._contexts: list[KVContext] = []  # the last one was used last

    def __len__(self) -> int:
        return len(self._contexts)

    @property
    def used_bytes(self) -> int:
        return sum(context.used_bytes for context in self._contexts)

    def take(self, ids: Sequence[int], policy: Policy) -> KVContext | None:
        """A context of the longest beginning of `ids` that some stored one still has whole; None where there is none.

        At least the last of `ids` is not in it: somebody has to read it for the logits.
        """
        best, shared = None, _LEAST_TOKENS - 1
        for context in self._contexts:
            common = min(common_tokens(context.ids, ids), len(ids) - 1)
            if (
                context.policy == policy
                and common > shared
                and (common == len(context) or common >= context.exact_from)
            ):
                best, shared = context, common
        if best is None:
            return None
        self._contexts.remove(best)
        self._contexts.append(best)
        fork = best.fork()
        fork.crop(shared)
        return fork

    def put(self, context: KVContext) -> None:
        """Keeps a context that nobody reads on, instead of those it goes on from."""
        if not len(context) or context.used_bytes > self.max_bytes:
            context.close()
            return
        for other in [other for other in self._contexts if self._covers(context, other)]:
            self._drop(other)
        self._contexts.append(context)
        while len(self._contexts) > _MOST_CONTEXTS or self.used_bytes > self.max_bytes:
            self._drop(self._contexts[0])

    def give_back(self) -> bool:
        """Drops the least recently used context; False where there is none."""
        if self._contexts:
            self._drop(self._contexts[0])
            return True
        return False

    def _covers(self, context: KVContext, other: KVContext) -> bool:
        """Whether whatever `other` could be taken for, `context` could."""
        whole = common_tokens(context.ids, other.ids) == len(other)
        return whole and context.policy == other.policy and context.exact_from <= other.exact_from

    def _drop(self, context: KVContext) -> None:
        self._contexts.remove(context)
        context.close()


def common_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
