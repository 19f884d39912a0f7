"""TieredPool: a pool whose pages need not all be on the device; the least recently seen are in the host's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ctxkit.errors import MemoryInsufficient
from ctxkit.models.local.paging.pool import PAGE_TOKENS, Ids, PagePool

_NOWHERE = -1


class TieredPool(PagePool):
    """Pages with numbers of their own, each on the device, in the host's memory, or in both.

    device_bytes: the most that pages may take on the device. host_bytes: in the host's memory; None for no limit.

    `seen` brings pages to the device and says where they are; it is asked before every use. What was seen longest ago
    makes room (InfLLM's cache of blocks, arXiv 2402.04617, for any policy). `on_host` says where copies are in the
    host's memory, to be looked at there without bringing them back.
    """

    tiered = True

    def __init__(
        self,
        dims: int,
        value_dims: int,
        *,
        device_bytes: int,
        host_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        page_tokens: int = PAGE_TOKENS,
    ) -> None:
        how = {"dtype": dtype, "page_tokens": page_tokens}
        self.device = PagePool(dims, value_dims, device=device, max_bytes=device_bytes, **how)  # type: ignore[arg-type]
        self.host = PagePool(dims, value_dims, device="cpu", max_bytes=host_bytes, **how)  # type: ignore[arg-type]
        total = None if host_bytes is None else device_bytes + host_bytes
        super().__init__(dims, value_dims, device=device, max_bytes=total, **how)  # type: ignore[arg-type]
        self._on_device = np.zeros(0, np.int32)
        self._on_host = np.zeros(0, np.int32)
        self._seen_at = np.zeros(0, np.int64)
        self._now = 0

    # --- numbers, without memory of their own ------------------------------------------------------------------

    @property
    def allocated_bytes(self) -> int:
        return self.device.allocated_bytes

    def _grow(self, capacity: int) -> None:
        self._check_limit(capacity)
        more = np.full(capacity - self.capacity, _NOWHERE, np.int32)
        self._on_device, self._on_host = (np.concatenate([own, more]) for own in (self._on_device, self._on_host))
        self._seen_at = np.concatenate([self._seen_at, np.zeros(len(more), np.int64)])
        self._add_free(capacity)

    def take(self, count: int) -> Ids:
        taken = super().take(count)
        self._on_device[taken] = self._on_host[taken] = _NOWHERE  # a place is found when it is first written to
        self._seen_at[taken] = self._now
        return taken

    def release(self, pages: Ids) -> None:
        super().release(pages)
        gone = np.unique(pages[self._users[pages] == 0])
        for pool, where in ((self.device, self._on_device), (self.host, self._on_host)):
            places = where[gone]
            pool.release(places[places != _NOWHERE])
            where[gone] = _NOWHERE

    # --- where they are ----------------------------------------------------------------------------------------

    def next_use(self) -> None:
        """What was seen until now may make room again."""
        self._now += 1

    def seen(self, pages: Ids) -> Ids:
        """Where the pages are on the device, of the same shape. Raises MemoryInsufficient where it cannot hold all."""
        wanted = np.unique(pages)
        self._seen_at[wanted] = self._now
        missing = wanted[self._on_device[wanted] == _NOWHERE]
        if len(missing):
            self._bring(missing)
        return self._on_device[pages]

    def on_host(self, pages: Ids) -> Ids:
        """Where copies of the pages are in the host's memory, of the same shape."""
        wanted = np.unique(pages)
        self._copy_to_host(wanted[self._on_host[wanted] == _NOWHERE])
        return self._on_host[pages]

    def _bring(self, pages: Ids) -> None:
        self._make_room(len(pages))
        places = self.device.take(len(pages))
        known = self._on_host[pages] != _NOWHERE
        _copy(self.host, self._on_host[pages[known]], self.device, places[known])
        self._on_device[pages] = places
        self.pages = self.device.pages

    def _make_room(self, count: int) -> None:
        """Sends what was seen longest ago to the host until the device can hold `count` pages more."""
        most = (self.device.max_bytes or 0) // self.page_bytes
        surplus = self.device.used + count - most
        if surplus <= 0:
            return
        resident = np.flatnonzero(self._on_device != _NOWHERE)
        idle = resident[self._seen_at[resident] < self._now]
        if len(idle) < surplus:
            needed = self.device.used - len(idle) + count
            raise MemoryInsufficient(
                f"one layer sees {needed:,} pages at once and the device may hold {most:,}; allow more "
                "(`max_kv_bytes`), or use a policy that shows less",
                needed_bytes=needed * self.page_bytes,
                allowed_bytes=most * self.page_bytes,
            )
        leaving = idle[np.argsort(self._seen_at[idle], kind="stable")[:surplus]]
        self._copy_to_host(leaving[self._on_host[leaving] == _NOWHERE])
        self.device.release(self._on_device[leaving])
        self._on_device[leaving] = _NOWHERE

    def _copy_to_host(self, pages: Ids) -> None:
        if len(pages):
            places = self.host.take(len(pages))
            _copy(self.device, self._on_device[pages], self.host, places)
            self._on_host[pages] = places

    # --- what they hold ----------------------------------------------------------------------------------------

    def write(self, pages: Tensor, offsets: Tensor, keys: Tensor, values: Tensor) -> None:
        numbers = pages.cpu().numpy().astype(np.int32)
        places = self.seen(numbers)
        self._forget_copies(numbers)
        self.device.write(torch.from_numpy(places.astype(np.int64)).to(pages.device), offsets, keys, values)

    def read(self, pages: Ids, offsets: np.ndarray) -> list[Tensor]:
        if (self._on_device[pages] != _NOWHERE).all():
            return self.device.read(self._on_device[pages], offsets)
        return self.host.read(self.on_host(pages), offsets)

    def put(self, pages: Ids, offsets: np.ndarray, parts: Sequence[Tensor]) -> None:
        self.next_use()
        places = self.seen(pages)
        self._forget_copies(pages)
        self.device.put(places, offsets, parts)

    def copy(self, source: Ids, target: Ids) -> None:
        self.next_use()
        of, to = self.seen(source), self.seen(target)
        self._forget_copies(target)
        self.device.copy(of, to)

    def _forget_copies(self, pages: Ids) -> None:
        """The copies in the host's memory are not what is written now."""
        numbers = np.unique(pages)
        numbers = numbers[self._on_host[numbers] != _NOWHERE]
        self.host.release(self._on_host[numbers])
        self._on_host[numbers] = _NOWHERE


@torch.inference_mode()
def _copy(source: PagePool, of: Ids, target: PagePool, to: Ids) -> None:
    if not len(of):
        return
    read, write = (torch.from_numpy(numbers.astype(np.int64)) for numbers in (of, to))
    for part, given in zip(target.pages, source.pages, strict=True):
        part[write.to(part.device)] = given[read.to(given.device)].to(part.device)
