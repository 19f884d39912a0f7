"""Encoders: text to vectors. One file per encoder."""

from __future__ import annotations

from ctxkit.errors import IndexMismatch
from ctxkit.protocols import Encoder
from ctxkit.retrieval.encoders.hashing import HashingEncoder
from ctxkit.retrieval.encoders.sentence_transformer import SentenceTransformerEncoder

_BY_CLASS = {cls.__name__: cls for cls in (HashingEncoder, SentenceTransformerEncoder)}

__all__ = ["HashingEncoder", "SentenceTransformerEncoder", "encoder_from"]


def encoder_from(class_name: str, name: str, *, multi_vector: bool) -> Encoder:
    """The encoder that an index recorded. Raises IndexMismatch where only the caller can build it."""
    if class_name not in _BY_CLASS:
        raise IndexMismatch(
            f"the index was made by {name!r}, an encoder of class {class_name!r} that ctxkit cannot build by itself. "
            "Pass that encoder: Index.open(path, encoder=...)"
        )
    return _BY_CLASS[class_name].from_name(name, multi_vector=multi_vector)
