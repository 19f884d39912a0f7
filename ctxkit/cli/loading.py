"""What the commands open: the index, the model, the counter."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ctxkit.cli.output import note
from ctxkit.cli.settings import settings
from ctxkit.errors import DocumentError

if TYPE_CHECKING:
    from ctxkit.models import LocalModel, RemoteModel
    from ctxkit.protocols import Encoder
    from ctxkit.retrieval import Index
    from ctxkit.tokens import EstimatingCounter, TemplateCounter


def read_text(path: Path) -> str:
    """The text of a file, of standard input for `-`; line ends as they are. Raises DocumentError."""
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(str(path), f"not UTF-8 (byte {error.start:,})") from error
    except OSError as error:
        raise DocumentError(str(path), f"cannot be read: {error.strerror or error}") from error


def read_chat(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Messages and tools of a JSON file: a list of messages, or an object that holds `messages` and maybe `tools`.

    Raises DocumentError for what is neither; whether each message is one, `fit_messages` says.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DocumentError(str(path), f"not JSON: {error}") from error
    held = found if isinstance(found, dict) else {"messages": found}
    return _objects(path, held, "messages"), _objects(path, held, "tools")


def _objects(path: Path, held: dict[str, Any], name: str) -> list[dict[str, Any]]:
    listed = held.get(name)
    if listed is None and name == "tools":
        return []
    if not isinstance(listed, list):
        raise DocumentError(str(path), f"`{name}` is no list of objects")
    wrong = next((position for position, one in enumerate(listed) if not isinstance(one, dict)), None)
    if wrong is not None:
        raise DocumentError(str(path), f"`{name}[{wrong}]` is no object")
    if not listed and name == "messages":
        raise DocumentError(str(path), "it holds no messages")
    return listed


def open_index(folder: Path | None) -> Index:
    from ctxkit.retrieval import Index

    return Index.open(folder or settings().index)


def open_encoder(name: str | None, *, by_token: bool) -> Encoder:
    """The encoder of that name, None for the packaged one. by_token: one vector per token, of a model trained for it
    (ColBERT, XTR), else of the token states of any other."""
    from ctxkit.errors import ModelNotFound
    from ctxkit.retrieval import MultiVectorEncoder, SentenceTransformerEncoder, TokenStateEncoder

    if not by_token:
        return SentenceTransformerEncoder(name) if name else SentenceTransformerEncoder()
    if name is None:
        return TokenStateEncoder()
    trained = MultiVectorEncoder(name)
    try:
        trained.dims  # noqa: B018 - loads the model
    except ModelNotFound:
        note(f"{name} is not trained for late interaction: its token states are taken")
        return TokenStateEncoder(name)
    return trained


def open_counter(model: str | None) -> TemplateCounter | EstimatingCounter:
    """The model's own tokenizer, without its weights. Where no model is named and the default is not prepared here,
    the upper-bound estimator, which is said."""
    from ctxkit.errors import ModelNotPrepared
    from ctxkit.models import resolve
    from ctxkit.tokens import EstimatingCounter, TemplateCounter

    defaults = settings()
    try:
        return TemplateCounter.from_folder(resolve(model or defaults.model, defaults.cache_dir))
    except ModelNotPrepared:
        if model:
            raise
        note(f"{defaults.model} is not prepared: tokens are an upper bound (ctxkit models prepare {defaults.model})")
        return EstimatingCounter()


def open_model(model: str | None, base_url: str | None, window_tokens: int) -> LocalModel | RemoteModel:
    """The model behind `base_url`, or the local one."""
    defaults = settings()
    if base_url:
        named = model or (defaults.model if defaults.names_a_model else None)
        return _remote(base_url, named, defaults.api_key, window_tokens)
    from ctxkit.models import LocalModel

    return LocalModel.load(model or defaults.model, cache_dir=defaults.cache_dir)


def _remote(base_url: str, name: str | None, api_key: str | None, window_tokens: int) -> RemoteModel:
    """The server's model of that name; where none is named, the first that it offers."""
    from ctxkit.errors import RemoteRejected
    from ctxkit.models import RemoteModel

    try:
        remote = RemoteModel(base_url, name or "", api_key=api_key, window_tokens=window_tokens)
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("`base_url`", "--base-url")) from error
    if not name:
        try:
            offered = remote.list_models()
        except RemoteRejected:
            offered = []
        if not offered:
            raise typer.BadParameter(f"{base_url} lists no models; name one with --model")
        remote.name = offered[0]
    return remote
