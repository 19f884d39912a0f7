"""kill -9 of a loaded `ctxkit serve`, again and again: what it acknowledged must be there, and nothing by half.

    PYTHONPATH=.:kernels python benchmarks/server/kill.py --kills 200

A real server on an sqlite store and a folder of indexes, in front of a scripted upstream. Clients append pairs of
messages, have turns of chat answered, whole and streamed, go on from stored answers, and index pairs of documents, each
client in a session and each round in an index of its own. At a random moment the server is killed, and started anew.
Then, of every request: acknowledged, both messages, both documents, question and answer are there; else both or none.
At the end all rounds are looked at again.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from processes import Process, serve, upstream

from ctxkit.retrieval import HashingEncoder, Index

CLIENTS = 6
KINDS = ("append", "chat", "index", "respond")


@dataclass
class Write:
    """kind: one of KINDS. name: stands in both of its halves. where: the session, the index, or the stored answer; ""
    of an answer whose first event never came.
    """

    kind: str
    name: str
    where: str
    acknowledged: bool = False


class Client(threading.Thread):
    """Writes until the server is gone."""

    def __init__(self, url: str, name: str, index: str, drawn: random.Random) -> None:
        super().__init__(daemon=True)
        self.web = httpx.Client(base_url=url, timeout=60)
        self.name, self.index, self.drawn = name, index, drawn
        self.writes: list[Write] = []
        self.wrong: list[str] = []
        self.latest: str | None = None  # the stored answer to go on from

    def run(self) -> None:
        try:
            self._ok(self.web.post("/v1/sessions", json={"id": self.name}))
            while True:
                kind = self.drawn.choice(KINDS)
                where = {"index": self.index, "respond": ""}.get(kind, self.name)
                one = Write(kind, f"{self.name}n{len(self.writes)}", where)
                self.writes.append(one)
                self._ok(getattr(self, f"_{kind}")(one.name))
                one.acknowledged = True
        except httpx.TransportError:
            pass  # it was killed
        finally:
            self.web.close()

    def _ok(self, answer: httpx.Response) -> None:
        if not answer.is_success or '"error"' in answer.text:
            self.wrong.append(f"{answer.status_code} {answer.text[-300:]}")
            raise httpx.TransportError("refused")

    def _append(self, name: str) -> httpx.Response:
        both = [{"role": "user", "content": f"{name} 2 {half}"} for half in ("first", "second")]
        return self.web.post(f"/v1/sessions/{self.name}/messages", json={"messages": both})

    def _chat(self, name: str) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": f"{name} 2"}], "stream": self.drawn.random() < 0.5}
        answer = self.web.post("/v1/chat/completions", json={**body, "ctxkit": {"session": self.name, "index": False}})
        if body["stream"] and "[DONE]" not in answer.text:
            raise httpx.ReadError("the stream was cut")
        return answer

    def _index(self, name: str) -> httpx.Response:
        both = [{"source": f"{name}{half}.txt", "text": f"the word {name} is here"} for half in "ab"]
        return self.web.post(f"/v1/index/{self.index}/documents", json={"documents": both})

    def _respond(self, name: str) -> httpx.Response:
        """Streamed, so that an answer that is cut is known by its id too."""
        body = {"input": f"{name} 2", "stream": True, "previous_response_id": self.latest, "ctxkit": {"index": False}}
        kind = ""
        with self.web.stream("POST", "/v1/responses", json=body) as answer:
            for line in filter(lambda one: one.startswith("data: "), answer.iter_lines()):
                event = json.loads(line.removeprefix("data: "))
                kind = event["type"]
                if kind == "response.created":
                    self.writes[-1].where = event["response"]["id"]
        if kind == "error" or not answer.is_success:
            return httpx.Response(500, text=f"the answer ended in {answer.status_code} {kind}")
        if kind != "response.completed":
            raise httpx.ReadError("the stream was cut")
        self.latest = self.writes[-1].where
        return httpx.Response(200)


def faults(web: httpx.Client, writes: list[Write]) -> list[str]:
    """What is not as it must be."""
    said: dict[str, list[dict[str, Any]]] = {}
    found: list[str] = []
    for one in writes:
        if one.kind == "index":
            halves = _indexed(web, one)
        elif one.kind == "respond":
            halves = _responded(web, one)
        else:
            if one.where not in said:
                answer = web.get(f"/v1/sessions/{one.where}")
                said[one.where] = answer.json()["messages"] if answer.is_success else []
            halves = sum(one.name in _words(message) for message in said[one.where])
        if halves not in ((2,) if one.acknowledged else (0, 2)):
            found.append(f"{one}: {halves} of 2 are there")
    return found


def _words(message: dict[str, Any]) -> set[str]:
    """The answer to `NAME 2` is `NAME:0 NAME:1 `."""
    return set(str(message["content"]).replace(":", " ").split())


def _indexed(web: httpx.Client, one: Write) -> int:
    answer = web.post(f"/v1/index/{one.where}/search", json={"query": one.name, "k": 10, "mode": "lexical"})
    if answer.status_code == 404:
        return 0
    answer.raise_for_status()
    return sum(one.name in hit["chunk"]["text"].split() for hit in answer.json()["data"])


def _responded(web: httpx.Client, one: Write) -> int:
    answer = web.get(f"/v1/responses/{one.where}") if one.where else None
    if answer is None or answer.status_code == 404:
        return 0
    asked = web.get(f"/v1/responses/{one.where}/input_items", params={"limit": 1}).raise_for_status().json()["data"]
    said = answer.raise_for_status().json()["output"]
    return sum(one.name in _words({"content": item["content"][0]["text"]}) for item in (*asked, *said))


class Trial:
    """kills: how often. Everything is below `folder`."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.drawn = random.Random(seed)
        self.kills, self.folder = kills, folder
        self.writes: list[Write] = []
        self.faults: list[str] = []
        Index.open(folder / "encoder", encoder=HashingEncoder(), create=True).close()  # says which encoder to take

    def run(self) -> None:
        with upstream(1.0) as behind:
            server = self._started(behind)
            for number in range(self.kills):
                written = self._round(server, number)
                server = self._started(behind)
                self._look(server, written)
                self.writes += written
                if (number + 1) % 10 == 0:
                    print(f"{number + 1} kills, {len(self.writes)} writes, {len(self.faults)} faults", flush=True)
            self._look(server, self.writes)
            server.stop()

    def _started(self, behind: Process) -> Process:
        stores = ["--store", f"{self.folder}/sessions.db", "--indexes", f"{self.folder}/own"]
        return serve(
            "scripted",
            "--upstream",
            f"{behind.url}/v1",
            "--window",
            "4096",
            *stores,
            "--index",
            f"{self.folder}/encoder",
        )

    def _round(self, server: Process, number: int) -> list[Write]:
        clients = [
            Client(server.url, f"r{number}c{at}", f"r{number}", random.Random(self.drawn.random()))
            for at in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        time.sleep(self.drawn.uniform(0.05, 1.5))
        server.kill()
        for client in clients:
            client.join()
            self.faults += client.wrong
        return [write for client in clients for write in client.writes]

    def _look(self, server: Process, writes: list[Write]) -> None:
        with httpx.Client(base_url=server.url, timeout=60) as web:
            self.faults += faults(web, writes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder), given.kills, given.seed)
        trial.run()
    kinds = {kind: [one.acknowledged for one in trial.writes if one.kind == kind] for kind in KINDS}
    told = ", ".join(f"{kind} {sum(acked)} of {len(acked)} acknowledged" for kind, acked in kinds.items())
    print(f"{given.kills} kills; {told}; {len(trial.faults)} faults")
    for fault in trial.faults[:20]:
        print("fault:", fault)
    raise SystemExit(bool(trial.faults))


if __name__ == "__main__":
    main()
