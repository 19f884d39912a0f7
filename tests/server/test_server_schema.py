"""What the OpenAPI document promises, held against the server by schemathesis: no server error, no undocumented status,
header or body. Runs where schemathesis is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from ctxkit.server import Service, create_app
from ctxkit.server.indexes import Indexes
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import ScriptedModel
from tests.server.letters import Letters
from tests.server.running import RunningServer

schemathesis = pytest.importorskip("schemathesis")


promised = pytest.importorskip("schemathesis.specs.openapi.checks")
CHECKS = [
    schemathesis.checks.not_a_server_error,
    promised.status_code_conformance,
    promised.content_type_conformance,
    promised.response_schema_conformance,
]
SERVICE = Service({"m": ScriptedModel(["."])})
OPERATIONS = [(path, method) for path, offered in create_app(SERVICE).openapi()["paths"].items() for method in offered]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("server")
    service = Service(
        {"m": ScriptedModel(lambda request: "It is so.", window_tokens=500)},
        encoder=Letters(),
        indexes=Indexes(folder / "indexes", Letters()),
        store=SessionStore(open_database(str(folder / "sessions.db"))),
    )
    server = RunningServer(service)
    yield schemathesis.openapi.from_url(f"{server.root}/openapi.json")
    server.close()


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_server_does_what_its_document_says(api: Any, path: str, method: str, mode: str) -> None:
    asked = api[path][method.upper()].as_strategy(generation_mode=schemathesis.GenerationMode[mode])

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=asked)
    def check(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    try:
        check()
    except Unsatisfiable:
        assert mode == "NEGATIVE"
        pytest.skip("nothing of it can be wrong")
