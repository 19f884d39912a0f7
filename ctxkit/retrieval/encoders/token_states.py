"""One vector per token out of any single-vector model: its last hidden states."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ctxkit.errors import IndexMismatch, ModelNotFound
from ctxkit.retrieval.encoders.pieces import Cutter, Piece
from ctxkit.retrieval.encoders.projection import Projection
from ctxkit.retrieval.encoders.sentence_transformer import DEFAULT_MODEL, SentenceTransformerEncoder
from ctxkit.retrieval.encoders.token_vectors import TokenVectors

_RECIPE = "token-states/1"  # how a text becomes rows; part of the fingerprint
_PACKAGED = "all-minilm-l6-v2.pca128.npy"
_SETTINGS = "token_states.json"
_MATRIX = "projection.npy"
_FITTED = "+pca"
_MOST_WORDS = 30_000


class TokenStateEncoder(SentenceTransformerEncoder):
    """The last hidden states of a single-vector model, one row per token: late interaction without its training.

    Scored by MaxSim as ColBERT's vectors are (arXiv 2004.12832), but nobody trained them for it: the model learned to
    be averaged. That costs quality against a ColBERT checkpoint (`MultiVectorEncoder`), and needs none.

    Special tokens and punctuation have no row (`Cutter` says what a text of nothing else gets). A text longer than the
    model reads is cut into windows and none of it is lost. Queries and documents are encoded alike. Rows are float32
    of length 1, and `encode_*` give `TokenVectors`, which say which token each row is and where it stands.

    name_or_path: as for SentenceTransformerEncoder, or a folder that `save` wrote.
    device: as torch names it; None takes a GPU where there is one.
    batch_size: windows per forward pass.
    projection: makes the rows shorter. None takes the packaged one, 128 dims, for the default model (see
        `packaged_projection`) and none for any other.

    Raises what SentenceTransformerEncoder raises, and ModelNotFound for a model that has no token states.
    """

    def __init__(
        self,
        name_or_path: str = DEFAULT_MODEL,
        device: str | None = None,
        batch_size: int = 32,
        *,
        projection: Projection | None = None,
    ) -> None:
        saved = Path(name_or_path).expanduser()
        settings = _settings(saved) if projection is None and (saved / _SETTINGS).is_file() else None
        super().__init__(settings["model"] if settings else name_or_path, device, batch_size)
        self._own_name = str(name_or_path)
        self._fitted_to = settings["model_fingerprint"] if settings else None
        if settings:
            projection = Projection.read(saved / _MATRIX)
        elif projection is not None:
            self._own_name += f"{_FITTED}{projection.dims}-{projection.digest}"
        elif name_or_path == DEFAULT_MODEL:
            projection = packaged_projection()
        self._projection = projection

    @classmethod
    def from_name(cls, name: str, *, multi_vector: bool = True) -> TokenStateEncoder:
        """The encoder whose `name` an index has recorded. Raises IndexMismatch for one that was fitted, not saved."""
        if _FITTED in name and not Path(name).is_dir():
            raise IndexMismatch(
                f"the index was made by {name!r}, which was fitted and not saved. Pass that encoder: "
                "Index.open(path, encoder=...)"
            )
        return cls(name)

    @classmethod
    def fit(
        cls,
        texts: Iterable[str] | None = None,
        dims: int = 128,
        *,
        name_or_path: str = DEFAULT_MODEL,
        device: str | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> TokenStateEncoder:
        """An encoder whose `dims` are the strongest directions of the token states of `texts`.

        texts: a sample of some ten thousand tokens; None takes the words of the model's own vocabulary, each a text.
            Those spread over more directions than the words of one subject: see `packaged_projection`.

        Deterministic; keep the result with `save`. Raises ValueError where the texts have fewer than `dims` different
        tokens, or the model fewer dims.
        """
        whole = cls(name_or_path, device, batch_size)
        sample = vocabulary_words(whole._tokenizer) if texts is None else list(texts)
        batches = whole._batches(list(whole._cutter.pieces(sample)), None, progress)
        projection = Projection.fit((np.concatenate(rows) for _, rows in batches), dims)
        fitted = cls(name_or_path, device, batch_size, projection=projection)
        fitted._loaded = whole._loaded
        return fitted

    def save(self, folder: str | Path) -> TokenStateEncoder:
        """Write the projection and the model's name to `folder`; the same encoder, now named by that folder.

        `TokenStateEncoder(folder)` is that encoder again, and an index that it made opens by itself. The model's own
        files are not copied. Raises ValueError where there is no projection to keep.
        """
        if self._projection is None:
            raise ValueError(f"{self.name!r} has no projection to save: its name says it all")
        place = Path(folder).expanduser()
        place.mkdir(parents=True, exist_ok=True)
        self._projection.write(place / _MATRIX)
        local = self._folder is not None and self._name != DEFAULT_MODEL
        model = str(Path(self._name).expanduser().resolve()) if local else self._name
        settings = {"model": model, "model_fingerprint": super().fingerprint, "recipe": _RECIPE}
        (place / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        saved = TokenStateEncoder(str(folder), self._device, self._batch_size)
        saved._loaded = self._loaded
        return saved

    @property
    def name(self) -> str:
        return self._own_name

    @property
    def multi_vector(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        """Of the model's files and the projection. Raises ModelNotFound where it was fitted to other weights."""
        model = super().fingerprint
        if self._fitted_to not in (None, model):
            raise ModelNotFound(f"{self.name!r} was fitted to other weights of {self._name!r}. Fit it again")
        return f"{_RECIPE}/{model}/{self._projection.digest if self._projection else 'whole'}"

    @property
    def dims(self) -> int:
        """Length of a row."""
        return self._projection.dims if self._projection else int(self._transformer.config.hidden_size)

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> TokenVectors:
        """Rows of `texts`, one per token. `progress` shows a bar of batches on stderr."""
        pieces = list(self._cutter.pieces(texts))
        values: list[np.ndarray] = [np.zeros((0, self.dims), np.float32)] * (len(pieces) + 1)
        for places, rows in self._batches(pieces, self._projection, progress):
            for place, of_piece in zip(places, rows, strict=True):
                values[place] = of_piece
        counts = np.zeros(len(texts) + 1, np.int64)
        for piece in pieces:
            counts[piece.text + 1] += piece.kept.sum()
        return TokenVectors(
            np.concatenate(values),
            np.cumsum(counts),
            np.concatenate([np.zeros(0, np.int32), *(piece.ids[piece.kept] for piece in pieces)]),
            np.concatenate([np.zeros((0, 2), np.int32), *(piece.spans[piece.kept] for piece in pieces)]),
        )

    def encode_queries(self, texts: Sequence[str]) -> TokenVectors:
        """As `encode_documents`."""
        return self.encode_documents(texts)

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._tokenizer, self._model.max_seq_length)

    @property
    def _transformer(self) -> Any:
        transformer = getattr(self._model, "transformers_model", None)
        if transformer is None:
            raise ModelNotFound(f"{self._name!r} is no transformer: it has no token states")
        return transformer

    def _batches(
        self, pieces: Sequence[Piece], projection: Projection | None, progress: bool
    ) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Places in `pieces` and their rows, batch by batch; a batch holds pieces of like length, the longest first."""
        order = sorted(range(len(pieces)), key=lambda i: -len(pieces[i].ids))
        starts = range(0, len(order), self._batch_size)
        for start in tqdm(starts, desc="encoding", unit="batch", disable=not progress, leave=False):
            batch = order[start : start + self._batch_size]
            yield batch, self._rows([pieces[i] for i in batch], projection)

    def _rows(self, batch: Sequence[Piece], projection: Projection | None) -> list[np.ndarray]:
        """Of each piece the rows of its kept tokens, float32 [kept, dims], of length 1."""
        import torch

        transformer = self._transformer
        ids, read, kept = (torch.from_numpy(array).to(transformer.device) for array in _padded(batch))
        with torch.inference_mode():
            states = transformer(input_ids=ids, attention_mask=read).last_hidden_state  # [batch, longest, hidden]
            rows = torch.nn.functional.normalize(states[kept].float(), dim=-1)  # [kept, hidden]
            if projection is not None:
                rows = rows @ torch.from_numpy(projection.matrix).to(rows.device)  # [kept, dims]
                rows = torch.nn.functional.normalize(rows, dim=-1)
        return np.split(rows.cpu().numpy(), np.cumsum([piece.kept.sum() for piece in batch])[:-1])


def packaged_projection() -> Projection:
    """The projection to 128 dims that ctxkit ships for all-MiniLM-L6-v2: `TokenStateEncoder.fit()`, as float16.

    nDCG@10 of exact MaxSim on cranfield (225 queries) and xquad-en (first 400), by what the projection was fitted to,
    and how many of the first ten of all 384 dims it finds on cranfield:

        none: all 384 dims       0.364  0.991
        the vocabulary's words   0.352  0.990  83 %
        the passages themselves  0.350  0.988  91 %
        the other's passages     0.345  0.989  87 %
    """
    with resources.files(__package__).joinpath(_PACKAGED).open("rb") as file:
        return Projection.read(file)


def vocabulary_words(tokenizer: Any) -> list[str]:
    """Words of three letters and more that are one token of a `tokenizers.Tokenizer`, by id; at most about 30,000.

    They are a sample of text that every machine with the model has, about nothing in particular.
    """
    words = [tokenizer.decode([id_]).strip() for id_ in range(tokenizer.get_vocab_size())]
    whole = [word for word in words if word.isalpha() and len(word) > 2]
    return whole[:: len(whole) // _MOST_WORDS + 1]


def _padded(batch: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids, what attention reads and what is kept, int64, int64 and bool [batch, longest], padded at the end."""
    shape = (len(batch), max(len(piece.ids) for piece in batch))
    ids, read, kept = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, piece in enumerate(batch):
        ids[row, : len(piece.ids)], read[row, : len(piece.ids)] = piece.ids, 1
        kept[row, : len(piece.kept)] = piece.kept
    return ids, read, kept


def _settings(folder: Path) -> dict[str, str]:
    try:
        settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
        return {"model": str(settings["model"]), "model_fingerprint": str(settings["model_fingerprint"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFound(
            f"{folder / _SETTINGS}: not readable ({error!r}). Fit and save the encoder again"
        ) from error
