"""StoredSession: the history of the Agents SDK in ctxkit's store."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ctxkit.errors import StoreError
from ctxkit.session import MemoryOriginals, Originals

Item = dict[str, Any]
Made = TypeVar("Made")


class StoredSession:
    """A `Session` of the Agents SDK: items of one conversation, kept whole.

    session_id: names the conversation in the store. store: `SqliteOriginals` keeps it in a file, which other sessions,
        and originals of `ctxkit.Session`, may share; None: in memory.
    session_settings: the SDK's own; its limit holds where `get_items` is given none.

    What is popped or cleared is overwritten in the store. One process at a time may write to a conversation.
    Raises ValueError for an id that is empty or has a "/", and StoreError where the store is damaged.
    """

    def __init__(self, session_id: str, store: Originals | None = None, session_settings: Any = None) -> None:
        if not session_id or "/" in session_id:
            raise ValueError(f"`session_id` must be a text without '/', got {session_id!r}")
        self.session_id = session_id
        self.session_settings = session_settings
        self._store: Originals = MemoryOriginals() if store is None else store
        self._prefix = f"agents:{session_id}/"
        self._lock = threading.Lock()

    async def get_items(self, limit: int | None = None) -> list[Item]:
        """All items, or the latest `limit`; the oldest first."""
        most = getattr(self.session_settings, "limit", None) if limit is None else limit
        return await self._in_thread(lambda: self._latest(most))

    async def add_items(self, items: Sequence[Any]) -> None:
        """Append items. They are there whole or, where writing fails, not at all."""
        await self._in_thread(lambda: self._add([json.dumps(dict(item), ensure_ascii=False) for item in items]))

    async def pop_item(self) -> Item | None:
        """Take the newest item out; None where there is none."""
        return await self._in_thread(self._pop)

    async def clear_session(self) -> None:
        """Forget all items."""
        await self._in_thread(lambda: self._shorten(0))

    async def _in_thread(self, work: Callable[[], Made]) -> Made:
        def locked() -> Made:
            with self._lock:
                return work()

        return await asyncio.to_thread(locked)

    def _latest(self, most: int | None) -> list[Item]:
        count = self._count()
        first = 0 if most is None or most < 0 else max(count - most, 0)
        return [self._item(at) for at in range(first, count)]

    def _add(self, texts: Sequence[str]) -> None:
        count = self._count()
        for at, text in enumerate(texts, count):
            self._store.put(self._key(at), text)
        self._store.put(self._prefix + "count", str(count + len(texts)))  # last: until then nothing was added

    def _pop(self) -> Item | None:
        count = self._count()
        if not count:
            return None
        item = self._item(count - 1)
        self._shorten(count - 1)
        return item

    def _shorten(self, count: int) -> None:
        before = self._count()
        self._store.put(self._prefix + "count", str(count))
        for at in range(count, before):
            self._store.put(self._key(at), "")

    def _count(self) -> int:
        return int(self._store.get(self._prefix + "count") or 0)

    def _item(self, at: int) -> Item:
        text = self._store.get(self._key(at))
        if not text:
            raise StoreError(f"item {at} of the session {self.session_id!r} is missing; restore the store")
        return json.loads(text)

    def _key(self, at: int) -> str:
        return f"{self._prefix}{at:08}"
