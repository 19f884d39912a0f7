"""Compressors by name, with the encoders and models that they need: ctxkit's own, and what other packages register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from ctxkit.compression import (
    CentroidCompressor,
    ContentCompressor,
    ExtractiveCompressor,
    Head,
    NoStopWords,
    QuestionRouter,
    RandomWords,
    RareWords,
    SentenceSelector,
    StructuralCompressor,
    TextCompressor,
)

Make = Callable[[str | None], TextCompressor]
"""Makes a compressor, given the name or folder of a model where it needs one."""

GROUP = "ctxkit.compressors"
"""Entry point group: each entry is a `Make`."""


def best_offline() -> TextCompressor:
    """What ctxkit does best without a network: sentences by the question; without one, the words that carry facts.

    Needs the extra "retrieval"; MissingExtra is raised at first use.
    """
    return QuestionRouter(_sentences(None), _facts())


def method_names() -> list[str]:
    """ctxkit's own, then the registered ones."""
    own = [*_MODELLESS, *_OWN]
    return [*own, *(point.name for point in entry_points(group=GROUP) if point.name not in own)]


def compressor_named(name: str, model: str | None = None) -> TextCompressor:
    """The compressor of that name. model: name, folder or hub id of its model, where it has one to choose.

    Raises ValueError for an unknown name and for a model where there is none to choose; ModelNotFound,
    ModelNotPrepared, MissingExtra.
    """
    if name in _MODELLESS:
        if model is not None:
            raise ValueError(f"{name!r} has no model to choose, got {model!r}")
        return _MODELLESS[name]()
    if name in _OWN:
        return _OWN[name](model)
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise ValueError(f"no compressor is called {name!r}; there are {', '.join(method_names())}")
    make: Make = found.load()
    return make(model)


def _sentences(model: str | None) -> TextCompressor:
    from ctxkit.retrieval import SentenceTransformerEncoder, TokenStateEncoder

    if model is None:
        return SentenceSelector(encoder=SentenceTransformerEncoder(), token_encoder=TokenStateEncoder())
    return SentenceSelector(encoder=SentenceTransformerEncoder(model), token_encoder=TokenStateEncoder(model))


def _facts() -> TextCompressor:
    from ctxkit.compression import FactWords

    return FactWords()


def _llmlingua2(model: str | None) -> TextCompressor:
    from ctxkit.compression import LLMLingua2

    return LLMLingua2(model) if model else LLMLingua2()


def _deletion(model: str | None) -> TextCompressor:
    from ctxkit.compression import SemanticDeletion
    from ctxkit.retrieval import SentenceTransformerEncoder

    return SemanticDeletion(SentenceTransformerEncoder(model) if model else SentenceTransformerEncoder())


def _surprisal(model: str | None) -> TextCompressor:
    from ctxkit.compression import Surprisal
    from ctxkit.models import LocalModel

    return Surprisal(LocalModel.load(model) if model else LocalModel.load())


def _draft_attention(model: str | None) -> TextCompressor:
    from ctxkit.compression import DraftAttention
    from ctxkit.models import LocalModel

    return DraftAttention(LocalModel.load(model) if model else LocalModel.load())


_MODELLESS: Mapping[str, Callable[[], TextCompressor]] = {
    "auto": best_offline,
    "facts": _facts,
    "bm25": SentenceSelector,
    "centroid": CentroidCompressor,
    "content": ContentCompressor,
    "extractive": ExtractiveCompressor,
    "structural": StructuralCompressor,
    "idf": RareWords,
    "stop-words": NoStopWords,
    "head": Head,
    "random": RandomWords,
}
_OWN: Mapping[str, Make] = {
    "sentences": _sentences,
    "llmlingua2": _llmlingua2,
    "draft-attention": _draft_attention,
    "surprisal": _surprisal,
    "deletion": _deletion,
}
