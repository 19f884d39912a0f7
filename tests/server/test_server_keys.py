"""Keys at rest as hashes, with names, and read again while the server runs."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from ctxkit.cli.keys import reload
from ctxkit.server import ServeOptions, Service
from ctxkit.server.keys import ApiKeys, lines_of, new_key
from ctxkit.server.problems import Problem
from ctxkit.testing import ScriptedModel
from tests.faulty import begins, faulty
from tests.server.running import RunningServer
from tests.server.test_server_process import processes  # noqa: F401 - a fixture

Start = Callable[[Service], RunningServer]
HI = {"messages": [{"role": "user", "content": "hello"}]}


def hashed(key: str) -> str:
    return f"sha256={hashlib.sha256(key.encode()).hexdigest()}"


def test_a_hash_lets_in_its_key_and_not_itself() -> None:
    keys = ApiKeys([hashed("alpha"), f"ann:{hashed('beta').upper().replace('SHA256', 'sha256')}"])
    assert keys.owner_of("Bearer alpha").startswith("key-") and keys.owner_of("Bearer beta") == "name-ann"
    for wrong in (hashed("alpha"), f"ann:{hashed('beta')}", hashed("alpha").removeprefix("sha256="), "ann", ""):
        with pytest.raises(Problem):
            keys.owner_of(f"Bearer {wrong}")


def test_the_owner_stays_when_a_key_is_hashed_and_when_a_named_key_is_changed() -> None:
    assert ApiKeys(["alpha"]).owner_of("Bearer alpha") == ApiKeys([hashed("alpha")]).owner_of("Bearer alpha")
    both = ApiKeys([f"ann:{hashed('old')}", f"ann:{hashed('new')}", f"bob:{hashed('other')}"])
    assert both.owner_of("Bearer old") == both.owner_of("Bearer new") != both.owner_of("Bearer other")


@pytest.mark.parametrize(
    "line",
    [
        "sha256=abc",
        "ann:sha256=" + "0" * 63,
        ":sha256=" + "0" * 64,
        "a b:sha256=" + "0" * 64,
        "ann:SHA256=" + "0" * 64,
        "",
        "  ",
    ],
)
def test_what_is_meant_to_be_a_hash_and_is_none_is_refused_without_being_shown(line: str) -> None:
    with pytest.raises(ValueError, match="API key") as refusal:
        ServeOptions(api_keys=("good", line))
    assert "0000" not in str(refusal.value) and "abc" not in str(refusal.value)


def test_a_file_may_have_remarks_and_must_have_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\n\n  plain:key \nann:" + hashed("beta") + "\n")
    assert lines_of(file) == ["plain:key", f"ann:{hashed('beta')}"]
    for text in ("", "# nothing\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match="no key"):
            lines_of(file)


def test_a_new_key_is_let_in_by_its_line_and_is_never_the_same() -> None:
    key, line = new_key("ann")
    assert ApiKeys([line]).owner_of(f"Bearer {key}") == "name-ann" and key not in line
    assert new_key("ann")[0] != key and ApiKeys([new_key()[1]])
    with pytest.raises(ValueError, match="name"):
        new_key("a/b")


def test_no_keys_are_not_taken_for_everybody() -> None:
    keys = ApiKeys(["alpha"])
    with pytest.raises(ValueError, match="everybody"):
        keys.replace([])
    assert len(keys) == 1


def test_keys_are_read_again_and_a_bad_file_changes_nothing(
    serve: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, begun, may_end = tmp_path / "keys", threading.Event(), threading.Event()

    def slow(request: object) -> str:
        begun.set()
        may_end.wait(30)
        return "done"

    service = Service({"m": ScriptedModel(slow)}, options=ServeOptions(api_keys=("old", "besides")))
    server = serve(service)

    def status(key: str) -> int:
        return httpx.get(f"{server.root}/v1/models", headers={"authorization": f"Bearer {key}"}).status_code

    answers: list[int] = []
    head = {"authorization": "Bearer old"}
    url = f"{server.root}/v1/chat/completions"
    asking = threading.Thread(target=lambda: answers.append(httpx.post(url, json=HI, headers=head).status_code))
    asking.start()
    assert begun.wait(30)
    file.write_text(f"ann:{hashed('new')}\n")
    reload(service.keys, file, ["besides"])
    assert [status(key) for key in ("old", "new", "besides")] == [401, 200, 200]
    may_end.set()
    asking.join()
    assert answers == [200], "who was let in is answered"
    with caplog.at_level(logging.ERROR, "ctxkit.cli.keys"):
        for text in ("", "new\nann:sha256=zz\n"):
            file.write_text(text)
            reload(service.keys, file, ["besides"])
        file.unlink()
        reload(service.keys, file, ["besides"])
    assert len(caplog.records) == 3 and [status(key) for key in ("old", "new")] == [401, 200]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_server_that_is_hung_up_on_reads_its_keys(
    processes: ModuleType,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    file = tmp_path / "keys"
    file.write_text("old\n")
    with faulty(begins("x"), models=[{"id": "m", "max_model_len": 3000}]) as upstream:
        given = ("--upstream", upstream.url, "--store", str(tmp_path / "s.db"), "--api-key-file", str(file))
        server = processes.serve(*given)
        file.write_text("new\n")
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while "read again: 1" not in server.log and time.monotonic() < until:
            time.sleep(0.02)
        found = [
            httpx.get(f"{server.url}/v1/models", headers={"authorization": f"Bearer {key}"}).status_code
            for key in ("old", "new")
        ]
        assert server.stop() == 0 and found == [401, 200], server.log
