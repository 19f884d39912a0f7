"""Reranking: a slower, better judge puts the first hits of a search in order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ctxkit.errors import ModelError
from ctxkit.protocols import Encoder, Ranking
from ctxkit.retrieval.document_text import document_text
from ctxkit.retrieval.encoders.loading import LazyModel, load_model, needed
from ctxkit.retrieval.hit import Hit

SEARCH = "search"
"""The method under which a hit that was reranked remembers the rank and score that its search gave it."""


class Reranker(Protocol):
    """Says how well each text answers a query. `name` stands in the rankings of the hits."""

    @property
    def name(self) -> str: ...

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score per text, higher is better; comparable within one call, and no probability."""
        ...


def reranked(hits: Sequence[Hit], query: str, reranker: Reranker, k: int | None = None) -> list[Hit]:
    """The `k` best of `hits` (None: all) in the order of `reranker`, equal scores in the order they came in.

    What is scored is what was indexed: the headings of a chunk, then its text. Of a hit, `rank` and `score` become
    the reranker's; `rankings` keeps all that it held and gets two more: the reranker's, among all the hits given, and
    `SEARCH` with the rank and score from before the first reranking. `evidence` stays as it was.

    relevance: nothing is calibrated. A reranker's scores are no probabilities, so the hits' own relevances are dealt
        out again, the highest to the first: what the search said of each rank, not of each chunk.

    Raises ValueError for k below 1 and for a reranker that does not give one number per text.
    """
    if k is not None and k < 1:
        raise ValueError(f"`k` must be at least 1 or None, got {k!r}")
    scores = _checked(reranker, query, [document_text(hit.chunk) for hit in hits]) if hits else []
    order = sorted(range(len(hits)), key=lambda i: (-scores[i], i))
    relevances = sorted((hit.relevance for hit in hits), reverse=True)
    return [
        replace(
            hits[i],
            rank=rank,
            score=scores[i],
            relevance=relevances[rank - 1],
            rankings=_rankings(hits[i], Ranking(reranker.name, rank, scores[i])),
        )
        for rank, i in enumerate(order[:k], start=1)
    ]


class CrossEncoderReranker(LazyModel):
    """A model of sentence-transformers' `CrossEncoder` that reads query and text together (arXiv 1901.04085).

    name_or_path: a local folder or a hub id.
    device: as torch names it; None takes a GPU where there is one.
    batch_size: pairs per forward pass.

    Scores are the model's logits: a sigmoid would keep the order and make equals of the best. The tokens of a pair
    beyond what the model reads are dropped, the text's first where it is the longer one.

    Nothing is loaded before the first `scores`. Raises MissingExtra where sentence-transformers is absent,
    ModelNotFound where the model cannot be had, ModelError where it gives more than one score per pair.
    """

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """The logit of each (query, text)."""
        if not texts:
            return []
        logits = self._model.predict(
            [(query, text) for text in texts],
            batch_size=self._batch_size,
            show_progress_bar=False,
            activation_fn=needed("torch", "torch").nn.Identity(),
        )
        return np.asarray(logits, np.float64).tolist()

    def _load(self) -> Any:
        model = load_model("CrossEncoder", self._name, self._device)
        if model.num_labels != 1:
            raise ModelError(f"{self._name!r} gives {model.num_labels} scores per pair; a reranker gives one")
        return model


class MaxSimReranker:
    """Late interaction (ColBERT, arXiv 2004.12832): each query row takes its best row of the text; these are summed.

    encoder: any Encoder. With one vector per text it is their inner product, and the best window's where a text has
        several. The texts are encoded at each call: give a CachedEncoder where they come again.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def name(self) -> str:
        return f"maxsim {self._encoder.name}"

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """MaxSim of each text, at most the number of query rows; 0 for a text without rows."""
        if not texts:
            return []
        asked = self._encoder.encode_queries([query])[0]  # [query rows, dims]
        vectors = self._encoder.encode_documents(texts)
        similar = vectors.values @ asked.T  # [rows, query rows]
        scores, filled = np.zeros(len(texts)), np.diff(vectors.offsets) > 0
        best = np.maximum.reduceat(similar, vectors.offsets[:-1][filled])  # [texts with rows, query rows]
        scores[filled] = best.sum(axis=1, dtype=np.float64)
        return scores.tolist()


def _checked(reranker: Reranker, query: str, texts: Sequence[str]) -> list[float]:
    scores = [float(score) for score in reranker.scores(query, texts)]
    if len(scores) != len(texts) or any(map(math.isnan, scores)):
        raise ValueError(
            f"reranker {reranker.name!r} gave {scores!r} for {len(texts)} texts, expected a number for each"
        )
    return scores


def _rankings(hit: Hit, new: Ranking) -> tuple[Ranking, ...]:
    """What the hit held, its search's own place where it is reranked for the first time, and `new` for its like."""
    held = [ranking for ranking in hit.rankings if ranking.method != new.method]
    if not any(ranking.method == SEARCH for ranking in held):
        held.append(Ranking(SEARCH, hit.rank, hit.score))
    return (*held, new)
