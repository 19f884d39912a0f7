"""Starts the workers of the word compressors' benchmarks: llmlingua in its own environment, ctxkit in ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peers.environments import ADAPTERS, Environments, virtual_environment

CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # how tiktoken names the rank file in its cache
STEPS = (("torch==2.13.0",), ("llmlingua==0.2.2", "transformers==5.23.0"))


class Worker:
    """A process that answers one JSON line with one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"texts": list(texts), "options": options}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended without an answer")
        return json.loads(line)


class Workers:
    """venvs: where peers are installed. python: an interpreter that has llmlingua; None makes an environment."""

    def __init__(self, venvs: Path, python: Path | None = None) -> None:
        environments = Environments(venvs)
        if not (environments.ranks / CL100K).exists():
            environments.fetch_ranks()
        self._ranks = environments.ranks
        self._python = python or virtual_environment(venvs / STEPS[1][0], *STEPS)

    @contextmanager
    def llmlingua(self, checkpoint: Path, threads: int) -> Iterator[Worker]:
        with self._started([self._python, ADAPTERS / "llmlingua_peer.py", checkpoint, threads], threads) as worker:
            yield worker

    @contextmanager
    def ctxkit(self, method: str, checkpoint: Path, threads: int) -> Iterator[Worker]:
        command = [sys.executable, ADAPTERS / "words_worker.py", method, checkpoint, threads]
        with self._started(command, threads) as worker:
            yield worker

    @contextmanager
    def _started(self, command: Sequence[object], threads: int) -> Iterator[Worker]:
        root = ADAPTERS.parent.parent
        paths = os.pathsep.join(str(root / part) for part in ("", "connectors", "agents", "kernels"))
        mine = {
            "TIKTOKEN_CACHE_DIR": str(self._ranks),
            "CTXKIT_CL100K": str(self._ranks / CL100K),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
            "RAYON_NUM_THREADS": str(threads),
            "PYTHONPATH": paths,
        }
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **mine},
        )
        try:
            yield Worker(process)
        finally:
            if process.stdin:
                process.stdin.close()
            process.wait()
