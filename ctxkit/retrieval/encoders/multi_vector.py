"""Models trained for late interaction: ColBERT and XTR checkpoints, through sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ctxkit.errors import ModelNotFound
from ctxkit.protocols import Vectors
from ctxkit.retrieval.encoders.loading import load_model, local_folder, needed
from ctxkit.retrieval.encoders.sentence_transformer import SentenceTransformerEncoder
from ctxkit.retrieval.encoders.token_vectors import Rows, joined, merged

_RECIPE = "multi-vector/1"  # how a text becomes rows; part of the fingerprint
_FULL_LENGTH = "#full-length"
_KINDS = {"MultiVectorEncoder", "ColBERT"}


class MultiVectorEncoder(SentenceTransformerEncoder):
    """One vector per token of a model trained for MaxSim: ColBERT (arXiv 2004.12832), XTR (arXiv 2304.01982).

    What the checkpoint says is done as it says: query and document markers, queries filled with [MASK] to a fixed
    length, punctuation of documents skipped, projection, length 1. Rows are those of sentence-transformers'
    `MultiVectorEncoder.encode_query` and `encode_document`, with three differences. A document longer than the model
    reads is cut into pieces at words, and the rows of all of them are its rows, where sentence-transformers would drop
    the rest. A text of which the model keeps no token has one row, the first axis. Where the tokens can be told, the
    result is a `TokenVectors`.

    name_or_path: a folder or a hub id: saved by sentence-transformers 6, PyLate, or Stanford's ColBERT.
    device: as torch names it; None takes a GPU where there is one.
    batch_size: texts per forward pass.
    full_length_search: read queries whole (up to what the model reads at all) where the checkpoint would cut them at
        its query length; shorter ones are filled up to that length as ever. Stanford's option of that name.

    Raises MissingExtra where sentence-transformers is absent, and ModelNotFound where the model cannot be had or was
    never trained for this: sentence-transformers would give it a random projection.
    """

    def __init__(
        self, name_or_path: str, device: str | None = None, batch_size: int = 32, *, full_length_search: bool = False
    ) -> None:
        super().__init__(str(name_or_path).removesuffix(_FULL_LENGTH), device, batch_size)
        self._full_length = full_length_search or str(name_or_path).endswith(_FULL_LENGTH)

    @classmethod
    def from_name(cls, name: str, *, multi_vector: bool = True) -> MultiVectorEncoder:
        """The encoder whose `name` an index has recorded."""
        return cls(name)

    @property
    def name(self) -> str:
        return self._name + _FULL_LENGTH * self._full_length

    @property
    def multi_vector(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        """Of the model's files, or the revision of a hub id (which loads the model), and of how queries are read."""
        return f"{_RECIPE}/{super().fingerprint}{_FULL_LENGTH * self._full_length}"

    @property
    def dims(self) -> int:
        """Length of a row; loads the model."""
        return int(self._model.get_embedding_dimension())

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        """Rows of `texts`, those of a long one's pieces one after the other. `progress` shows a bar on stderr."""
        pieces = [self._document_pieces(text) for text in texts]
        rows = iter(self._encoded([piece for of_text in pieces for piece in of_text], "document", progress))
        whole = [merged([_shifted(next(rows), start) for start in _starts(of_text)]) for of_text in pieces]
        return joined([self._at_least_one(of_text) for of_text in whole], self.dims)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Rows of `texts`, the masks that fill a query included."""
        return joined([self._at_least_one(rows) for rows in self._encoded(texts, "query", False)], self.dims)

    def _load(self) -> Any:
        _refuse_untrained(self._name)
        model = load_model("MultiVectorEncoder", self._name, self._device)
        if self._full_length:
            transformer = model[0]
            transformer.query_length = None
            if getattr(transformer, "query_expansion", None) is not None:
                transformer.query_expansion = {**transformer.query_expansion, "strategy": "min"}
        return model

    @cached_property
    def _reader(self) -> Any:
        """The loaded model's `tokenizers.Tokenizer`, which knows its markers; a copy without truncation and padding."""
        from tokenizers import Tokenizer

        reader = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        reader.no_truncation()
        reader.no_padding()
        return reader

    @cached_property
    def _document_prompt(self) -> str:
        prompts = self._model.prompts
        return next((prompts[role] or "" for role in ("document", "passage", "corpus") if role in prompts), "")

    @cached_property
    def _document_tokens(self) -> int | None:
        """Most tokens of a document's text, without marker and special tokens."""
        length = getattr(self._model[0], "document_length", None) or self._model.max_seq_length
        taken = len(self._reader.encode(self._document_prompt).ids)
        return None if length is None else max(length - taken, 1)

    def _document_pieces(self, text: str) -> list[str]:
        """`text` in pieces that the model reads whole; joined they are the text."""
        most = self._document_tokens
        if most is None:
            return [text]
        spans = self._reader.encode(text, add_special_tokens=False).offsets
        cuts = [0, *(spans[i - 1][1] for i in _cuts(text, spans, most)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts)]

    def _encoded(self, texts: Sequence[str], role: str, progress: bool) -> list[Rows]:
        """The rows of each text, in the order of `texts`; batches hold texts of like length."""
        encode = self._model.encode_query if role == "query" else self._model.encode_document
        rows: list[Rows] = [Rows(np.zeros((0, 0), np.float32))] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        starts = range(0, len(order), self._batch_size)
        for start in tqdm(starts, desc="encoding", unit="batch", disable=not progress, leave=False):
            batch = order[start : start + self._batch_size]
            given = [texts[i] for i in batch]
            outputs = encode(given, batch_size=self._batch_size, show_progress_bar=False, output_value=None)
            for i, output in zip(batch, outputs, strict=True):
                rows[i] = self._rows(texts[i], output, role)
        return rows

    def _rows(self, text: str, output: dict[str, Any], role: str) -> Rows:
        """What the model made of one text, where its own mask says that it counts."""
        counted = output["attention_mask"].bool().cpu().numpy()  # [length]
        values = output["token_embeddings"].float().cpu().numpy()[counted]  # [rows, dims]
        values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
        ids = output.get("input_ids")
        if ids is None or len(ids) != len(counted) or self._pools:
            return Rows(values)
        ids = ids.cpu().numpy().astype(np.int32)
        return Rows(values, ids[counted], self._spans(text, ids, role)[counted])

    @cached_property
    def _pools(self) -> bool:
        """Whether the model joins tokens, so that a row is none of them."""
        pooling = needed("sentence_transformers.multi_vector_encoder.modules", "sentence-transformers").BaseTokenPooling
        return any(isinstance(module, pooling) for module in self._model)

    def _spans(self, text: str, ids: np.ndarray, role: str) -> np.ndarray:
        """Where the tokens stand in `text`, int32 [length, 2]; (0, 0) where they do not, or it cannot be told."""
        prompt = (self._model.prompts.get("query") or "") if role == "query" else self._document_prompt
        coded = self._reader.encode(prompt + text)
        spans = np.zeros((len(ids), 2), np.int32)
        agreed = min(len(ids), len(coded.ids))
        same = np.array(coded.ids[:agreed], np.int32) == ids[:agreed]
        agreed = agreed if same.all() else int(same.argmin())
        found = np.array(coded.offsets, np.int32).reshape(-1, 2)[:agreed] - len(prompt)
        spans[:agreed] = np.maximum(found, 0)
        return spans

    def _at_least_one(self, rows: Rows) -> Rows:
        if len(rows.values):
            return rows
        axis = np.eye(1, self.dims, dtype=np.float32)
        return Rows(axis, np.zeros(1, np.int32), np.zeros((1, 2), np.int32))


