"""`ctxkit serve`: an OpenAI-compatible endpoint over a local model, or in front of another server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ctxkit.cli.serving import run
from ctxkit.cli.settings import settings

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
        help="Where sessions and answers are kept: a file or postgresql://... "
        "(env: CTXKIT_STORE; default: in the data folder)"
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
    keep_days: Annotated[
        float | None, typer.Option(min=0.01, help="Forget sessions and answers unused for so long.")
    ] = None,
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
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes behind the one port, in front of --upstream servers. [default: 1]"),
    ] = None,
    metrics: Annotated[
        bool | None, typer.Option("--metrics/--no-metrics", help="Serve /metrics. [default: metrics]")
    ] = None,
    log_format: _LogFormat = None,
) -> None:
    """Serve an OpenAI-compatible endpoint. Long conversations are fitted into the window, and the answer says how.

    Every flag may stand in ctxkit.toml too, in the table [serve], and in a variable: CTXKIT_SERVE_PORT. `ctxkit config
    show` tells what holds."""
    chosen = settings(flags_of(context.params))
    run(chosen, debug=bool(context.find_root().params.get("debug")))


def flags_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `ctxkit serve` by the fields of `Settings`."""
    return {name if name == "store" else f"serve_{name}": value for name, value in parameters.items()}
