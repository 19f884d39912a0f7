"""A client of Qdrant and one of its collections, with ctxkit's errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ctxkit.errors import CtxkitError, IndexLocked, StoreError
from ctxkit_connectors.databases.database import needed

MEMORY = ":memory:"


class Link:
    """A client and the collection it is asked about.

    place: a URL or a folder. shown: that and the collection, for messages. local: the client's own mode, without a
    server. owned: whether `close` closes the client.
    """

    def __init__(self, client: Any, collection: str, place: str, *, owned: bool) -> None:
        options = client.init_options
        self.local = options.get("location") == MEMORY or options.get("path") is not None
        self.place = place
        self.shown = f"{place} ({collection})"
        self._client = client
        self._collection = collection
        self._owned = owned
        self._closed = False

    @classmethod
    def to(cls, place: Any, collection: str, options: Mapping[str, Any]) -> Link:
        """place: as `QdrantIndex.open` takes it."""
        client_class = needed("qdrant_client", "qdrant-client", "qdrant").QdrantClient
        if isinstance(place, client_class):
            known = place.init_options
            shown = next((known[name] for name in ("location", "url", "path", "host") if known.get(name)), "Qdrant")
            return cls(place, collection, str(shown), owned=False)
        shown = os.fspath(place)
        where = kind_of(shown)
        # The local mode's sqlite would refuse all threads but the first; it is not used from two at once by itself.
        threads = {} if where == "url" else {"force_disable_check_same_thread": True}
        with _typed(shown):
            return cls(client_class(**{where: shown, **threads, **options}), collection, shown, owned=True)

    def call(self, verb: str, **arguments: Any) -> Any:
        """The client's method of that name, for this collection. Raises StoreError."""
        if self._closed:
            raise StoreError(f"{self.shown}: the index is closed")
        with _typed(self.shown):
            return getattr(self._client, verb)(self._collection, **arguments)

    def close(self) -> None:
        if self._owned and not self._closed:
            self._client.close()
        self._closed = True


def kind_of(place: Any) -> str:
    """The argument of QdrantClient that `place` is; "client" for one that is made already."""
    if not isinstance(place, str | os.PathLike):
        return "client"
    return "location" if place == MEMORY else "url" if "://" in os.fspath(place) else "path"


@contextmanager
def _typed(place: str) -> Iterator[None]:
    """Turn the client's errors into ctxkit's."""
    refused = needed("qdrant_client.http.exceptions", "qdrant-client", "qdrant").ApiException
    over_grpc = needed("grpc", "grpcio", "qdrant").RpcError
    try:
        yield
    except CtxkitError:
        raise
    except (refused, over_grpc, RuntimeError, ValueError, OSError) as error:
        if "already accessed by another instance" in str(error):
            raise IndexLocked(
                f"{place}: another client has this folder open. Close it, or run a Qdrant server"
            ) from error
        raise StoreError(
            f"{place}: Qdrant failed ({error}). Look whether the server runs and the URL and `api_key` are right, "
            "and try again"
        ) from error
