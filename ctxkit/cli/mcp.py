"""`ctxkit mcp`: search, fit, count and expand as tools of the Model Context Protocol."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxkit.cli.loading import open_counter, open_index
from ctxkit.cli.options import IndexFolder, ModelName
from ctxkit.cli.output import note
from ctxkit.cli.settings import settings

if TYPE_CHECKING:
    from ctxkit.retrieval import Index

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def mcp(
    index: IndexFolder = None,
    model: ModelName = None,
    http: Annotated[
        int | None,
        typer.Option("--http", metavar="PORT", min=1, max=65535, help="Serve streamable HTTP at /mcp, not stdio."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at, with --http.")] = "127.0.0.1",
) -> None:
    """Serve the tools search, fit, count_tokens and expand to an MCP client (an editor, an agent), over stdio.

    search needs an index: the one of --index, else the default one where there is one. Tokens are those of --model.
    There is no authentication: leave --host as it is, or put a proxy before it.
    """
    from ctxkit_connectors.mcp import mcp_server

    with ExitStack() as stack:
        opened = _opened(index)
        if opened is not None:
            stack.enter_context(opened)
        server = mcp_server(index=opened, counter=open_counter(model))
        if http is None:
            server.run()
            return
        if host not in _LOOPBACK:
            note(f"warning: {host} can be reached from outside, and nobody is asked who they are")
        note(f"MCP at http://{host}:{http}/mcp")
        server.run("streamable-http", host=host, port=http)


def _opened(folder: Path | None) -> Index | None:
    """The index that is named; else the default one, None where there is none."""
    from ctxkit.errors import IndexNotFound

    try:
        return open_index(folder)
    except IndexNotFound:
        if folder is not None or "index" in settings().model_fields_set:
            raise
        note("there is no index here: search is not offered (ctxkit index FOLDER)")
        return None
