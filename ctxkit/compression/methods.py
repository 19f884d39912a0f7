"""Compressors by name, for the command line and for settings: ctxkit's own, and those that other packages register."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.by_content import ContentCompressor
from ctxkit.compression.extractive import ExtractiveCompressor
from ctxkit.compression.structural import StructuralCompressor
from ctxkit.compression.text_compressor import TextCompressor

Make = Callable[[str | None], TextCompressor]
"""Makes a compressor, given the name or folder of a model where it needs one."""

GROUP = "ctxkit.compressors"
"""Entry point group: each entry is a `Make`."""

_OWN: Mapping[str, Make] = {
    "sentences": lambda model: ExtractiveCompressor(),
    "content": lambda model: ContentCompressor(),
    "structural": lambda model: StructuralCompressor(),
    "idf": lambda model: RareWords(),
    "stop-words": lambda model: NoStopWords(),
    "head": lambda model: Head(),
    "random": lambda model: RandomWords(),
}


def method_names() -> list[str]:
    """ctxkit's own, then the registered ones."""
    return [*_OWN, *(point.name for point in entry_points(group=GROUP) if point.name not in _OWN)]


def compressor_named(name: str, model: str | None = None) -> TextCompressor:
    """The compressor of that name. model: name, folder or hub id of its model, where it needs one.

    Raises ValueError for an unknown name, ModelNotFound, MissingExtra.
    """
    if name in _OWN:
        return _OWN[name](model)
    found = next(iter(entry_points(group=GROUP, name=name)), None)
    if found is None:
        raise ValueError(f"no compressor is called {name!r}; there are {', '.join(method_names())}")
    make: Make = found.load()
    return make(model)
