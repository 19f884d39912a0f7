"""PagePool: the memory of keys and values, in pages of one size, counted by who uses them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ctxkit.errors import MemoryInsufficient
from ctxkit_kernels.attention import Pages

PAGE_TOKENS = 16
"""Tokens per page: small enough that a token-level choice wastes little, large enough that a table stays short."""

_GROWTH = 1.25  # of the capacity, when a pool that was not told its size before has to grow

Ids = np.ndarray
"""int32, numbers of pages."""


class PagePool:
    """Pages of one KV head each, of every layer and every context of one model.

    dims, value_dims: of a key and of a value. dtype: torch.float32, bfloat16, float16, or int8 (with one float32 scale
    per key and per value: the largest magnitude is 127). max_bytes: the most it may take; None for no limit.

    tiered: whether pages may be elsewhere than on the device, and `seen` has to be asked where they are.

    Pages may be shared: `share` counts one more user, `release` one less, and nobody writes to a page with two users.
    """

    tiered = False

    def __init__(
        self,
        dims: int,
        value_dims: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        page_tokens: int = PAGE_TOKENS,
        max_bytes: int | None = None,
    ) -> None:
        self.page_tokens = page_tokens
        self.max_bytes = max_bytes
        self.dtype = dtype
        empty = torch.empty(0, page_tokens, dtype=dtype, device=device)
        scales = empty.float() if dtype == torch.int8 else None
        self.pages = Pages(
            empty[..., None].expand(-1, -1, dims).contiguous(),
            empty[..., None].expand(-1, -1, value_dims).contiguous(),
            scales,
            None if scales is None else scales.clone(),
        )
        self._users = np.zeros(0, np.int32)
        self._serials = np.zeros(0, np.int64)
        self._taken = 0  # pages, ever
        self._free: list[int] = []

    # --- sizes -------------------------------------------------------------------------------------------------

    @cached_property
    def page_bytes(self) -> int:
        return sum(part[:0].element_size() * int(np.prod(part.shape[1:])) for part in self.pages)

    @property
    def token_bytes(self) -> int:
        """One token's key and value in one KV head."""
        return self.page_bytes // self.page_tokens

    @property
    def key_bytes(self) -> int:
        """One token's key in one KV head."""
        keys, scales = self.pages.keys, self.pages.key_scales
        return keys.element_size() * keys.shape[-1] + (0 if scales is None else scales.element_size())

    @property
    def capacity(self) -> int:
        return len(self._users)

    @property
    def used(self) -> int:
        """Pages that somebody uses."""
        return self.capacity - len(self._free)

    @property
    def allocated_bytes(self) -> int:
        return self.capacity * self.page_bytes

    @property
    def used_bytes(self) -> int:
        return self.used * self.page_bytes

    # --- who uses what -----------------------------------------------------------------------------------------

    def reserve(self, pages: int) -> None:
        """Makes room for exactly `pages` more. Raises MemoryInsufficient, before anything is taken."""
        missing = pages - len(self._free)
        if missing > 0:
            self._grow(self.capacity + missing)

    def ensure(self, pages: int) -> None:
        """As `reserve`, but a pool that has to grow grows by a quarter, so that growing often costs little."""
        missing = pages - len(self._free)
        if missing > 0:
            self._grow(max(self.capacity + missing, self._within_limit(int(self.capacity * _GROWTH))))

    def take(self, count: int) -> Ids:
        """`count` pages of one user each. Raises MemoryInsufficient."""
        self.ensure(count)
        taken = np.array([self._free.pop() for _ in range(count)], np.int32)
        self._users[taken] = 1
        self._serials[taken] = np.arange(self._taken, self._taken + count)
        self._taken += count
        return taken

    def share(self, pages: Ids) -> None:
        self._users[pages] += 1

    def release(self, pages: Ids) -> None:
        self._users[pages] -= 1
        self._free.extend(pages[self._users[pages] == 0].tolist())

    def shared(self, pages: Ids) -> np.ndarray:
        """bool, which of these have more than one user."""
        return self._users[pages] > 1

    def serials(self, pages: Ids) -> np.ndarray:
        """int64, another number each time that a page is taken: by it those tell who remember a page's number."""
        return self._serials[pages]

    def _within_limit(self, capacity: int) -> int:
        return capacity if self.max_bytes is None else min(capacity, self.max_bytes // self.page_bytes)

    @torch.inference_mode()
    def _grow(self, capacity: int) -> None:
        self._check_limit(capacity)
        more = capacity - self.capacity
        grown = [torch.cat([part, part.new_empty(more, *part.shape[1:])]) for part in self.pages]
        self.pages = Pages(*grown)
        self._add_free(capacity)

    def _check_limit(self, capacity: int) -> None:
        if self._within_limit(capacity) < capacity:
            raise MemoryInsufficient(
                f"keys and values need {capacity * self.page_bytes:,} bytes, and {self.max_bytes:,} are allowed. "
                "Allow more, close a session, or use a policy that keeps less",
                needed_bytes=capacity * self.page_bytes,
                allowed_bytes=self.max_bytes or 0,
            )

    def _add_free(self, capacity: int) -> None:
        more = capacity - self.capacity
        self._free.extend(range(capacity - 1, self.capacity - 1, -1))
        self._users = np.concatenate([self._users, np.zeros(more, np.int32)])
        self._serials = np.concatenate([self._serials, np.zeros(more, np.int64)])

    # --- where they are ----------------------------------------------------------------------------------------

    def next_use(self) -> None:
        """Called before each layer's attention."""

    def seen(self, pages: Ids) -> Ids:
        """Where in `self.pages` the kernels find these pages. Here: where they are."""
        return pages

    # --- what they hold ----------------------------------------------------------------------------------------

    @torch.inference_mode()
    def write(self, pages: Tensor, offsets: Tensor, keys: Tensor, values: Tensor) -> None:
        """Token i of row r goes to page pages[r, i], at its offset there.

        pages: int64 [rows, tokens]. offsets: int64 [tokens], or [rows, tokens]. keys: [rows, tokens, dims]; values
        likewise.
        """
        at = (pages, offsets.expand_as(pages))
        if self.pages.key_scales is None or self.pages.value_scales is None:
            self.pages.keys[at] = keys.to(self.dtype)
            self.pages.values[at] = values.to(self.dtype)
            return
        self.pages.keys[at], self.pages.key_scales[at] = quantised(keys)
        self.pages.values[at], self.pages.value_scales[at] = quantised(values)

    @torch.inference_mode()
    def read(self, pages: Ids, offsets: np.ndarray) -> list[Tensor]:
        """Tokens as they are stored, [rows, tokens, ...] per part of `Pages`; pages int32 [rows, tokens]."""
        at = self._places(pages, offsets)
        return [part[at] for part in self.pages]

    def vectors(self, pages: Ids, offsets: np.ndarray) -> tuple[Tensor, Tensor]:
        """As `read`, but what `write` was given: (keys [rows, tokens, dims], values), in float32 or float64."""
        keys, values, *scales = self.read(pages, offsets)
        if scales:
            return keys * scales[0][..., None], values * scales[1][..., None]
        return (keys, values) if keys.dtype == torch.float64 else (keys.float(), values.float())

    @torch.inference_mode()
    def put(self, pages: Ids, offsets: np.ndarray, parts: Sequence[Tensor]) -> None:
        """The reverse of `read`."""
        at = self._places(pages, offsets)
        for part, given in zip(self.pages, parts, strict=True):
            part[at] = given.to(part.device)

    def _places(self, pages: Ids, offsets: np.ndarray) -> tuple[Tensor, Tensor]:
        device = self.pages.keys.device
        named = torch.from_numpy(pages.astype(np.int64)).to(device)
        return named, torch.from_numpy(np.ascontiguousarray(offsets)).to(device).expand_as(named)

    @torch.inference_mode()
    def copy(self, source: Ids, target: Ids) -> None:
        """Copies whole pages."""
        to, of = torch.from_numpy(target.astype(np.int64)), torch.from_numpy(source.astype(np.int64))
        for part in self.pages:
            part[to.to(part.device)] = part[of.to(part.device)]


def quantised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(int8, float32 scale) of the last dimension: the largest magnitude becomes 127."""
    scale = vectors.float().abs().amax(-1) / 127
    steps = vectors.float() / scale.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
    return steps.round().clamp(-127, 127).to(torch.int8), scale
