"""The command line in this process: main() with its own stdout, stderr and environment."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ctxkit.cli import main
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import TINY_TEMPLATE, tiny_llama, tiny_tokenizer
from tests.servers import Content, OpenAIServer, as_events, serving

DEFAULT_MODEL = "smollm2-135m-instruct"
SERVER_SAYS = "The Zorblax colony has 4321 birds. Bananas are yellow."


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run_main(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ran:
    """`ctxkit ARGUMENTS`. Of this process's CTXKIT_* variables it sees none."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CTXKIT_")}
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        patch.dict(os.environ, {**clean, **(environment or {})}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = end.code
    return Ran(code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def ctxkit() -> Callable[..., Ran]:
    """ctxkit("pack", "question", CTXKIT_BUDGET="300")"""

    def run(*arguments: str | Path, **environment: str) -> Ran:
        return run_main([str(one) for one in arguments], environment)

    return run


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as a model folder, in the place of a cache where the default model is looked for."""
    folder = tmp_path_factory.mktemp("cache") / "models" / DEFAULT_MODEL
    tiny_llama(window_tokens=4096).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TINY_TEMPLATE, **special}))
    (folder / "ctxkit.json").write_text('{"format": 1}')
    return folder


@pytest.fixture(scope="session")
def cache(model_folder: Path) -> str:
    """A CTXKIT_CACHE_DIR with the default model prepared."""
    return str(model_folder.parent.parent)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def docs(home: Path) -> Path:
    """docs/ with three files, and an empty index at .ctxkit whose encoder needs no weights."""
    folder = home / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "penguins.md").write_text("# Penguins\n\nThe Zorblax penguin colony has 4321 birds.\n", encoding="utf-8")
    (folder / "trains.txt").write_text("The Velmora railway opened in 1887.\n", encoding="utf-8")
    (folder / "deep/möss.md").write_text("# Möss\n\nPurple möss 🌿 grows on Quill Island.\n", encoding="utf-8")
    Index.open(home / ".ctxkit", encoder=HashingEncoder(), create=True).close()
    return folder


@pytest.fixture
def indexed(docs: Path, ctxkit: Callable[..., Ran]) -> Path:
    """docs/, indexed."""
    assert ctxkit("index", "docs").code == 0
    return docs


def _answered(body: dict[str, Any]) -> Content:
    deltas = [{"choices": [{"delta": {"content": word + " "}}]} for word in SERVER_SAYS.split()]
    return as_events([*deltas, {"choices": [{"delta": {}, "finish_reason": "stop"}]}])


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """A small OpenAI-compatible server: `server.url`, and the requests it saw in `server.seen`."""
    with serving(OpenAIServer(["first-model", "other"], _answered)) as running:
        yield running