def _cuts(text: str, spans: Sequence[tuple[int, int]], most: int) -> Iterator[int]:
    """The tokens that begin a piece, but for the first: at most `most` apart, at the start of a word that is near."""
    start = 0
    while len(spans) - start > most:
        end = start + most
        near = range(end, max(end - most // 4, start + 1) - 1, -1)
        start = next((i for i in near if spans[i][0] > spans[i - 1][1] or text[spans[i][0]].isspace()), end)
        yield start


def _starts(pieces: Sequence[str]) -> list[int]:
    return np.cumsum([0, *map(len, pieces[:-1])]).tolist()


def _shifted(rows: Rows, by: int) -> Rows:
    """The rows of a piece, with spans in the whole text; those of no token stay (0, 0)."""
    if rows.spans is None or not by:
        return rows
    in_text = rows.spans[:, 1:] > rows.spans[:, :1]
    return Rows(rows.values, rows.token_ids, np.where(in_text, rows.spans + np.int32(by), rows.spans))


def _refuse_untrained(name: str) -> None:
    """Raise ModelNotFound for a checkpoint that has no projection of its own."""
    settings, config = _json_of(name, "config_sentence_transformers.json"), _json_of(name, "config.json")
    modules = _json_of(name, "modules.json")
    architectures = config.get("architectures") or []
    if settings.get("model_type") in _KINDS or "HF_ColBERT" in architectures:
        return
    if any(architecture.endswith("ForRetrieval") for architecture in architectures):
        return
    if any(str(module.get("type", "")).endswith("Dense") for module in modules.get("list", [])):
        return
    raise ModelNotFound(
        f"{name!r} is no multi-vector model, or none that can be had: a ColBERT or XTR checkpoint has a projection of "
        f"its own. For the token states of a single-vector model take TokenStateEncoder({name!r})"
    )


def _json_of(name: str, file: str) -> dict[str, Any]:
    """A settings file of a model, {} where it has none; a list is under "list"."""
    load = needed("sentence_transformers.util", "sentence-transformers").load_file_path
    try:
        path = load(name, file, local_files_only=local_folder(name) is not None)
        content = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {"list": content}
