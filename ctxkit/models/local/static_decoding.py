"""StaticDecoding: which decoding passes are replayed from CUDA graphs, and the few graphs that are kept for them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctxkit.errors import MemoryInsufficient, PolicyError
from ctxkit.models.local.adapter import ModelShape
from ctxkit.models.local.graphs import CaptureFailed, Graphs
from ctxkit.models.local.paging.context import FRAME_TOKENS, KVContext
from ctxkit.models.local.paging.part import Part
from ctxkit.models.local.paging.pool import PagePool
from ctxkit.models.local.paging.static_tables import Batch
from ctxkit.models.local.policies.base import Policy, overrides
from ctxkit.models.local.static_step import Size, StaticStep
from ctxkit_kernels.attention import AttentionKernels

logger = logging.getLogger(__name__)

_MOST_STEPS = 8  # that are kept; the least recently used goes
_ROOMY = 4  # times the cells of what is wanted: up to it a step that there is serves, for a capture takes long
_MOST_RUNS = 1 << 14  # of all rows of a table: beyond it attention, not its launch, takes the time
_LEAST_GROWING, _BOUNDED = 64, 8  # widths: powers of two from here on; or a multiple, where the reach bounds them
_TURNS_EACH = 8  # room for each row: the sinks', and one for each frame in reach
_HOOKS = ("select", "regroup", "bias", "query_scale")  # make a pass's tables, or what is done, differ between layers


class StaticDecoding:
    """Decoding passes by static steps, one for each size: rows and most widths are powers of two.

    A policy can be served that shows all layers the same tokens by position alone, such as StreamingLLM; what is kept
    may be decided after a pass. Texts that nothing bounds are served while they are short. insist: raise PolicyError
    where a pass cannot be served; else the reason is logged, once.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        shape: ModelShape,
        kernels: AttentionKernels,
        pool: PagePool,
        *,
        insist: bool = False,
    ) -> None:
        self.model, self.shape, self.kernels, self.pool, self.insist = model, shape, kernels, pool, insist
        self.steps: OrderedDict[Size, StaticStep] = OrderedDict()
        self._cuda = shape.device.type == "cuda"
        self._graphs = Graphs(shape.device)
        self._scratch: int | None = None
        self._failed: str | None = None
        self._logged: set[str] = set()

    def step(self, contexts: Sequence[KVContext], ids: Sequence[int]) -> Tensor | None:
        """Logits after one id of each context, float32 [contexts, vocabulary]; the contexts are to be committed.

        None, and no context has changed, where the pass has to be made as any other. Raises MemoryInsufficient, and
        PolicyError where it insists.
        """
        reason = self._failed or refusal(contexts)
        if reason is not None:
            self._decline(reason)
            return None
        batch = Batch(contexts)
        try:
            with torch.cuda.device(self.shape.device) if self._cuda else nullcontext():
                return self._step_for(batch).read(batch, ids)
        except CaptureFailed as error:
            reason = self._failed = f"a pass of {type(self.model).__name__} cannot be captured: {error}"
        except MemoryInsufficient:
            reason = "there is no page left for rows that nobody uses"
        except BaseException:
            self._forget(batch)
            raise
        self._forget(batch)
        self._decline(reason)
        return None

    def _decline(self, reason: str) -> None:
        if self.insist:
            raise PolicyError(f"{reason}; leave `cuda_graphs` to the engine, or use StreamingLLM")
        if reason not in self._logged:
            self._logged.add(reason)
            level = logging.WARNING if reason == self._failed else logging.INFO
            logger.log(level, "decoding without CUDA graphs: %s", reason)

    def _forget(self, batch: Batch) -> None:
        """After a pass that failed: it may have gone in between what the host and what the device knows."""
        batch.take_back()
        self.steps.clear()

    def _step_for(self, batch: Batch) -> StaticStep:
        wanted = size_of(batch)
        able = [size for size, step in self.steps.items() if not step.stale and size.covers(wanted)]
        size = min((one for one in able if one.cells <= _ROOMY * wanted.cells), key=_cells, default=None)
        if size is None:
            return self._new_step(batch, wanted)
        self.steps.move_to_end(size)
        return self.steps[size]

    def _new_step(self, batch: Batch, size: Size) -> StaticStep:
        """Captures nothing yet. Raises MemoryInsufficient where not even rows that nobody uses have a page."""
        if self._scratch is None:
            self._scratch = int(self.pool.take(1)[0])
        self._reserve(batch)
        for old in [old for old, step in self.steps.items() if step.stale]:
            del self.steps[old]
        while len(self.steps) >= _MOST_STEPS:
            self.steps.popitem(last=False)
        made_of = (self.model, self.shape, self.kernels, self.pool, size)
        step = self.steps[size] = StaticStep(*made_of, graphs=self._graphs, scratch=self._scratch)
        return step

    def _reserve(self, batch: Batch) -> None:
        """Room for all that these contexts will keep, where that is bounded: a pool that grows moves its pages."""
        page, pages = self.pool.page_tokens, 0
        for part in batch.parts:
            most = part.context.most_kept(part.track)
            slots = 0 if most is None else -(-most // page) + 2 - int((part.track.pages[0] >= 0).sum())
            pages += max(0, slots) * len(part.track.members)
        with suppress(MemoryInsufficient):
            self.pool.ensure(pages)


def refusal(contexts: Sequence[KVContext]) -> str | None:
    """Why these contexts' next tokens cannot be read in one static step; None where they can."""
    first = contexts[0]
    if first.pool.tiered:
        return "pages may be in the host's memory"
    layers = _layers(first)
    for policy in {id(context.policy): context.policy for context in contexts}.values():
        reason = _refused(policy)
        if reason is not None:
            return reason
    for context in contexts:
        if any(len(track.members) != len(track.rows) * first.shape.kv_heads for track in context.tracks):
            return f"under {context.policy!r} the heads of a layer keep different tokens"
        if _layers(context) != layers:
            return "contexts are read together whose layers keep different tokens"
    rows = _power_of_two(len(contexts))
    longest = max(len(track.runs) for context in contexts for track in context.tracks)
    if rows * longest >= _MOST_RUNS:
        return f"{rows} rows of more than {_MOST_RUNS // rows:,} runs of tokens are too long for a static table"
    return None


def _refused(policy: Policy) -> str | None:
    for hook in _HOOKS:
        if overrides(policy, hook):
            return f"{policy!r} defines `{hook}`"
    if "attention" in policy.needs:
        return f"{policy!r} looks at every token's attention"
    return f"{policy!r} compensates for what it drops" if policy.compensates else None


def size_of(batch: Batch) -> Size:
    """The size that serves a batch, and many like it."""
    rows = _power_of_two(len(batch.contexts))
    layers = _layers(batch.contexts[0])
    widths = tuple(max(map(_width, batch.of_track(track))) for track in range(len(layers)))
    return Size(rows, layers, widths, _power_of_two(max(len(batch.turns[0]), rows * _TURNS_EACH)))


def _width(part: Part) -> int:
    """Columns for a part and for those of its track that follow it: all that ever come, where the reach bounds them."""
    reach, page, runs = part.context.reach(part.track), part.track.pool.page_tokens, len(part.placed.runs)
    if reach is None:
        return _power_of_two(max(runs, _LEAST_GROWING))
    # Each sink may be a run of its own; the others begin and end within a page, and each frame may end within one.
    most = reach.sinks + -(-reach.recent // page) + 2 + reach.recent // FRAME_TOKENS
    return -(-max(runs, most) // _BOUNDED) * _BOUNDED


def _layers(context: KVContext) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(track.rows) for track in context.tracks)


def _cells(size: Size) -> int:
    return size.cells


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()
