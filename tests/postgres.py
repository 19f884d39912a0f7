"""A real PostgreSQL server for the tests, from the programs in CTXKIT_POSTGRES_BIN, else those installed here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from importlib import import_module
from itertools import count
from pathlib import Path

_GIVEN = os.environ.get("CTXKIT_POSTGRES_BIN")  # read now: tests of pages and settings unset what begins so


class Postgres:
    """A server of its own in a temporary folder, on the loopback interface. Raises RuntimeError where it cannot run."""

    def __init__(self) -> None:
        self._bin = _programs()
        self._schemas = count()
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="ctxkit-postgres-"))
        if self._user is not None:
            try:
                shutil.chown(self._folder, self._user)
            except LookupError as error:
                raise RuntimeError("PostgreSQL does not run as root, and there is no user `postgres`") from error
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._call("initdb", "-D", self._data, "-A", "trust", "-U", "ctxkit", "--no-sync")
        self.start()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    @property
    def url(self) -> str:
        return f"postgresql://ctxkit@127.0.0.1:{self.port}/postgres"

    def has_vectors(self) -> bool:
        """Whether pgvector is installed for this server; if so, its database has the extension from now on."""
        with import_module("psycopg").connect(self.url) as connection:
            found = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
            if found:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        return bool(found)

    def new_schema(self) -> str:
        """A URL whose connections make and find their tables in an empty schema."""
        name = f"s{next(self._schemas)}"
        with import_module("psycopg").connect(self.url) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url}?options=-csearch_path%3D{name},public"

    def start(self) -> None:
        options = f"-F -p {self.port} -k {self._folder} -h 127.0.0.1"
        self._call("pg_ctl", "-D", self._data, "-w", "-o", options, "-l", str(self._folder / "log"), "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        run = subprocess.run(
            [self._bin / program, *arguments], user=self._user, cwd=self._folder, capture_output=True, text=True
        )
        if run.returncode:
            raise RuntimeError(f"{program}: {run.stdout} {run.stderr}")


def _programs() -> Path:
    for folder in [
        *([Path(_GIVEN)] if _GIVEN else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/").parent,
    ]:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    raise RuntimeError("PostgreSQL is not installed here (Debian: apt install postgresql)")
