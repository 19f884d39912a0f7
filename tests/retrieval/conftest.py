from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # for tempfile's `dir`; None: where it always is


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


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder whose files lie in memory where the system has such: nothing but the power is lost there sooner."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="ctxkit-") as name:
        yield Path(name)
