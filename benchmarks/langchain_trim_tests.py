"""LangChain's own tests of `trim_messages`, run against LangChain's function and against ctxkit's.

    python benchmarks/langchain_trim_tests.py

Downloads the source of the installed langchain-core into a temporary folder (pip, network) and runs every
`test_trim_messages_*` of its `tests/unit_tests/messages/test_utils.py` twice, each time in a process of its own: as it
is, and with the name `trim_messages` in that module bound to `ctxkit_connectors.langchain.trim_messages`. Nothing of
LangChain's code is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = "tests/unit_tests/messages/test_utils.py"

# pytest imports the module, then collects from it: between the two the name is bound anew.
PLUGIN = """
import functools, pathlib, pytest

calls = 0

def pytest_pycollect_makemodule(module_path, parent):
    from ctxkit_connectors.langchain import trim_messages

    @functools.wraps(trim_messages)
    def counted(*args, **kwargs):
        global calls
        calls += 1
        return trim_messages(*args, **kwargs)

    module = pytest.Module.from_parent(parent, path=module_path)
    assert hasattr(module.obj, "trim_messages")
    module.obj.trim_messages = counted
    return module

def pytest_sessionfinish(session):
    pathlib.Path("calls.txt").write_text(str(calls))
"""


def downloaded(folder: Path) -> Path:
    """The file with the tests, out of the sdist of the installed version."""
    wanted = f"langchain-core=={version('langchain-core')}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps"]
    subprocess.run([*pip, "--dest", str(folder), wanted], check=True)
    archive = next(folder.glob("langchain_core-*.tar.gz"))
    with tarfile.open(archive) as source:
        member = next((one for one in source.getmembers() if one.name.endswith(f"/{TESTS}")), None)
        content = source.extractfile(member) if member is not None else None
        if content is None:
            raise SystemExit(f"the sdist of {wanted} holds no {TESTS}: nothing was compared")
        file = folder / "test_langchain_trim.py"
        file.write_bytes(content.read())
    return file


def outcomes(tests: Path, *, ours: bool) -> dict[str, str]:
    """Test name -> "passed" or the first line of its failure."""
    (tests.parent / "swapped_trim.py").write_text(PLUGIN, encoding="utf-8")
    report = tests.with_suffix(".xml")
    plugin = ["-p", "swapped_trim"] if ours else []
    command = [sys.executable, "-m", "pytest", str(tests), "-k", "test_trim_messages", "-q", f"--junitxml={report}"]
    paths = [str(tests.parent), str(REPOSITORY), str(REPOSITORY / "connectors")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run(
        [*command, *plugin, "-c", os.devnull, "--rootdir", str(tests.parent)],
        cwd=tests.parent,
        env=env,
        capture_output=True,
        check=False,
    )
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {case.get("name", "?"): _outcome(case) for case in cases}


def _outcome(case: ElementTree.Element) -> str:
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return f"{kind}: {(found.get('message') or '').splitlines()[0]:.80}"
    return "passed"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        tests = downloaded(Path(name))
        theirs, ours = outcomes(tests, ours=False), outcomes(tests, ours=True)
        calls = int((tests.parent / "calls.txt").read_text())
    width = max(map(len, theirs))
    print(f"{'langchain-core ' + version('langchain-core'):{width}}  LangChain  ctxkit")
    for test in theirs:
        print(f"{test:{width}}  {theirs[test]:9}  {ours.get(test, 'not run')}")
    totals = [sum(outcome == "passed" for outcome in run.values()) for run in (theirs, ours)]
    print(f"{'passed of ' + str(len(theirs)):{width}}  {totals[0]:<9}  {totals[1]}")
    print(f"The second run called ctxkit's function {calls} times.")


if __name__ == "__main__":
    main()
