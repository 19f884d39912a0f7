"""`ctxkit serve`: an OpenAI-compatible endpoint over a local model, or in front of another server."""

from __future__ import annotations

import json
import logging
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from platformdirs import user_data_dir

from ctxkit.cli.keys import keys_of, reload_on_hangup
from ctxkit.cli.loading import open_index, open_model
from ctxkit.cli.output import note
from ctxkit.cli.settings import Settings, settings
from ctxkit.cli.upstreams import open_upstreams
from ctxkit.errors import MissingExtra

if TYPE_CHECKING:
    from ctxkit.protocols import Model
    from ctxkit.retrieval import Index
    from ctxkit.server import ServeOptions, Service
    from ctxkit.server.indexes import Indexes
    from ctxkit.server.sessions.database import Database

logger = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHUTDOWN_SECONDS = 30  # for answers that are being given


_Model = Annotated[
    str | None,
    typer.Argument(
        help="A name of `ctxkit models list`, a model folder, or a hub id; with --upstream, its name there."
    ),
]
_Indexes = Annotated[
    Path | None, typer.Option("--indexes", help="Keep indexes of the documents that clients bring in this folder.")
]
_Upstream = Annotated[
    list[str] | None,
    typer.Option(
        "--upstream",
        help="Stand in front of this server, e.g. http://host:8000/v1; repeat it for more of the same model.",
    ),
]
_ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        help="A file with one API key a line, or its hash; SIGHUP reads it again. "
        "(env: CTXKIT_SERVE_API_KEYS, separated by commas)"
    ),
]
_TokensPerMinute = Annotated[
    int | None, typer.Option(min=1, help="Of one key, prompts and answers together; more get 429.")
]
_Untrusted = Annotated[
    Literal["allow", "flag", "refuse_tools"] | None,
    typer.Option(help="What becomes of tool calls where untrusted passages are in the prompt. [default: flag]"),
]
_Store = Annotated[
    str | None,
    typer.Option(
        help="Where sessions are kept: a file or postgresql://... (env: CTXKIT_STORE; default: in the data folder)"
    ),
]
_Window = Annotated[
    int | None,
    typer.Option(
        "--window", "--max-model-len", "--ctx-size", min=1, help="Tokens of the window; the model's by default."
    ),
]
_LogFormat = Annotated[
    Literal["text", "json"] | None, typer.Option(help="A line for each request, on stderr. [default: text]")
]


def serve(
    context: typer.Context,
    model: _Model = None,
    index: Annotated[Path | None, typer.Option("--index", help="Answer from the documents of this index.")] = None,
    index_label: Annotated[
        str | None, typer.Option(help="How far its documents are trusted that do not say so. [default: untrusted]")
    ] = None,
    indexes: _Indexes = None,
    upstream: _Upstream = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen at; 0.0.0.0 is every one. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 takes any that is free. [default: 8000]")
    ] = None,
    api_key_file: _ApiKeyFile = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Of one key; more get 429.")] = None,
    tokens_per_minute: _TokensPerMinute = None,
    untrusted: _Untrusted = None,
    store: _Store = None,
    keep_days: Annotated[float | None, typer.Option(min=0.01, help="Forget sessions unused for so long.")] = None,
    served_model_name: Annotated[str | None, typer.Option(help="The name that clients ask for.")] = None,
    window: _Window = None,
    answer_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer whose request does not say. [default: 512]")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(min=1, help="Requests answered at the same time. [default: 16]")
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option(min=0, help="Requests that wait; more get 429. [default: 256]")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that a request may take. [default: 600]")
    ] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help="A page's origin that may ask; repeat it.")] = None,
    metrics: Annotated[
        bool | None, typer.Option("--metrics/--no-metrics", help="Serve /metrics. [default: metrics]")
    ] = None,
    log_format: _LogFormat = None,
) -> None:
    """Serve an OpenAI-compatible endpoint. Long conversations are fitted into the window, and the answer says how.

    Every flag may stand in ctxkit.toml too, in the table [serve], and in a variable: CTXKIT_SERVE_PORT. `ctxkit config
    show` tells what holds."""
    chosen = settings(flags_of(context.params))
    options = _options(chosen)
    if chosen.serve_host not in _LOOPBACK and not options.api_keys:
        note(f"warning: {chosen.serve_host} can be reached from outside, and there is no API key (--api-key-file)")
    answering = _model(chosen.serve_model, chosen.serve_upstream, chosen.serve_window)
    _check_installed()
    with ExitStack() as stack:
        given = chosen.serve_index
        opened = stack.enter_context(open_index(given)) if given is not None else None
        database = stack.enter_context(closing(_database(chosen.store)))
        folder = chosen.serve_indexes
        own = None if folder is None else stack.enter_context(closing(_indexes(folder, opened)))
        name = chosen.serve_served_model_name or answering.name
        debug = bool(context.find_root().params.get("debug"))
        _run(_service(name, answering, opened, database, own, options), name, chosen, debug)


