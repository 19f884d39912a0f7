"""An encoder that remembers, on disk, what it has encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ctxkit.protocols import Encoder, Vectors
from ctxkit.retrieval.encoders.token_vectors import Rows, joined, rows_of
from ctxkit.retrieval.encoders.vector_store import VectorStore
from ctxkit.retrieval.encoders.wrapped import WrappedEncoder

_WRITTEN_AT_ONCE = 1024  # texts; what a killed run loses at most


class CachedEncoder(WrappedEncoder):
    """Gives what `encoder` gives, and encodes no text twice in all the runs that share `store`.

    An entry is found by the blake2b hash of the encoder's fingerprint, the text, and whether it is a query or a
    document: one store serves any number of encoders, and another model never gets the vectors of this one. Vectors
    come back bit for bit. An index that this made opens with `encoder` too, as both have one fingerprint.

    encoder: any Encoder. store: a VectorStore or the path of its file.
    """

    def __init__(self, encoder: Encoder, store: VectorStore | str | Path) -> None:
        super().__init__(encoder)
        self._store = store if isinstance(store, VectorStore) else VectorStore(store)

    @property
    def wrapped(self) -> Encoder:
        """The encoder whose vectors these are."""
        return self._encoder

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors of `texts`. `progress` shows the bars of what is encoded now."""
        return self._encoded("document", texts, lambda new: self._encoder.encode_documents(new, progress=progress))

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts`."""
        return self._encoded("query", texts, self._encoder.encode_queries)

    def _encoded(self, role: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Vectors]) -> Vectors:
        keys = [self._key(role, text) for text in texts]
        known = self._store.read(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for entries in _made(new, encode):
            self._store.write(entries)
            known |= entries
        return joined([known[key] for key in keys], self.dims)

    def _key(self, role: str, text: str) -> bytes:
        content = "\0".join((self.fingerprint, role, text))
        return hashlib.blake2b(content.encode(), digest_size=16).digest()


def _made(new: dict[bytes, str], encode: Callable[[Sequence[str]], Vectors]) -> Iterator[dict[bytes, Rows]]:
    """The rows of new texts by key, some at a time."""
    keys = list(new)
    for start in range(0, len(keys), _WRITTEN_AT_ONCE):
        some = keys[start : start + _WRITTEN_AT_ONCE]
        yield dict(zip(some, rows_of(encode([new[key] for key in some])), strict=True))
