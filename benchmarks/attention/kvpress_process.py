"""kvpress in an environment of its own, made at first use: it pins transformers below 5.3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the folder that has `peers`

from peers.environments import ADAPTERS, virtual_environment  # noqa: E402

STEPS = (("torch==2.13.0",), ("kvpress==0.5.5",))


class Kvpress:
    """A process that answers one JSON line with one. folder: the model's. wanted: False starts nothing."""

    def __init__(self, venv: Path, folder: Path, dtype: torch.dtype, wanted: bool = True) -> None:
        self._process: subprocess.Popen[str] | None = None
        if wanted:
            command = [
                virtual_environment(venv, *STEPS),
                ADAPTERS / "kvpress_peer.py",
                folder,
                str(dtype).split(".")[1],
            ]
            mine = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **mine},
            )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise ValueError("this process was not started")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args!r} ended without an answer")
        return json.loads(line)

    def __enter__(self) -> Kvpress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
