from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import pytest

from ctxkit.documents import Chunker
from ctxkit.models.requests import Promptable, as_request
from ctxkit.models.streams import PieceStream
from ctxkit.pipeline import IngestReport, ingest
from ctxkit.protocols import Reply, Sampling, Vectors
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import ScriptedModel


class RecordingEncoder(HashingEncoder):
    """Remembers how many document texts each call brought."""

    def __init__(self) -> None:
        super().__init__(64)
        self.calls: list[int] = []

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self.calls.append(len(texts))
        return super().encode_documents(texts, progress=progress)


class PieceModel(ScriptedModel):
    """Says exactly these pieces, cut as they are, and keeps a record of how far it was driven."""

    def __init__(self, pieces: Sequence[str], fails: Exception | None = None) -> None:
        super().__init__([])
        self.said = list(pieces)
        self.fails = fails
        self.made: list[str] = []
        self.ended = False
        self.asked: Sampling | None = None

    def stream(self, prompt: Promptable, sampling: Sampling = Sampling()) -> PieceStream:  # noqa: B008
        self.prompts.append(as_request(prompt, {self.counter.name}))
        self.asked = sampling
        return PieceStream(_Said(self))


class _Said:
    def __init__(self, model: PieceModel) -> None:
        self.model = model

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        try:
            for piece in self.model.said:
                self.model.made.append(piece)
                yield piece
            if self.model.fails:
                raise self.model.fails
            return "stop"
        finally:
            self.model.ended = True

    def reply(self, text: str, finish_reason: str) -> Reply:
        return Reply(text, finish_reason, 0, len(text.split()), self.model.name)


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def index(encoder: RecordingEncoder) -> Iterator[Index]:
    with Index.in_memory(encoder=encoder) as opened:
        yield opened


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(index: Index, encoder: RecordingEncoder) -> Callable[..., IngestReport]:
    """run("docs", "src"): ingest these paths."""

    def go(*paths: str, max_tokens: int = 60, root: Path | None = None) -> IngestReport:
        return ingest(index, paths, chunker=Chunker(encoder.count_batch, max_tokens=max_tokens), root=root)

    return go


@pytest.fixture
def piece_model() -> type[PieceModel]:
    return PieceModel
