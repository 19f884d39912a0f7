"""The servers that `ctxkit serve --upstream` stands in front of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import typer

from ctxkit.cli.output import note
from ctxkit.cli.settings import settings
from ctxkit.errors import RemoteError

if TYPE_CHECKING:
    from ctxkit.models.remote import RemoteModel
    from ctxkit.models.replicas import Replicas

DEFAULT_WINDOW = 8192
"""Tokens, where nobody says."""


def open_upstreams(urls: Sequence[str], name: str | None, window_tokens: int | None) -> Replicas:
    """The model of that name behind all of the addresses; where none is named, the first that one of them offers.

    window_tokens: None for the smallest that the servers state. One that cannot be reached yet is no error.
    """
    from ctxkit.models.replicas import Replicas

    models = [_remote(url) for url in urls]
    offered = [_offered(model) for model in models] if name is None or window_tokens is None else []
    defaults = settings()
    named = name or (defaults.model if defaults.names_a_model else None) or _first_of(offered)
    if named is None:
        raise typer.BadParameter("no --upstream lists a model; name one")
    window = window_tokens or _window(named, offered)
    for model in models:
        model.name, model.window_tokens = named, window
    return Replicas(models)


def _remote(url: str) -> RemoteModel:
    from ctxkit.models.remote import RemoteModel
    from ctxkit.models.transport import KeptTransport

    try:
        return RemoteModel(
            url,
            "",
            api_key=settings().api_key,
            window_tokens=DEFAULT_WINDOW,
            max_retries=0,
            join_pieces=True,
            tell_more=True,
            async_transport=None if _has_proxy(url) else KeptTransport(),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("`base_url`", "--upstream")) from error


def _has_proxy(url: str) -> bool:
    """Whether the environment says that the server is reached through a proxy."""
    parts = urlsplit(url)
    proxies = getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or "")


def _offered(model: RemoteModel) -> Mapping[str, int | None]:
    try:
        return model.list_windows()
    except RemoteError as error:
        note(f"{model.base_url} does not list its models yet: {error}")
        return {}


def _first_of(offered: Sequence[Mapping[str, int | None]]) -> str | None:
    return next((name for names in offered for name in names), None)


def _window(name: str, offered: Sequence[Mapping[str, int | None]]) -> int:
    """The smallest that a server states for the model."""
    stated = [window for names in offered if (window := names.get(name)) is not None]
    if stated:
        note(f"no --window was given: the upstream says {min(stated):,} tokens")
        return min(stated)
    note(f"no --window was given and no upstream says one: {DEFAULT_WINDOW:,} tokens are taken")
    return DEFAULT_WINDOW
