"""EmbeddingTable: a model's input embeddings, and the way from beliefs to vectors and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from ctxkit_agents.debate.belief import Belief
from ctxkit_agents.debate.vocabulary import Vocabulary
from ctxkit_agents.errors import TokenizerMismatch

if TYPE_CHECKING:
    from ctxkit.models.local import LocalModel

_ROWS = 8192  # of the table at once, in float32
_VECTORS = 256
_SPARSE = 512  # likeliest tokens: where they have all but _LEFT of the probability, the others are left out of a sum
_LEFT = 1e-6


class EmbeddingTable:
    """What a model reads for each token.

    weight: [tokens, hidden size]; used as it is, never copied whole. vocabulary: the numbering of its rows; rows beyond
    its size are padding and never chosen. name: of the model, for errors.
    """

    def __init__(self, weight: Tensor, vocabulary: Vocabulary, *, name: str = "table") -> None:
        if weight.ndim != 2 or len(weight) < vocabulary.size:
            raise ValueError(
                f"`weight` must be [{vocabulary.size:,} tokens or more, hidden size], got {tuple(weight.shape)}"
            )
        self.weight = weight.detach()[: vocabulary.size]
        self.vocabulary = vocabulary
        self.name = name
        self._scales: Tensor | None = None

    @classmethod
    def of(cls, model: LocalModel) -> EmbeddingTable:
        """Of a local model; where it does more than look its embeddings up (Gemma scales them), that is in the rows."""
        look_up = model.model.get_input_embeddings()
        weight = cast("Tensor", look_up.weight)
        if type(look_up) is not torch.nn.Embedding:
            with torch.inference_mode():
                weight = look_up(torch.arange(len(weight), device=weight.device))
        vocabulary = Vocabulary.of(model.counter.tokenizer)
        known = min(vocabulary.size, len(weight))  # tokens that were added without an embedding cannot be said
        return cls(weight, replace(vocabulary, size=known), name=model.name)

    def __repr__(self) -> str:
        return f"EmbeddingTable({self.name!r}, {len(self.weight):,} tokens, hidden size {self.weight.shape[1]:,})"

    def rows(self, ids: np.ndarray | list[int] | tuple[int, ...]) -> Tensor:
        """Their embeddings, float32 [n, hidden size]."""
        return self.weight[torch.as_tensor(np.asarray(ids, np.int64), device=self.weight.device)].float()

    def average(self, p: Tensor) -> Tensor:
        """The average of all embeddings under the probabilities, float32 [vocabulary] -> float32 [hidden size].

        To within a millionth of the probability: where 512 tokens have the rest, only they are added up.
        """
        p = p.to(self.weight.device)
        likeliest, ids = p.topk(min(_SPARSE, len(p)))
        if p.sum() - likeliest.sum() <= _LEFT:
            likely = int((likeliest > 0).sum())
            return likeliest[:likely] @ self.weight[ids[:likely]].float()
        total = torch.zeros(self.weight.shape[1], device=self.weight.device)
        for start, rows in self._chunks():
            total += p[start : start + len(rows)] @ rows
        return total

    def averages(self, belief: Belief) -> Tensor:
        """As `Belief.embeddings`."""
        belief.check(self.vocabulary.fingerprint, self.name)
        if len(belief.ids) and (highest := int(belief.ids.max())) >= len(self.weight):
            raise TokenizerMismatch(
                f"the belief names the token {highest:,}, and {self.name!r} has {len(self.weight):,} embeddings"
            )
        device = self.weight.device
        rows = self.rows(belief.ids)
        if not len(rows):
            return rows
        return embedding_bag(
            torch.arange(len(rows), device=device),
            rows,
            torch.as_tensor(belief.starts, device=device),
            mode="sum",
            per_sample_weights=torch.as_tensor(belief.probabilities, device=device),
        )

    def nearest_ids(self, belief: Belief) -> list[int]:
        """As `Belief.decode`. A position of one token is that token."""
        found = np.array(belief.top_ids, np.int64)
        (mixed,) = np.nonzero(belief.counts > 1)
        vectors = self.averages(belief)
        for part in np.array_split(mixed, -(-len(mixed) // _VECTORS)) if len(mixed) else ():
            found[part] = self.nearest(vectors[torch.as_tensor(part)]).cpu().numpy()
        return [int(token) for token in found]

    def nearest(self, vectors: Tensor) -> Tensor:
        """The row of the highest cosine with each vector, [n, hidden size] -> int64 [n]; of equals the first."""
        units = normalize(vectors.to(self.weight.device, torch.float32), dim=-1)
        best = torch.full((len(units),), -torch.inf, device=units.device)
        found = torch.zeros(len(units), dtype=torch.long, device=units.device)
        for start, rows in self._chunks():
            cosines = units @ rows.T * self._row_scales[start : start + len(rows)]  # [n, rows]
            value, at = cosines.max(-1)
            better = value > best
            best, found = torch.where(better, value, best), torch.where(better, at + start, found)
        return found

    @property
    def _row_scales(self) -> Tensor:
        """1 / the norm of each row, 0 for rows of nothing; made once, float32 [tokens]."""
        if self._scales is None:
            norms = torch.cat([rows.norm(dim=-1) for _, rows in self._chunks()])
            self._scales = torch.where(norms > 0, 1 / norms, 0)
        return self._scales

    def _chunks(self) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(self.weight), _ROWS):
            yield start, self.weight[start : start + _ROWS].float()
