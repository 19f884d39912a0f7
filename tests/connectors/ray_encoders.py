"""Encoders that workers of a cluster import."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from ctxkit.protocols import Vectors
from ctxkit.retrieval import HashingEncoder


class LoggingEncoder(HashingEncoder):
    """Writes into a folder, in a file of its process, that it was made and how many texts it encoded."""

    def __init__(self, log: str, multi_vector: bool = False) -> None:
        super().__init__(32, multi_vector=multi_vector)
        self._log = Path(log)
        self._note("made")

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self._note(f"encoded {len(texts)}")
        return super().encode_documents(texts, progress=progress)

    def _note(self, said: str) -> None:
        with (self._log / str(os.getpid())).open("a") as file:
            file.write(said + "\n")


class DyingEncoder(HashingEncoder):
    """Kills its process, as a lack of memory would, when it first encodes; `deaths` times in all processes together."""

    def __init__(self, log: str, deaths: int) -> None:
        super().__init__(32)
        self._log, self._deaths = Path(log), deaths

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        if len(list(self._log.iterdir())) < self._deaths:
            (self._log / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_documents(texts, progress=progress)


def differing() -> HashingEncoder:
    """Another one in each process."""
    return HashingEncoder(32 + os.getpid())


def failing() -> HashingEncoder:
    raise RuntimeError("no such model")
