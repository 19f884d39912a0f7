"""StoredSession: the history of the Agents SDK in ctxkit's store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ctxkit.session import Originals
from ctxkit_connectors.kept_list import Item, KeptList


class StoredSession:
    """A `Session` of the Agents SDK: items of one conversation, kept whole.

    session_id: names the conversation in the store. store: `SqliteOriginals` keeps it in a file, which other sessions,
        and originals of `ctxkit.Session`, may share; None: in memory.
    session_settings: the SDK's own; its limit holds where `get_items` is given none.

    What is popped or cleared is overwritten in the store. One process at a time may write to a conversation.
    Raises ValueError for an id that is empty or has a "/", and StoreError where the store is damaged.
    """

    def __init__(self, session_id: str, store: Originals | None = None, session_settings: Any = None) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self._items = KeptList("agents", session_id, store)

    async def get_items(self, limit: int | None = None) -> list[Item]:
        """All items, or the latest `limit`; the oldest first."""
        most = getattr(self.session_settings, "limit", None) if limit is None else limit
        return await asyncio.to_thread(self._items.latest, most)

    async def add_items(self, items: Sequence[Any]) -> None:
        """Append items. They are there whole or, where writing fails, not at all."""
        await asyncio.to_thread(self._items.add, items)

    async def pop_item(self) -> Item | None:
        """Take the newest item out; None where there is none."""
        return await asyncio.to_thread(self._items.pop)

    async def clear_session(self) -> None:
        """Forget all items."""
        await asyncio.to_thread(self._items.clear)
