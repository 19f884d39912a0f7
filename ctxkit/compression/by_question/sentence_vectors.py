"""Sentences against a question by vectors: one for each sentence, or one for each token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from ctxkit.compression.by_question.passage import Passage, Range
from ctxkit.protocols import Encoder, Vectors

Evidence = tuple[list[float], list[float]]
"""What speaks for each sentence, and for its neighbourhood, [sentences] each, 0 or more."""


class SentenceVectors:
    """Cosine of the question and each sentence, one vector each; a neighbourhood is as good as its best sentence.

    RECOMP's extractive compressor (arXiv 2310.04408) without its training. What the last request had is remembered.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, np.ndarray] = {}  # sentence: its vectors, [windows, dims]

    def evidence(self, passages: Sequence[Passage], ranges: Sequence[Range], question: str) -> Evidence:
        """ranges: neighbourhood of each sentence. What was not in the last request is encoded in one call."""
        sentences = [sentence for passage in passages for sentence in passage.sentences]
        known = self._known
        new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in known]
        if new:
            vectors = self._encoder.encode_documents(new)
            known = known | {sentence: vectors[i] for i, sentence in enumerate(new)}
        self._known = {sentence: known[sentence] for sentence in sentences}
        rows = [known[sentence] for sentence in sentences]
        asked = self._encoder.encode_queries([question]).values[0]  # [dims]
        found = np.concatenate(rows) @ asked  # [rows]
        starts = np.cumsum([0, *map(len, rows[:-1])])
        own = np.maximum(np.maximum.reduceat(found, starts), 0.0)  # [sentences]
        return own.tolist(), _best_in(own[None], ranges)[0].tolist()


class TokenVectors:
    """MaxSim of the question's token vectors and those of each sentence (ColBERT, arXiv 2004.12832), mean over tokens.

    Texts are encoded whole, and a sentence has the rows of its tokens: each knows the text it stands in. (Encoded
    alone, sentences do worse.) That takes an encoder that says where its rows stand, `spans`; for others sentences are
    encoded one by one. In a neighbourhood, each token of the question has its best match wherever it is.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # text: its rows, and the sentence of each

    def evidence(
        self, passages: Sequence[Passage], ranges: Sequence[Range], question: str, among: Sequence[int]
    ) -> Evidence:
        """among: which passages are looked at; there is no evidence for the others."""
        known = self._with_rows(passages, [passages[i] for i in among])
        firsts = np.cumsum([0, *map(len, passages)])
        rows = np.concatenate([known[passages[i].text][0] for i in among])  # [rows, dims]
        places = np.concatenate([known[passages[i].text][1] + firsts[i] for i in among])  # [rows]
        asked = self._encoder.encode_queries([question])[0]  # [tokens, dims]
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        best = np.zeros((len(asked), firsts[-1]), np.float32)  # [tokens, sentences]
        if len(rows):
            best[:, places[starts]] = np.maximum.reduceat(asked @ rows.T, starts, axis=1)
        best = np.maximum(best, 0.0)
        return best.mean(axis=0).tolist(), _best_in(best, ranges).mean(axis=0).tolist()

    def _with_rows(
        self, passages: Sequence[Passage], needed: Sequence[Passage]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Encode in one call what is needed and new; remember what is among the passages of this request."""
        known = self._known
        new = list({passage.text: passage for passage in needed if passage.text not in known}.values())
        if new:
            known = known | dict(zip((passage.text for passage in new), self._encoded(new), strict=True))
        self._known = {passage.text: known[passage.text] for passage in passages if passage.text in known}
        return known

    def _encoded(self, passages: Sequence[Passage]) -> list[tuple[np.ndarray, np.ndarray]]:
        vectors = self._encoder.encode_documents([passage.text for passage in passages])
        spans = getattr(vectors, "spans", None)
        if spans is None:
            return self._one_by_one(passages)
        cuts = zip(vectors.offsets[:-1], vectors.offsets[1:], strict=True)
        return [
            _by_sentence(vectors.values[start:end], spans[start:end], passage)
            for passage, (start, end) in zip(passages, cuts, strict=True)
        ]

    def _one_by_one(self, passages: Sequence[Passage]) -> list[tuple[np.ndarray, np.ndarray]]:
        vectors: Vectors = self._encoder.encode_documents([text for passage in passages for text in passage.sentences])
        ends = np.cumsum([0, *map(len, passages)])
        cuts = [vectors.offsets[start : end + 1] for start, end in zip(ends, ends[1:], strict=False)]
        return [(vectors.values[cut[0] : cut[-1]], np.repeat(np.arange(len(cut) - 1), np.diff(cut))) for cut in cuts]


def _by_sentence(values: np.ndarray, spans: np.ndarray, passage: Passage) -> tuple[np.ndarray, np.ndarray]:
    """The rows that stand in the text, sentence by sentence, and the sentence of each."""
    inside = spans[:, 1] > spans[:, 0]  # markers and masks stand nowhere
    places = np.searchsorted(passage.bounds, spans[inside, 0], side="right") - 1
    order = np.argsort(places, kind="stable")
    return values[inside][order], places[order]


def _best_in(values: np.ndarray, ranges: Sequence[Range]) -> np.ndarray:
    """The largest value in each range, [rows, sentences] to [rows, ranges]."""
    wide = np.pad(values, ((0, 0), (0, 1)))  # `reduceat` takes no end behind the last
    edges = np.fromiter(chain.from_iterable(ranges), np.int64, 2 * len(ranges))
    return np.maximum.reduceat(wide, edges, axis=1)[:, ::2]
