"""The processes of the server's benchmarks: a scripted upstream, and `ctxkit serve` in front of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType

_HERE = Path(__file__).resolve().parent
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 180.0


class Process:
    """A program that prints its address. `url` is that. What it prints is shown where it does not start."""

    def __init__(self, *command: str, env: dict[str, str] | None = None) -> None:
        self._errors = tempfile.NamedTemporaryFile(prefix="ctxkit-", suffix=".log")  # noqa: SIM115 - as long as it runs
        everything = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self.process = subprocess.Popen(command, stdout=self._errors, stderr=self._errors, env=everything)
        self.url = self._address()

    def _address(self) -> str:
        """The first address that it prints."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            told = Path(self._errors.name).read_text()
            if found := re.search(r"(http://127\.0\.0\.1:\d+)\S*\n", told):
                return found[1]
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}: {told[-2000:]}")
            time.sleep(0.01)
        raise RuntimeError(f"it did not start in {_START_SECONDS:g} s: {told[-2000:]}")

    def wait_until_healthy(self) -> None:
        """It prints its address a moment before it listens."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=10):
                    return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"{self.url} did not become healthy: {self.log[-2000:]}")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Asks it to end (SIGTERM), and waits; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)

    @property
    def log(self) -> str:
        return Path(self._errors.name).read_text()

    @property
    def cpu_seconds(self) -> float:
        """Its processor time so far, and that of its children."""
        family = (self.process.pid, *self.children())
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in family]
        return sum(int(one[11]) + int(one[12]) for one in fields) / _TICKS

    @property
    def rss_mib(self) -> float:
        """Of it and its children; pages that they share are counted for each."""
        family = (self.process.pid, *self.children())
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family)
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def children(self) -> list[int]:
        """The processes that it has started and that run, the oldest first."""
        pid = self.process.pid
        return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def upstream(interval_ms: float) -> Process:
    return Process(sys.executable, str(_HERE / "upstream.py"), "--interval-ms", str(interval_ms))


def relay(behind: Process, folder: Path) -> Process:
    """`relay.c` in front of it, compiled into the folder."""
    made = folder / "relay"
    subprocess.run(["cc", "-O2", "-o", made, _HERE / "relay.c"], check=True)
    return Process(str(made), behind.url.rpartition(":")[2])


def serve(*arguments: str, profile: Path | None = None) -> Process:
    """`ctxkit serve` at a free port. profile: where cProfile writes when it ends."""
    profiling = ["-m", "cProfile", "-o", str(profile)] if profile is not None else []
    process = Process(sys.executable, *profiling, "-m", "ctxkit", "serve", *arguments, "--port", "0")
    process.wait_until_healthy()
    return process
