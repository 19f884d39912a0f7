"""The servers of `ctxkit serve --upstream`: which model, which window, which way."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Any

import pytest
import typer

from ctxkit.cli.serving import run
from ctxkit.cli.settings import settings
from ctxkit.cli.upstreams import DEFAULT_WINDOW, open_upstreams
from ctxkit.models.replicas import Replicas
from ctxkit.models.transport import KeptTransport
from tests.faulty import faulty, says


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CTXKIT_MODEL", "CTXKIT_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def opened(*offers: list[dict[str, Any]], name: str | None = None, window: int | None = None) -> Replicas:
    with ExitStack() as stack:
        urls = [stack.enter_context(faulty(says("x"), models=offer)).url for offer in offers]
        return open_upstreams(urls, name, window)


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"context_length": 2048}, 2048),
        ({"meta": {"n_ctx_train": 32768}}, 32768),
        ({"meta": {"n_ctx_train": 32768, "n_ctx": 512}}, 512),
        ({"meta": None}, DEFAULT_WINDOW),
        ({"max_model_len": "many"}, DEFAULT_WINDOW),
        ({"max_model_len": 0}, DEFAULT_WINDOW),
        ({"max_model_len": True}, DEFAULT_WINDOW),
    ],
)
def test_the_window_is_what_the_server_says(entry: dict[str, Any], window: int, capsys: Any) -> None:
    model = opened([{"id": "m", **entry}])
    assert (model.name, model.window_tokens) == ("m", window)
    assert f"{window:,} tokens" in capsys.readouterr().err


def test_of_several_the_smallest_and_only_of_the_named_model() -> None:
    big, small = {"id": "a", "max_model_len": 900}, {"id": "a", "max_model_len": 700}
    model = opened([{"id": "b", "max_model_len": 5}, big], [small], name="a")
    assert (model.name, model.window_tokens, len(model.states)) == ("a", 700, 2)
    assert all(one.model.name == "a" and one.model.window_tokens == 700 for one in model.fleet.replicas)


def test_a_window_that_was_given_is_taken(capsys: Any) -> None:
    model = opened([{"id": "m", "max_model_len": 4096}], window=100)
    assert model.window_tokens == 100 and not capsys.readouterr().err


def test_a_server_that_is_not_there_yet_is_no_error(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    assert open_upstreams([url], "m", None).window_tokens == DEFAULT_WINDOW
    assert "does not list its models yet" in capsys.readouterr().err
    with pytest.raises(typer.BadParameter, match="name one"):
        open_upstreams([url], None, None)


def test_what_is_no_address_is_a_wrong_usage() -> None:
    with pytest.raises(typer.BadParameter, match="--upstream"):
        open_upstreams(["gpu:8000"], "m", 100)


def test_several_processes_need_an_upstream() -> None:
    with pytest.raises(typer.BadParameter, match="--workers needs --upstream"):
        run(settings({"serve_workers": 2}), debug=False)


def test_a_proxy_of_the_environment_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def transport() -> object:
        (one,) = open_upstreams(["http://elsewhere.test/v1"], "m", 100).fleet.replicas
        return one.model.connection._async_transport

    assert isinstance(transport(), KeptTransport)
    monkeypatch.setenv("http_proxy", "http://proxy.test:3128")
    assert transport() is None
    monkeypatch.setenv("no_proxy", "elsewhere.test")
    assert isinstance(transport(), KeptTransport)
