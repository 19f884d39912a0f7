"""Diff history: tokens of observation streams sent whole, as differences, and as the shorter of the two.

    python benchmarks/diff_history.py

Streams are what programs print: a folder listed and tests run after each edit (run here, in a temporary folder), files
of this repository as its git history has them, a status object as JSON, and a page of which 1, 4, 12 or 30 of 40 lines
change. Every step of every stream is decoded again and compared byte for byte. Deterministic for one commit.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from ctxkit.compression.diff_history import DiffHistory, decoded, encoded
from ctxkit.models import resolve
from ctxkit.tokens import TemplateCounter

REPOSITORY = Path(__file__).resolve().parent.parent
STEPS = 20
REKEY_EVERY = 8
FILES = ("ctxkit/context/fit.py", "ctxkit/context/plan.py", "docs/fit.md", "README.md", "pyproject.toml")


# --- streams ----------------------------------------------------------------------------------------------------------


def page(changed: int) -> Iterator[str]:
    """A page in HTML with so many of its 40 lines changed at each step."""
    rng = random.Random(changed)
    prices = [rng.randint(100, 999) for _ in range(40)]
    for _ in range(STEPS):
        for row in rng.sample(range(40), changed):
            prices[row] = rng.randint(100, 999)
        cells = (f"<tr><td>order {row}</td><td>parcel</td><td>{price}</td></tr>" for row, price in enumerate(prices))
        yield "\n".join(cells)


def status(indent: int | None) -> Iterator[str]:
    """A cluster's state as JSON: a few values change, a job comes, a job goes."""
    rng = random.Random(7)
    nodes = [{"name": f"node-{n}", "state": "ready", "load": 0.5, "jobs": n} for n in range(16)]
    jobs = [{"id": n, "owner": "ana", "state": "queued"} for n in range(10)]
    for step in range(STEPS):
        for node in rng.sample(nodes, 2):
            node["load"] = round(rng.random(), 2)
        jobs[rng.randrange(len(jobs))]["state"] = rng.choice(["running", "failed", "done"])
        jobs = [*jobs[1:], {"id": 10 + step, "owner": rng.choice(["ana", "bo"]), "state": "queued"}]
        yield json.dumps({"step": step, "nodes": nodes, "jobs": jobs}, indent=indent)


def history(path: str) -> list[str]:
    """The last versions of a file of this repository, oldest first."""
    found = _git("log", f"-{STEPS}", "--format=%H", "--", path).split()
    return [_git("show", f"{commit}:{path}") for commit in reversed(found)]


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout


def program(command: list[str]) -> Iterator[str]:
    """What a program prints in a folder of modules and tests, one of which is edited before each run."""
    rng = random.Random(11)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in range(12):
            _written(folder / f"test_part_{n}.py", n, value=n)
        for _ in range(STEPS):
            _written(folder / f"test_part_{rng.randrange(12)}.py", rng.randrange(12), value=rng.randint(0, 999))
            run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "TZ": "UTC"})
            yield run.stdout


def _written(path: Path, n: int, value: int) -> None:
    """A test that fails for odd values; its time is set, so that listings are the same in every run."""
    lines = (f"    assert {value + k} % 2 == {k % 2}, 'part {n} is odd'\n" for k in range(3))
    path.write_text(f"def test_part_{n}():\n" + "".join(lines) + "# filler\n" * (value % 7))
    os.utime(path, (1_700_000_000 + value * 60, 1_700_000_000 + value * 60))


LISTING = [
    sys.executable,
    "-c",
    "import os, time\n"
    "for one in sorted(os.scandir('.'), key=lambda one: one.name):\n"
    "    if one.is_file():\n"
    "        stat = one.stat()\n"
    "        at = time.strftime('%b %d %H:%M', time.gmtime(stat.st_mtime))\n"
    "        print(f'-rw-r--r-- 1 ana staff {stat.st_size:6} {at} {one.name}')\n",
]
TESTS = [
    sys.executable,
    "-c",
    "import glob, traceback\n"
    "failed = 0\n"
    "for path in sorted(glob.glob('test_*.py')):\n"
    "    names = {}\n"
    "    exec(compile(open(path).read(), path, 'exec'), names)\n"
    "    for name in [one for one in names if one.startswith('test_')]:\n"
    "        try:\n"
    "            names[name]()\n"
    "            print(f'{path}::{name} PASSED')\n"
    "        except AssertionError:\n"
    "            failed += 1\n"
    "            print(f'{path}::{name} FAILED')\n"
    "            print(traceback.format_exc().strip())\n"
    "print(f'{failed} failed')\n",
]

STREAMS: dict[str, Callable[[], list[str]]] = {
    **{f"page, {n} of 40 lines": lambda n=n: list(page(n)) for n in (1, 4, 12, 30)},  # type: ignore[misc]
    "status, JSON on one line": lambda: list(status(None)),
    "status, indented JSON": lambda: list(status(2)),
    "folder listing": lambda: list(program(LISTING)),
    "test run": lambda: list(program(TESTS)),
    **{f"git: {path}": lambda path=path: history(path) for path in FILES},  # type: ignore[misc]
}


# --- measurement ------------------------------------------------------------------------------------------------------


def messages_of(stream: list[str], length: Callable[[str], int]) -> list[str]:
    """The stream through a DiffHistory, each message read again by another one."""
    sender, reader = DiffHistory(REKEY_EVERY, length), DiffHistory(REKEY_EVERY, length)
    messages = [sender.encode(observation) for observation in stream]
    if [reader.decode(message) for message in messages] != stream:
        raise SystemExit("a step was not given back byte for byte")
    return messages


def differences_of(stream: list[str], length: Callable[[str], int]) -> list[str]:
    """Every step but the first as its difference, also where that is the longer one."""
    made = [min(encoded(text, base, "the last one"), key=length) for base, text in pairwise(stream)]
    for (base, text), message in zip(pairwise(stream), made, strict=True):
        if decoded(message, {"the last one": base}) != text:
            raise SystemExit("a difference did not give its text back byte for byte")
    return [*stream[:1], *made]


def main() -> None:
    count = TemplateCounter.from_folder(resolve("smollm2-135m-instruct")).as_text().count
    print(f"tokens of SmolLM2; a whole one at least every {REKEY_EVERY} steps in `min`; every step decoded exactly\n")
    print(f"{'stream':30} {'steps':>5} {'full':>8} {'diff':>8} {'min':>8} {'full/diff':>9} {'full/min':>9}")
    for name, make in STREAMS.items():
        stream = make()
        sent = (stream, differences_of(stream, count), messages_of(stream, count))
        steps = [[count(message) for message in messages] for messages in sent]
        if any(least > whole for whole, _, least in zip(*steps, strict=True)):
            raise SystemExit(f"{name}: a message is longer than its observation")
        full, diff, least = map(sum, steps)
        print(f"{name:30} {len(stream):5} {full:8,} {diff:8,} {least:8,} {full / diff:8.1f}x {full / least:8.1f}x")


if __name__ == "__main__":
    main()
