"""KeepHead: how likely each word carries a fact that a reader will ask for, from the states of a frozen encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from ctxkit.compression.facts.ranking import span_ranking
from ctxkit.compression.facts.shapes import SHAPES
from ctxkit.errors import MissingExtra, ModelNotFound

_PACKAGED = "head.safetensors"
_FORMAT = "ctxkit-keep-head/1"
_ARRAYS = ("inner.weight", "inner.bias", "outer.weight", "outer.bias", "length.bias", "length.weight")


@dataclass(frozen=True)
class KeepHead:
    """Scores words for query-free compression: keep the highest, and the answers to questions nobody asked yet survive.

    Answers are phrases, and a phrase with a word missing is lost. So the head does not judge words but spans of up to
    `longest` words: a small network gives each word the logits of being first, last and inside, and a span's logit is
    first + last + weighted sum of inside + a bias for its length. `span_ranking` turns the probabilities into one
    ranking of the words. LLMLingua-2 (arXiv 2403.12968), which this follows in classifying with an encoder, judges
    each token by itself.

    arrays: "inner.weight" [layers * dims + SHAPES, hidden], "inner.bias" [hidden], "outer.weight" [hidden, 3],
        "outer.bias" [3], "length.bias" and "length.weight" [longest].
    layers: the encoder's hidden states that it reads, 0 being the embeddings: nothing above the last is needed.
    dims: of a hidden state. window: most tokens of a text that the encoder saw at once, special ones included.
    encoder: fingerprint of the encoder's folder.

    Raises ValueError where the arrays do not fit together.
    """

    arrays: Mapping[str, np.ndarray]
    layers: tuple[int, ...]
    dims: int
    window: int
    encoder: str

    def __post_init__(self) -> None:
        missing = [name for name in _ARRAYS if name not in self.arrays]
        if missing:
            raise ValueError(f"a keep head needs the arrays {', '.join(missing)}")
        rows = len(self.layers) * self.dims + SHAPES
        if self.arrays["inner.weight"].shape[0] != rows:
            raise ValueError(f"{rows} inputs per word, but inner.weight is {self.arrays['inner.weight'].shape}")

    @classmethod
    def packaged(cls) -> KeepHead:
        """The head that ctxkit ships for all-MiniLM-L6-v2; `MODEL_CARD.md` beside it says what it was trained on."""
        with resources.as_file(resources.files(__package__).joinpath(_PACKAGED)) as path:
            return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> KeepHead:
        """From a safetensors file. Raises ModelNotFound where it holds no head, MissingExtra without safetensors."""
        try:
            from safetensors import SafetensorError, safe_open
        except ModuleNotFoundError as error:
            raise MissingExtra("safetensors", "retrieval") from error
        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["head"])
                arrays = {name: file.get_tensor(name).astype(np.float32) for name in _ARRAYS}
            if facts["format"] != _FORMAT:
                raise ValueError(f"format {facts['format']!r}, not {_FORMAT!r}")
            return cls(arrays, tuple(facts["layers"]), facts["dims"], facts["window"], facts["encoder"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelNotFound(f"{path}: not a keep head ({error}). Train it again") from error

    def write(self, path: Path, **facts: object) -> None:
        """To a safetensors file, as float16; `facts` are kept with it."""
        from safetensors.numpy import save_file

        own = {"format": _FORMAT, "layers": self.layers, "dims": self.dims, "window": self.window}
        metadata = {"head": json.dumps({**own, "encoder": self.encoder, **facts}, sort_keys=True)}
        halves = {name: np.ascontiguousarray(self.arrays[name], np.float16) for name in _ARRAYS}
        save_file(halves, path, metadata)

    @property
    def longest(self) -> int:
        """Words of the longest span."""
        return len(self.arrays["length.bias"])

    def scores(
        self,
        states: np.ndarray,
        shapes: np.ndarray,
        pieces: np.ndarray,
        texts: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> np.ndarray:
        """How much each word deserves to be kept, float64 [words], in [0, 1]; comparable across windows and texts.

        states: mean hidden state of each word's tokens in `layers`, side by side, [words, layers * dims].
        shapes: `word_shapes`, [words, SHAPES].
        pieces: tokens of each word in the encoder, what it costs to keep it, [words].
        texts: number of the text that each word is of, ascending, [words]; None where all are of one. No span crosses.
        prior: what each word is worth by itself, as expected answers, [words], 0 or more. Speech is mostly function
            words: there 0.02 for every other word keeps more of it (`MODEL_CARD.md` has the numbers).

        Raises ValueError for states of another width.
        """
        costs = np.maximum(pieces, 1) ** 0.5  # a target's tokenizer cuts elsewhere: the root is better than all or none
        expected = self.spans(states, shapes, texts)
        if prior is not None:
            expected[:, 0] += prior
        return -np.expm1(-span_ranking(expected, costs))

    def spans(self, states: np.ndarray, shapes: np.ndarray, texts: np.ndarray | None = None) -> np.ndarray:
        """Probability that words i to i + k are an answer, float32 [words, longest] at [i, k]; 0 behind the last."""
        first, last, inside = self._words(states, shapes).T
        words = len(first)
        number = np.zeros(words, np.int64) if texts is None else np.asarray(texts)
        sums = np.concatenate([[0.0], np.cumsum(inside, dtype=np.float64)])
        found = np.zeros((words, self.longest), np.float32)
        for k in range(min(self.longest, words)):
            most = words - k
            within = self.arrays["length.weight"][k] * (sums[k + 1 :] - sums[:most])
            logits = first[:most] + last[k:] + within + self.arrays["length.bias"][k]
            found[:most, k] = np.where(number[:most] == number[k:], _sigmoid(logits), 0.0)
        return found

    def _words(self, states: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Logits of being first, last and inside, float32 [words, 3]."""
        wide = len(self.layers) * self.dims
        if states.ndim != 2 or states.shape[1] != wide:
            raise ValueError(f"`states` must be [words, {wide}] (layers {self.layers}), got {states.shape}")
        weight = self.arrays["inner.weight"]
        inner = np.asarray(states, np.float32) @ weight[:wide] + shapes @ weight[wide:] + self.arrays["inner.bias"]
        return np.maximum(inner, 0.0) @ self.arrays["outer.weight"] + self.arrays["outer.bias"]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
