"""CausalEncoder: vectors out of a language model's hidden states, so that one model both answers and finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ctxkit.errors import ModelError
from ctxkit.models.local.hidden_states import TextBatch, hidden_states
from ctxkit.models.local.policies.full import Full
from ctxkit.models.local.text_pieces import TEXT, Cutter, Piece
from ctxkit.protocols import TokenVectors, Vectors

if TYPE_CHECKING:
    from ctxkit.models.local.model import LocalModel

Pooling = Literal["mean", "weighted", "last", "tokens"]

ONE_WORD = 'This sentence: "{text}" means in one word: "'
"""PromptEOL (arXiv 2307.16645): what would come next is the text, in one word."""

_RECIPE = "causal/1"  # how a text becomes rows; part of the fingerprint
_EDGE = 64  # values of each tensor, at both ends, that the fingerprint looks at
_PROBE = "A  12\n\n3.5 naïve café, Ω isn't readTimeout_ms; 你好 🙂"  # how tokenizers of one vocabulary differ


@dataclass(frozen=True)
class CausalEncoder:
    """Hidden states of a `LocalModel` as vectors: an `Encoder` that needs no second model in memory.

    Nobody trained these states to be compared: a far smaller model that was trained for it finds more. Figures are in
    docs/retrieval.md: pooling "last" of a layer some way below the last did best, and a `CentredEncoder` around it
    helps dense search.

    pooling: what of a text's states is its vector.
        "last": that of the last token of a prompt that asks for the text in one word (`ONE_WORD`).
        "mean": the mean of the text's own tokens. "weighted": as later tokens know more, token i of n weighs i (SGPT,
        arXiv 2202.08904). "tokens": each token of the text is a row of its own, compared by MaxSim.
    prompt: what is read, with the text for `{text}`. None: `ONE_WORD` for "last", else the text alone.
    query_prompt: the same for queries; None for `prompt`.
    prepend_layers: Token Prepending (arXiv 2412.11556) in so many of the first layers, about a quarter of them in the
        paper. A placeholder before the text carries what the last token knows to all tokens of the text. 0 for none.
    layer: whose states; -1 is after the last layer and the final norm, -2 what the last layer is given, 0 embeddings.
        Layers above are not computed.
    window_tokens: a longer text is cut into windows, each a quarter over the last. A document has a row for each; a
        query's are averaged.
    batch_tokens: tokens per forward pass, filling included, but at least one text; a GPU wants more.

    A text without tokens has the state of the last token of what is read instead. Attention is the model's own, in
    full, whatever the model's policy; nothing is left in memory. May be shared by threads: passes take turns.
    Raises ValueError for settings that the model cannot have.
    """

    model: LocalModel
    pooling: Pooling = "last"
    prompt: str | None = None
    query_prompt: str | None = None
    prepend_layers: int = 0
    layer: int = -1
    window_tokens: int = 512
    batch_tokens: int = 1024

    def __post_init__(self) -> None:
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"`pooling` must be one of {', '.join(get_args(Pooling))}, got {self.pooling!r}")
        for name, prompt in (("prompt", self.prompt), ("query_prompt", self.query_prompt)):
            if prompt is not None and prompt.count(TEXT) != 1:
                raise ValueError(f"`{name}` must hold {TEXT} once, got {prompt!r}")
        layers = self._layers
        if not -layers - 1 <= self.layer <= layers:
            raise ValueError(
                f"`layer` must be in [{-layers - 1}, {layers}], the model has {layers}; got {self.layer!r}"
            )
        most = max(self._layer - 1, 0)
        if not 0 <= self.prepend_layers <= most:
            raise ValueError(
                f"`prepend_layers` must be in [0, {most}], the layers between the first and those whose states are "
                f"taken; got {self.prepend_layers!r}"
            )
        if self.window_tokens < 1 or self.batch_tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {self.window_tokens!r} and {self.batch_tokens!r}")

    def __repr__(self) -> str:
        return f"CausalEncoder({self.name!r}, dims={self.dims})"

    # --- what it is --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The model's name and what is taken of it."""
        prepending = f"+prepend{self.prepend_layers}" if self.prepend_layers else ""
        layer = "" if self._layer == self._layers else f"+layer{self._layer}"
        return f"{self.model.name}#{self.pooling}{prepending}{layer}"

    @cached_property
    def fingerprint(self) -> str:
        """Of the settings, how the tokenizer cuts, and both ends of every tensor: training moves all of them.

        The same in every process and on every device; weights rounded to another dtype are other weights.
        """
        settings = [self.pooling, *self._prompts, self.prepend_layers, self._layer]
        tokens = self._cutter.plain.encode(_PROBE, add_special_tokens=False).ids
        digest = hashlib.blake2b(digest_size=16)
        digest.update(
            json.dumps([*settings, self.window_tokens, tokens, self._cutter.start, self._cutter.placeholder]).encode()
        )
        for name, weights in sorted(self.model.model.base_model.named_parameters()):
            ends = torch.cat([weights.detach().flatten()[:_EDGE], weights.detach().flatten()[-_EDGE:]])
            digest.update(f"{name} {tuple(weights.shape)} ".encode() + ends.float().cpu().numpy().tobytes())
        return f"{_RECIPE}/{digest.hexdigest()}"

    @property
    def dims(self) -> int:
        """Length of a vector: the model's hidden size."""
        return int(self.model.model.config.get_text_config().hidden_size)

    @property
    def multi_vector(self) -> bool:
        return self.pooling == "tokens"

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without the prompt."""
        return self._cutter.count_batch(texts)

    # --- vectors -----------------------------------------------------------------------------------------------

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors of `texts`, one row per window; `TokenVectors` where the pooling is "tokens".

        progress: shows a bar of batches on stderr. Raises ModelError for states that are no numbers, PromptError where
        prompt and window do not fit into the model's, and what torch raises where memory is short.
        """
        return self._encoded(texts, self._prompts[0], progress=progress)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """As `encode_documents`, with `query_prompt`; a query longer than a window still has one row."""
        vectors = self._encoded(texts, self._prompts[1], progress=False)
        if self.multi_vector or len(vectors.values) == len(texts):
            return vectors
        sums = torch.from_numpy(np.add.reduceat(vectors.values, vectors.offsets[:-1]))
        return Vectors(_unit(sums).numpy(), np.arange(len(texts) + 1, dtype=np.int64))

    def _encoded(self, texts: Sequence[str], prompt: str, *, progress: bool) -> Vectors:
        pieces = list(self._cutter.pieces(texts, prompt))
        rows = [np.zeros((0, self.dims), np.float32)] * len(pieces)
        batches = list(self._batches(pieces))
        for batch in tqdm(batches, desc="encoding", unit="batch", disable=not progress, leave=False):
            for place, own in zip(batch, self._rows([pieces[place] for place in batch]), strict=True):
                rows[place] = own
        counts = np.zeros(len(texts) + 1, np.int64)
        for piece, own in zip(pieces, rows, strict=True):
            counts[piece.text + 1] += len(own)
        values = np.concatenate([np.zeros((0, self.dims), np.float32), *rows])
        if not np.isfinite(values).all():
            raise ModelError(f"the states of {self.model.name} overflow; load it as float32 or bfloat16")
        offsets = np.cumsum(counts)
        return TokenVectors(values, offsets, *_tokens(pieces)) if self.multi_vector else Vectors(values, offsets)

    def _batches(self, pieces: Sequence[Piece]) -> Iterator[list[int]]:
        """Places in `pieces`, those of like length together, the longest first."""
        batch: list[int] = []
        for place in sorted(range(len(pieces)), key=lambda i: -len(pieces[i].ids)):
            if batch and (len(batch) + 1) * len(pieces[batch[0]].ids) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _rows(self, pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
        """float32 [rows, dims] of each piece."""
        states = hidden_states(
            self.model.model, self._batch(pieces), layer=self._layer, prepend_layers=self.prepend_layers
        )
        for piece, own in zip(pieces, states, strict=True):  # own: [longest, dims]
            yield _unit(self._pooled(piece, own.float())).cpu().numpy()

    def _pooled(self, piece: Piece, states: Tensor) -> Tensor:
        """[rows, dims]"""
        own = states[piece.first : piece.end]
        if self.pooling == "last" or not len(own):
            return states[None, len(piece.ids) - 1]
        if self.pooling == "tokens":
            return own[len(own) - piece.new :]
        if self.pooling == "mean":
            return own.mean(0, keepdim=True)
        weights = torch.arange(1, len(own) + 1, device=own.device, dtype=own.dtype)
        return (weights / weights.sum())[None] @ own

    def _batch(self, pieces: Sequence[Piece]) -> TextBatch:
        longest, device = max(len(piece.ids) for piece in pieces), self.model.model.device
        rows = [self.model.checked(piece.ids, 0, Full()) for piece in pieces]
        ids = torch.tensor([[*own, *[0] * (longest - len(own))] for own in rows], device=device)
        last = torch.tensor([len(own) - 1 for own in rows], device=device)
        marks = [piece.placeholder for piece in pieces if piece.placeholder is not None]
        return TextBatch(ids, last, torch.tensor(marks, device=device) if marks else None)

    # --- settings made out -------------------------------------------------------------------------------------

    @property
    def _prompts(self) -> tuple[str, str]:
        """Of documents and of queries."""
        prompt = (ONE_WORD if self.pooling == "last" else TEXT) if self.prompt is None else self.prompt
        return prompt, self.query_prompt or prompt

    @property
    def _layers(self) -> int:
        return len(self.model.engine.shape.layers)

    @property
    def _layer(self) -> int:
        """`layer`, counted from 0."""
        return self.layer + self._layers + 1 if self.layer < 0 else self.layer

    @cached_property
    def _cutter(self) -> Cutter:
        counter = self.model.counter
        names = [counter.variables.get(name, "") for name in ("bos_token", "eos_token")]
        start, end = (counter.tokenizer.token_to_id(name) for name in names)
        edges = [token for token in (start, end) if token is not None] or [0]
        return Cutter(counter.tokenizer, self.window_tokens, edges[0], edges[-1] if self.prepend_layers else None)


def _unit(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def _tokens(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray]:
    """Ids int32 [rows] and spans int32 [rows, 2] of the tokens that are rows."""
    ids, spans = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.int32)]
    for piece in pieces:
        kept = slice(piece.end - piece.new, piece.end) if piece.end > piece.first else slice(-1, None)
        ids.append(np.array(piece.ids[kept], np.int32))
        spans.append(piece.spans[len(piece.spans) - piece.new :] if len(piece.spans) else np.zeros((1, 2), np.int32))
    return np.concatenate(ids), np.concatenate(spans)
