from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")


class CountingEncoder(HashingEncoder):
    """Remembers every document text it was asked for."""

    def __init__(self, dims: int = 32, *, multi_vector: bool = False) -> None:
        super().__init__(dims, multi_vector=multi_vector)
        self.seen: list[str] = []

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self.seen += texts
        return super().encode_documents(texts, progress=progress)


@pytest.fixture
def counting() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture(params=["single", "multi"])
def encoder(request: pytest.FixtureRequest) -> HashingEncoder:
    return HashingEncoder(32, multi_vector=request.param == "multi")


@pytest.fixture
def chunk() -> Callable[..., Chunk]:
    """chunk("some text", id="c1", source="a.md")"""

    def make(text: str, id: str = "", source: str = "a.md", **fields: object) -> Chunk:
        return Chunk(id or f"{source}/{text}", source, text, **fields)  # type: ignore[arg-type]

    return make