def flags_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `ctxkit serve` by the fields of `Settings`."""
    return {name if name == "store" else f"serve_{name}": value for name, value in parameters.items()}


def _check_installed() -> None:
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from error


def _model(name: str | None, upstreams: Sequence[str], window: int | None) -> Model:
    if upstreams:
        return open_upstreams(upstreams, name, window)
    found = open_model(name, None, 0)
    if window is not None:
        if window > found.window_tokens:
            raise typer.BadParameter(f"--window {window:,} is above the model's {found.window_tokens:,}")
        found.window_tokens = window
    return found


def _options(chosen: Settings) -> ServeOptions:
    """Raises BadParameter."""
    from ctxkit.server import ServeOptions

    try:
        return ServeOptions(
            api_keys=(*keys_of(chosen.serve_api_key_file), *chosen.serve_api_keys),
            answer_tokens=chosen.serve_answer_tokens,
            max_running=chosen.serve_max_running,
            max_waiting=chosen.serve_max_waiting,
            max_waiting_per_key=chosen.serve_max_waiting,
            timeout_seconds=chosen.serve_timeout,
            metrics=chosen.serve_metrics,
            cors_origins=chosen.serve_cors_origin,
            keep_sessions_days=chosen.serve_keep_days,
            requests_per_minute=chosen.serve_requests_per_minute,
            tokens_per_minute=chosen.serve_tokens_per_minute,
            untrusted=chosen.serve_untrusted,
            index_label=chosen.serve_index_label,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _database(where: str | None) -> Database:
    from ctxkit.server.sessions.database import open_database

    if where is None:
        folder = Path(user_data_dir("ctxkit"))
        folder.mkdir(parents=True, exist_ok=True)
        where = str(folder / "sessions.db")
    return open_database(where)


def _indexes(folder: Path, opened: Index | None) -> Indexes:
    from ctxkit.retrieval import SentenceTransformerEncoder
    from ctxkit.server.indexes import Indexes

    return Indexes(folder, opened.encoder if opened is not None else SentenceTransformerEncoder())


def _service(
    name: str, model: Model, index: Index | None, database: Database, own: Indexes | None, options: ServeOptions
) -> Service:
    from ctxkit.server import Service
    from ctxkit.server.sessions.store import SessionStore

    encoder = own.encoder if own is not None else None
    store = SessionStore(database)
    return Service({name: model}, index=index, encoder=encoder, store=store, indexes=own, options=options)


def _run(service: Service, name: str, chosen: Settings, debug: bool) -> None:
    import uvicorn

    from ctxkit.server import create_app
    from ctxkit.server.logs import configure_logs

    configure_logs(chosen.serve_log_format, debug=debug)
    config = uvicorn.Config(
        create_app(service),
        host=chosen.serve_host,
        port=chosen.serve_port,
        log_config=None,  # its records go where ours go
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    signal.signal(signal.SIGTERM, _end)
    reload_on_hangup(service.keys, chosen.serve_api_key_file, chosen.serve_api_keys)
    bound = config.bind_socket()
    # Every connection takes it over. asyncio sets it only where the socket names its protocol, which uvicorn's does
    # not; without it the body of an answer waits 40 ms for the client to acknowledge the head.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    host, port = bound.getsockname()[:2]
    _greet(name, f"http://{host}:{port}", bool(service.options.api_keys), chosen.serve_log_format)
    uvicorn.Server(config).run(sockets=[bound])


def _end(number: int, frame: object) -> None:
    """uvicorn answers what it has begun, then sends itself the signal once more: the end that was asked for is none of
    the errors. What is open is closed on the way out."""
    raise SystemExit(0)


def _greet(name: str, url: str, keyed: bool, log_format: str) -> None:
    """For a person, how to ask; for a machine that reads the log, one record."""
    if log_format == "json":
        logger.info("listening", extra={"fields": {"model": name, "url": f"{url}/v1"}})
        return
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}]})
    key = " -H 'Authorization: Bearer KEY'" if keyed else ""
    note(f"{name} at {url}/v1")
    note(f"curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'")
