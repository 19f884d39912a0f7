"""KeptList: a list of JSON objects in a ctxkit store, for the histories of other frameworks."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from ctxkit.errors import StoreError
from ctxkit.session import MemoryOriginals, Originals

Item = dict[str, Any]


class KeptList:
    """Items in the order in which they were added. For several threads; one process at a time may write to a list.

    kind, name: whose list it is; `name` is not empty and has no "/". store: None keeps it in memory.

    What is popped or cleared is overwritten in the store. Raises ValueError for a name that is none.
    """

    def __init__(self, kind: str, name: str, store: Originals | None = None) -> None:
        if not name or "/" in name:
            raise ValueError(f"`session_id` must be a text without '/', got {name!r}")
        self.name = name
        self._store: Originals = MemoryOriginals() if store is None else store
        self._prefix = f"{kind}:{name}/"
        self._lock = threading.Lock()

    def latest(self, most: int | None = None) -> list[Item]:
        """All items, or the latest `most`; the oldest first. Raises StoreError where one is missing."""
        with self._lock:
            count = self._count()
            first = 0 if most is None or most < 0 else max(count - most, 0)
            return [self._item(at) for at in range(first, count)]

    def add(self, items: Sequence[Any]) -> None:
        """Append items: whole or, where writing fails, not at all. Raises ValueError for what JSON cannot hold."""
        try:
            texts = [json.dumps(dict(item), ensure_ascii=False) for item in items]
        except TypeError as error:
            raise ValueError(f"an item holds what cannot be kept: {error}; leave it out, or make it text") from error
        with self._lock:
            count = self._count()
            for at, text in enumerate(texts, count):
                self._store.put(self._key(at), text)
            self._store.put(self._prefix + "count", str(count + len(texts)))  # last: until then nothing was added

    def pop(self) -> Item | None:
        """Take the newest item out; None where there is none."""
        with self._lock:
            count = self._count()
            if not count:
                return None
            item = self._item(count - 1)
            self._shorten(count - 1)
            return item

    def clear(self) -> None:
        """Forget all items."""
        with self._lock:
            self._shorten(0)

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
            raise StoreError(f"item {at} of the session {self.name!r} is missing; restore the store")
        return json.loads(text)

    def _key(self, at: int) -> str:
        return f"{self._prefix}{at:08}"
