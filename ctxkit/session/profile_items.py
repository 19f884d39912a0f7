"""ProfileItems: the texts of a ProfileMemory, and what was made of them, in a store of originals.

Every entry is one `put`, which is all or nothing. An item's key holds when it came and the digest of its text, so
writers never overwrite each other's, and what a profile covers is known without reading a text.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ctxkit.errors import StoreError
from ctxkit.session.store import Originals, digest_of

# A session's entries begin with its id, which is never empty: nothing of it begins with "/".
_ITEM, _GONE, _MADE = "/profiles/item/", "/profiles/gone/", "/profiles/made/"


@dataclass(frozen=True, slots=True)
class Item:
    """A text that is remembered. name: when it came and its digest, unique under its key."""

    name: str

    @property
    def digest(self) -> str:
        return self.name.rpartition("-")[2]


class ProfileItems:
    """Items by key, each text once under one key, oldest first."""

    def __init__(self, store: Originals) -> None:
        self.store = store

    def keys(self) -> tuple[str, ...]:
        """The keys that hold an item or a profile, sorted."""
        names = [name.removeprefix(start) for start in (_ITEM, _MADE) for name in self.store.keys(start)]
        found = sorted({unquote(name.partition("/")[0], errors="surrogatepass") for name in names})
        return tuple(key for key in found if self.live(key) or self.made(key))

    def live(self, key: str) -> list[Item]:
        """What is remembered under the key."""
        gone = set(self._names(_GONE, key))
        found: dict[str, Item] = {}
        for item in map(Item, self._names(_ITEM, key)):
            if item.name not in gone:
                found.setdefault(item.digest, item)  # two writers may have added one text
        return list(found.values())

    def add(self, key: str, texts: Sequence[str]) -> None:
        known = {item.digest for item in self.live(key)}
        now = time.time_ns()
        for place, text in enumerate(texts):
            digest = digest_of(text)
            if digest not in known:
                known.add(digest)
                self.store.put(f"{_ITEM}{safe(key)}/{now + place:020d}-{digest}", text)

    def remove(self, key: str, digests: Collection[str]) -> None:
        """Mark the items as gone, then empty them; what was made of them is emptied first."""
        gone = set(self._names(_GONE, key))
        for name in self._names(_ITEM, key):
            if Item(name).digest not in digests:
                continue
            if name not in gone:
                self.make(key, "")
                self.store.put(f"{_GONE}{safe(key)}/{name}", "")
            self.store.put(f"{_ITEM}{safe(key)}/{name}", "")

    def texts(self, key: str, items: Sequence[Item]) -> Iterator[str]:
        """Their texts, but of what was removed meanwhile. Raises StoreError for one that is not what was stored."""
        for item in items:
            text = self.store.get(f"{_ITEM}{safe(key)}/{item.name}")
            if text == "":
                continue
            if text is None or digest_of(text) != item.digest:
                raise StoreError(f"an item of {key!r} is damaged: it is not the text of digest {item.digest}")
            yield text

    def made(self, key: str) -> str:
        """What was made of the items, "" where there is nothing."""
        return self.store.get(_MADE + safe(key)) or ""

    def make(self, key: str, made: str) -> None:
        self.store.put(_MADE + safe(key), made)

    def _names(self, start: str, key: str) -> list[str]:
        prefix = f"{start}{safe(key)}/"
        return [name.removeprefix(prefix) for name in self.store.keys(prefix)]


def safe(key: str) -> str:
    """The key without any "/", ":" or white space."""
    return quote(key, safe="", errors="surrogatepass")
