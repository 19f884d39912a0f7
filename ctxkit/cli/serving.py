"""What `ctxkit serve` runs: a service in this process, or in several that listen at one socket."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from platformdirs import user_data_dir

from ctxkit.cli.keys import keys_of, reload_on_hangup
from ctxkit.cli.loading import open_index, open_model
from ctxkit.cli.output import note
from ctxkit.cli.settings import Settings
from ctxkit.cli.upstreams import open_upstreams
from ctxkit.errors import MissingExtra

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from ctxkit.protocols import Model
    from ctxkit.retrieval import Index
    from ctxkit.server import ServeOptions, Service
    from ctxkit.server.indexes import Indexes
    from ctxkit.server.sessions.database import Database

logger = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SHUTDOWN_SECONDS = 30  # for answers that are being given
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # what prometheus-client reads, when it is imported


def run(chosen: Settings, debug: bool) -> None:
    """Serves until it is told to end. Raises MissingExtra, BadParameter, CtxkitError for what cannot be opened."""
    if chosen.serve_host not in _LOOPBACK and not _options(chosen).api_keys:
        note(f"warning: {chosen.serve_host} can be reached from outside, and there is no API key (--api-key-file)")
    if chosen.serve_workers > 1 and not chosen.serve_upstream:
        raise typer.BadParameter("--workers needs --upstream: each process would load the model again")
    answering = _model(chosen.serve_model, chosen.serve_upstream, chosen.serve_window)
    _check_installed()
    if chosen.serve_workers > 1:
        _run_several(chosen, answering, debug)
        return
    with ExitStack() as stack:
        _run_one(_service(chosen, answering, stack), chosen, debug)


def _run_one(service: Service, chosen: Settings, debug: bool) -> None:
    import uvicorn

    from ctxkit.server import create_app
    from ctxkit.server.logs import configure_logs

    configure_logs(chosen.serve_log_format, debug=debug)
    config = _config(create_app(service), chosen)
    signal.signal(signal.SIGTERM, _end)
    reload_on_hangup(service.keys, chosen.serve_api_key_file, chosen.serve_api_keys)
    bound = _bound(config)
    _greet(chosen, next(iter(service.models)), bound, keyed=bool(service.options.api_keys))
    uvicorn.Server(config).run(sockets=[bound])


def _run_several(chosen: Settings, answering: Model, debug: bool) -> None:
    """Processes that accept at one socket. uvicorn starts them, and starts a new one where one has died; on SIGHUP it
    replaces one after the other, and so they read their keys again."""
    from uvicorn.supervisors import Multiprocess

    from ctxkit.server.logs import configure_logs

    configure_logs(chosen.serve_log_format, debug=debug)
    known = {"serve_model": answering.name, "serve_window": answering.window_tokens}  # is asked for once, not by each
    making = partial(worker_app, chosen.model_copy(update=known), debug)
    config = _config(making, chosen, factory=True, workers=chosen.serve_workers)
    bound = _bound(config)
    _greet(chosen, chosen.serve_served_model_name or answering.name, bound, keyed=bool(_options(chosen).api_keys))
    with tempfile.TemporaryDirectory(prefix="ctxkit-metrics-") as folder:
        os.environ[_METRICS_FOLDER] = folder
        Multiprocess(config, sockets=[bound]).run()


def worker_app(chosen: Settings, debug: bool) -> FastAPI:
    """The application of one of several processes; what it opens is closed when it ends."""
    from ctxkit.server import create_app
    from ctxkit.server.logs import configure_logs

    configure_logs(chosen.serve_log_format, debug=debug)
    stack = ExitStack()
    answering = _model(chosen.serve_model, chosen.serve_upstream, chosen.serve_window)
    return create_app(_service(chosen, answering, stack), at_end=stack.close)


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


def _service(chosen: Settings, model: Model, stack: ExitStack) -> Service:
    """stack: closes what is opened here."""
    from ctxkit.server import Service
    from ctxkit.server.sessions.store import SessionStore

    index = None if chosen.serve_index is None else stack.enter_context(open_index(chosen.serve_index))
    database = stack.enter_context(closing(_database(chosen.store)))
    own = None if chosen.serve_indexes is None else stack.enter_context(closing(_indexes(chosen.serve_indexes, index)))
    return Service(
        {chosen.serve_served_model_name or model.name: model},
        index=index,
        encoder=own.encoder if own is not None else None,
        store=SessionStore(database),
        indexes=own,
        options=_options(chosen),
    )


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


def _config(app: Any, chosen: Settings, **more: Any) -> uvicorn.Config:
    import uvicorn

    return uvicorn.Config(
        app,
        host=chosen.serve_host,
        port=chosen.serve_port,
        log_config=None,  # its records go where ours go
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        **more,
    )


def _bound(config: uvicorn.Config) -> socket.socket:
    bound = config.bind_socket()
    # Every connection takes it over. asyncio sets it only where the socket names its protocol, which uvicorn's does
    # not; without it the body of an answer waits 40 ms for the client to acknowledge the head.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def _end(number: int, frame: object) -> None:
    """uvicorn answers what it has begun, then sends itself the signal once more: the end that was asked for is none of
    the errors. What is open is closed on the way out."""
    raise SystemExit(0)


def _greet(chosen: Settings, name: str, bound: socket.socket, *, keyed: bool) -> None:
    """For a person, how to ask; for a machine that reads the log, one record."""
    host, port = bound.getsockname()[:2]
    url = f"http://{host}:{port}/v1"
    if chosen.serve_log_format == "json":
        logger.info("listening", extra={"fields": {"model": name, "url": url}})
        return
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}]})
    key = " -H 'Authorization: Bearer KEY'" if keyed else ""
    note(f"{name} at {url}")
    note(f"curl {url}/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'")
