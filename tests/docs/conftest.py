"""What pages and examples may count on: documents and an index of them, a model folder, a server, no network."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import httpx
import pytest

from ctxkit.documents import Chunker
from ctxkit.models import DEFAULT_MODEL, available
from ctxkit.pipeline import ingest
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import TINY_TEMPLATE, tiny_tokenizer

SERVER = "127.0.0.1:8000"

DOCUMENTS = {
    "README.md": "# Rivers\n\nA short handbook on rivers.\n\n## Start\n\nRead the two pages in `docs`.\n",
    "docs/budget.md": (
        "# Budgets\n\n## Caps\n\nTo cap the tokens that passages may take, set `caps`.\n\n"
        "## Reserve\n\nThe reserve is kept free for the answer.\n"
    ),
    "docs/rivers.md": (
        "# Rivers\n\n## Course\n\nRivers carry water from the mountains to the sea.\n\n"
        "## Delta\n\nWhere a river meets the sea it may form a delta of sand and mud.\n"
    ),
}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three documents, an index of them in `.ctxkit`, and a model folder without weights."""
    root = tmp_path_factory.mktemp("prepared")
    for name, text in DOCUMENTS.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    encoder = HashingEncoder()
    with Index.open(root / ".ctxkit", encoder=encoder, create=True) as index:
        ingest(index, [root / "docs", root / "README.md"], chunker=Chunker(encoder.count_batch), root=root)
    model = root / "model"
    model.mkdir()
    tiny_tokenizer().save(str(model / "tokenizer.json"))
    (model / "chat_template.jinja").write_text(TINY_TEMPLATE, encoding="utf-8")
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (model / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    return root


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder as the working directory, no CTXKIT_* variable set, and a server that answers."""
    folder = shutil.copytree(prepared, tmp_path / "workspace")
    for name in [name for name in os.environ if name.startswith("CTXKIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", _sync_answer)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", _async_answer)
    return folder


@pytest.fixture(scope="session")
def model_is_prepared() -> bool:
    """Whether the small local model can be loaded here."""
    return any(one.prepared for one in available() if one.name == DEFAULT_MODEL)


def _sync_answer(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
    request.read()
    return _answer(request)


async def _async_answer(self: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
    await request.aread()
    return _answer(request)


def _answer(request: httpx.Request) -> httpx.Response:
    """What an OpenAI-compatible server at `SERVER` says; nothing else can be reached."""
    if request.url.netloc.decode() != SERVER:
        raise httpx.ConnectError(f"no network in tests: {request.url}", request=request)
    if request.method == "GET":
        return httpx.Response(200, json={"data": [{"id": "my-model"}]})
    body = json.loads(request.content)
    if not body["stream"]:
        choice = {"message": {"role": "assistant", "content": "To the sea."}, "finish_reason": "stop"}
        return httpx.Response(200, json={"choices": [choice]})
    words = [{"choices": [{"delta": {"content": word}}]} for word in ("To ", "the ", "sea.")]
    events = [*words, {"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)
