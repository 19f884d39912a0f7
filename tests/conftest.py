"""Fixtures and settings of the whole suite. No test reaches the network, sleeps or measures time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import Postgres

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once
# Before anything imports Ray, which else looks for, and listens at, the address that others reach this machine by.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
if find_spec("triton") is not None:
    import torch

    if not torch.cuda.is_available():  # before anything imports Triton, which then interprets its kernels on the CPU
        os.environ["TRITON_INTERPRET"] = "1"

# `pytest --hypothesis-profile=thorough tests/context/test_fit_contract.py` runs the 20,000 cases of the README.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=200, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=20_000, **_COMMON)
settings.load_profile("default")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Where the test collections are: CTXKIT_DATA, else shared/data beside the checkout."""
    folder = Path(os.environ.get("CTXKIT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test collections at {folder}; set CTXKIT_DATA")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Writes a file below tmp_path and returns its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real server; without one the test is skipped, and says why."""
    try:
        server = Postgres()
    except (RuntimeError, OSError) as error:
        pytest.skip(f"no PostgreSQL: {error}")
    yield server
    server.close()


@pytest.fixture
def pgvector_url(postgres: Postgres) -> str:
    """An empty schema of that server, where it has pgvector."""
    pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
    if not postgres.has_vectors():
        pytest.skip("this PostgreSQL has no pgvector (Debian: apt install postgresql-16-pgvector; CTXKIT_POSTGRES_BIN)")
    return postgres.new_schema()
