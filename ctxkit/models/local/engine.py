"""Engine: forward passes of a transformers causal language model over one paged store of keys and values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctxkit.errors import PolicyError
from ctxkit.models.local import adapter
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.evidence import Watch
from ctxkit.models.local.paging.memory import allowed_bytes, check_memory, missing_bytes, needed_pages
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.saved import SavedPages, attach
from ctxkit.models.local.paging.step import Step, commit
from ctxkit.models.local.paging.tiered import TieredPool
from ctxkit.models.local.policies.base import Moment, Policy
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.prefixes import PrefixStore
from ctxkit.models.local.static_decoding import StaticDecoding
from ctxkit_kernels.attention import AttentionKernels, TorchAttention, attention_kernels

_MOST_PREFIX_BYTES = 1 << 30


@dataclass(frozen=True)
class _How:
    """What one pass is to do besides reading, as `Engine.forward` says."""

    keep: int = 1
    watch: Watch | None = None
    observe: bool = False
    settle: bool = True


class Engine:
    """Feeds token ids to a model and gives float32 logits back. Contexts take turns, also from several threads.

    policy: of contexts that name no other; full attention by default. prefill_tokens: tokens per forward pass while a
    prompt is read. kv_dtype: how keys and values are stored; as the model computes them by default; torch.int8 takes a
    quarter of float32. max_kv_bytes: the most that they may take; by default what the device has free, less a tenth.
    host_kv_bytes: where given, pages beyond max_kv_bytes are in the host's memory, up to so many bytes, and come back
    to the device when they are seen: for policies that keep all and show some.
    prefix_bytes: how much of it may go on holding finished answers, for prompts that begin the same; by default an
    eighth, at most 1 GiB; 0 keeps none.

    cuda_graphs: whether `step` replays CUDA graphs, which know the weights by where they are; by default on CUDA, for
    policies that `StaticDecoding` serves. True raises PolicyError for others, and without CUDA captures nothing.

    Raises ModelError where the model's attention cannot be paged: it must go through transformers' attention interface.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        policy: Policy | None = None,
        prefill_tokens: int = 512,
        kv_dtype: torch.dtype | None = None,
        max_kv_bytes: int | None = None,
        host_kv_bytes: int | None = None,
        prefix_bytes: int | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        if prefill_tokens < 1:
            raise ValueError(f"`prefill_tokens` must be at least 1, got {prefill_tokens!r}")
        self.model = model.eval()
        self.shape = adapter.probe(self.model)
        self.policy = policy or Full()
        self.prefill_tokens = prefill_tokens
        self.kv_dtype = kv_dtype
        self.max_kv_bytes = max_kv_bytes
        self.host_kv_bytes = host_kv_bytes
        self._prefix_bytes = prefix_bytes
        self.cuda_graphs = cuda_graphs
        self._lock = threading.RLock()

    @cached_property
    def kernels(self) -> AttentionKernels:
        exact = self.pool.dtype == torch.float64  # only the reference computes so precisely
        return TorchAttention() if exact else attention_kernels(self.shape.device.type)

    @cached_property
    def pool(self) -> PagePool:
        """The memory of all contexts."""
        layer, dtype = self.shape.layers[0], self.kv_dtype or self.shape.dtype
        limit = allowed_bytes(self.shape.device) if self.max_kv_bytes is None else self.max_kv_bytes
        where = self.shape.device
        if self.host_kv_bytes is None:
            return PagePool(layer.dims, layer.value_dims, dtype=dtype, device=where, max_bytes=limit)
        if limit is None:
            raise ValueError("`host_kv_bytes` needs `max_kv_bytes`: this system does not say what the device has free")
        return TieredPool(
            layer.dims, layer.value_dims, dtype=dtype, device=where, device_bytes=limit, host_bytes=self.host_kv_bytes
        )

    @cached_property
    def prefixes(self) -> PrefixStore:
        """What finished answers have left."""
        limit = self.pool.max_bytes or 8 * _MOST_PREFIX_BYTES
        return PrefixStore(min(_MOST_PREFIX_BYTES, limit // 8) if self._prefix_bytes is None else self._prefix_bytes)

    @cached_property
    def static(self) -> StaticDecoding | None:
        """What makes decoding passes over tensors that never move; None where nothing does."""
        wanted = self.shape.device.type == "cuda" if self.cuda_graphs is None else self.cuda_graphs
        if not wanted:
            return None
        return StaticDecoding(self.model, self.shape, self.kernels, self.pool, insist=bool(self.cuda_graphs))

    def begin(self, ids: Sequence[int], policy: Policy | None = None) -> KVContext:
        """A context for a prompt, which has read as much of it already as an earlier one had in common with it.

        To be given to `finish`. Raises as `new_context`.
        """
        with self._lock:
            found = self.prefixes.take(ids, policy or self.policy)
        return self.new_context(policy) if found is None else found

    def finish(self, context: KVContext) -> None:
        """Nobody reads this context on: it is kept for a prompt that begins the same, while memory allows."""
        with self._lock:
            self.prefixes.put(context)

    def new_context(self, policy: Policy | None = None) -> KVContext:
        """An empty context. Raises PolicyError where the policy moves tokens and the model's rotation is unknown."""
        chosen = policy or self.policy
        if chosen.places and not self.shape.turnable:
            raise PolicyError(
                f"{chosen!r} moves tokens, and the rotation of {type(self.model).__name__} cannot be turned; "
                "use a policy that sees tokens where they stand"
            )
        with self._lock:
            return KVContext(self.shape, chosen, self.pool)

    def endless(self, policy: Policy) -> bool:
        """Whether a text may be longer than the window that the model was trained on: no distance grows with it."""
        return policy.places and self.shape.turnable

    def check(self, context: KVContext, tokens: int, *, besides: Iterable[tuple[KVContext, int]] = ()) -> None:
        """Raises MemoryInsufficient, before anything is computed, where `tokens` more would not fit into memory.

        besides: other contexts, and how many more tokens each was promised room for. What is kept of finished answers
        makes room first.
        """
        with self._lock:
            pages = needed_pages(context, tokens, self.prefill_tokens)
            pages += sum(needed_pages(other, more, self.prefill_tokens) for other, more in besides)
            while missing_bytes(self.pool, pages) and self.prefixes.give_back():
                pass
            check_memory(self.pool, pages, len(context) + tokens)

    def forward(
        self,
        ids: Sequence[int],
        context: KVContext,
        *,
        keep: int = 1,
        watch: Watch | None = None,
        observe: bool = False,
        embeddings: Tensor | None = None,
        settle: bool = True,
    ) -> Tensor:
        """Appends `ids`; logits after each of the last `keep` of them, float32 [keep, vocabulary].

        watch, observe: as `Step` says. embeddings: [ids, hidden size], read in place of the ids' own. settle: let the
        policy drop what it does not keep; else the caller does, after it took back what it does not want.
        Raises MemoryInsufficient, and the context is as it was.
        """
        if not len(ids):
            raise ValueError("`ids` is empty; there are logits only after a token")
        wanted = len(ids) if "surprisal" in context.policy.needs else keep
        found: list[Tensor] = []
        for start, end in context.passes(len(ids)):
            kept = max(0, end - max(start, len(ids) - wanted))
            how = _How(max(kept, 1), watch, observe, settle)
            given = None if embeddings is None else embeddings[start:end]
            found.append(self._pass([context], [ids[start:end]], how, given))
        return torch.cat(found)[-keep:]

    def step(self, contexts: Sequence[KVContext], ids: Sequence[int]) -> Tensor:
        """Appends one id to each context, all in one pass; logits after each, float32 [contexts, vocabulary].

        Raises MemoryInsufficient, and the contexts are as they were.
        """
        if not len(ids) or len(ids) != len(contexts):
            raise ValueError(f"`ids` must be one for each context, at least one; got {len(ids)} for {len(contexts)}")
        each = [[token] for token in ids]
        with self._lock, torch.inference_mode():
            logits = None if self.static is None else self.static.step(contexts, ids)
            if logits is None:
                return self._pass(contexts, each, _How())
            commit(contexts, each, logits[:, None])
            return logits

    def prefill(
        self,
        ids: Sequence[int],
        context: KVContext,
        *,
        stopped: Callable[[], bool] = lambda: False,
        watch: Watch | None = None,
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Tensor | None:
        """Reads a prompt in chunks; logits after its last token, float32 [vocabulary]. None where `stopped` said so.

        turn: is entered for each chunk; who shares the engine can wait in it.
        The prompt's last `policy.window` tokens are read in a pass of their own, whose attention the policy may see.
        """
        logits = None
        window = context.policy.window if "prompt" in context.policy.needs else 0
        for start, end in _chunks(len(ids), self.prefill_tokens, min(window, len(ids))):
            if stopped():
                return None
            last = window > 0 and end == len(ids)
            with turn():
                logits = self.forward(ids[start:end], context, watch=watch, observe=last)[-1]
        self.settle(context, "prompt")
        return logits

    def settle(self, context: KVContext, moment: Moment) -> None:
        """Lets the policy drop what it does not keep."""
        with self._lock:
            context.settle(moment)

    def logits(self, ids: Sequence[int], last: int, *, policy: Policy | None = None) -> Iterator[Tensor]:
        """Logits after each of the last `last` ids, in order, in chunks of float32 [n, vocabulary]."""
        context = self.new_context(policy)
        first = len(ids) - last
        try:
            for start in range(0, len(ids), self.prefill_tokens):
                chunk = ids[start : start + self.prefill_tokens]
                wanted = min(len(chunk), start + len(chunk) - first)
                logits = self.forward(chunk, context, keep=max(wanted, 1))
                if wanted > 0:
                    yield logits
        finally:
            self.close(context)

    def fork(self, context: KVContext) -> KVContext:
        """The same text twice; memory is shared until the two differ."""
        with self._lock:
            return context.fork()

    def attach(self, context: KVContext, saved: SavedPages, model: str) -> None:
        """As `saved.attach`."""
        with self._lock:
            attach(context, saved, model)

    def crop(self, context: KVContext, tokens: int) -> bool:
        """As `KVContext.crop`."""
        with self._lock:
            return context.crop(tokens)

    def close(self, context: KVContext) -> None:
        """Gives the context's memory back."""
        with self._lock:
            context.close()

    def _pass(
        self,
        contexts: Sequence[KVContext],
        ids: Sequence[Sequence[int]],
        how: _How,
        embeddings: Tensor | None = None,
    ) -> Tensor:
        """One forward pass; float32 [contexts * keep, vocabulary]. For "surprisal", `keep` is the whole pass."""
        with self._lock, torch.inference_mode():
            doing = Step(contexts, len(ids[0]), self.shape, self.kernels, watch=how.watch, observe=how.observe)
            device = self.shape.device
            fed = torch.tensor([list(own) for own in ids], dtype=torch.long) if embeddings is None else embeddings[None]
            try:
                positions = doing.positions.to(device)
                logits = adapter.run(self.model, fed.to(device), positions, doing, keep=how.keep).float()
            except BaseException:
                doing.take_back()
                raise
            commit(contexts, ids, logits, settle=how.settle)
            return logits.flatten(0, 1)


def _chunks(tokens: int, size: int, window: int) -> Iterator[tuple[int, int]]:
    """Chunks of `size`, and the last `window` tokens as one."""
    body = tokens - window
    for start in range(0, body, size):
        yield start, min(body, start + size)
    if window:
        yield body, tokens
