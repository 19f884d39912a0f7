"""Encoders: text to vectors. One file per encoder."""

from __future__ import annotations

from ctxkit.errors import IndexMismatch
from ctxkit.protocols import Encoder
from ctxkit.retrieval.encoders.cached import CachedEncoder
from ctxkit.retrieval.encoders.centred import CentredEncoder
from ctxkit.retrieval.encoders.hashing import HashingEncoder
from ctxkit.retrieval.encoders.multi_vector import MultiVectorEncoder
from ctxkit.retrieval.encoders.sentence_transformer import SentenceTransformerEncoder
from ctxkit.retrieval.encoders.token_states import TokenStateEncoder
from ctxkit.retrieval.encoders.token_vectors import TokenVectors, byte_spans
from ctxkit.retrieval.encoders.vector_store import VectorStore

_BY_CLASS = {
    cls.__name__: cls for cls in (HashingEncoder, MultiVectorEncoder, SentenceTransformerEncoder, TokenStateEncoder)
}

__all__ = [
    "CachedEncoder",
    "CentredEncoder",
    "HashingEncoder",
    "MultiVectorEncoder",
    "SentenceTransformerEncoder",
    "TokenStateEncoder",
    "TokenVectors",
    "VectorStore",
    "byte_spans",
    "encoder_from",
]


def encoder_from(class_name: str, name: str, *, multi_vector: bool) -> Encoder:
    """The encoder that an index recorded. Raises IndexMismatch where only the caller can build it."""
    if class_name not in _BY_CLASS:
        raise IndexMismatch(
            f"the index was made by {name!r}, an encoder of class {class_name!r} that ctxkit cannot build by itself. "
            "Pass that encoder: Index.open(path, encoder=...)"
        )
    return _BY_CLASS[class_name].from_name(name, multi_vector=multi_vector)
