"""Token vectors that know their tokens: which word piece each row is, and where it stands in its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ctxkit.protocols import TokenVectors as TokenVectors
from ctxkit.protocols import Vectors


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one text, or of a piece of it; `token_ids` and `spans` are None where nobody knows the tokens.

    values: float32 [rows, dims]. token_ids: int32 [rows]. spans: int32 [rows, 2].
    """

    values: np.ndarray
    token_ids: np.ndarray | None = None
    spans: np.ndarray | None = None


def joined(rows: Sequence[Rows], dims: int) -> Vectors:
    """The rows of some texts as one `Vectors`; `TokenVectors` where the tokens of all rows are known.

    dims: length of a row, for the case of no text at all.
    """
    offsets = np.cumsum([0, *(len(of_text.values) for of_text in rows)], dtype=np.int64)  # [texts + 1]
    values = np.concatenate([np.zeros((0, dims), np.float32), *(of_text.values for of_text in rows)])
    token_ids = [of_text.token_ids for of_text in rows if of_text.token_ids is not None]
    spans = [of_text.spans for of_text in rows if of_text.spans is not None]
    if len(token_ids) < len(rows) or len(spans) < len(rows):
        return Vectors(values, offsets)
    return TokenVectors(
        values,
        offsets,
        np.concatenate([np.zeros(0, np.int32), *token_ids]),
        np.concatenate([np.zeros((0, 2), np.int32), *spans]),
    )


def merged(pieces: Sequence[Rows]) -> Rows:
    """The pieces of one text, in order, as its rows."""
    vectors = joined(pieces, pieces[0].values.shape[1])
    if isinstance(vectors, TokenVectors):
        return Rows(vectors.values, vectors.token_ids, vectors.spans)
    return Rows(vectors.values)


def rows_of(vectors: Vectors) -> list[Rows]:
    """`vectors`, text by text: the inverse of `joined`."""
    cuts = [slice(start, end) for start, end in zip(vectors.offsets[:-1], vectors.offsets[1:], strict=True)]
    if isinstance(vectors, TokenVectors):
        return [Rows(vectors.values[cut], vectors.token_ids[cut], vectors.spans[cut]) for cut in cuts]
    return [Rows(vectors.values[cut]) for cut in cuts]


def byte_spans(text: str, spans: np.ndarray) -> np.ndarray:
    """Character spans of `text` as spans of its UTF-8 bytes, which `Evidence` counts in; int64 [rows, 2].

    >>> byte_spans("héllo", np.array([[0, 2], [2, 5]])).tolist()
    [[0, 3], [3, 6]]
    """
    if text.isascii():
        return spans.astype(np.int64)
    starts = np.fromiter(accumulate((len(char.encode()) for char in text), initial=0), np.int64, len(text) + 1)
    return starts[spans]
