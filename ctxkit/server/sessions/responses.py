"""ResponseStore: answers of /v1/responses, each with the one that it goes on from. Owners see only their own."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ctxkit.errors import CtxkitError
from ctxkit.server.sessions.database import Database, Row, Transaction, as_json

Item = Mapping[str, Any]

_SCHEMA = (
    # A tree is a first response and all that go on from it. Its row is what writers lock and the sweep looks at.
    "CREATE TABLE IF NOT EXISTS response_trees (owner TEXT, id TEXT, updated DOUBLE PRECISION NOT NULL,"
    " PRIMARY KEY (owner, id))",
    "CREATE TABLE IF NOT EXISTS responses (owner TEXT, id TEXT, tree TEXT NOT NULL, previous TEXT,"
    " created DOUBLE PRECISION NOT NULL, input TEXT NOT NULL, output TEXT NOT NULL, body TEXT NOT NULL,"
    " PRIMARY KEY (owner, id))",
    "CREATE INDEX IF NOT EXISTS responses_by_tree ON responses (owner, tree)",
)
_CHAIN = (
    "WITH RECURSIVE chain(id, previous, input, output, back) AS ("
    "SELECT id, previous, input, output, 0 FROM responses WHERE owner = ? AND id = ?"
    " UNION ALL SELECT one.id, one.previous, one.input, one.output, chain.back + 1"
    " FROM responses one JOIN chain ON one.id = chain.previous WHERE one.owner = ?)"
    " SELECT previous, input, output FROM chain ORDER BY back DESC"
)


class ResponseNotFound(CtxkitError):
    """There is no such response for this owner."""


class PreviousResponseNotFound(CtxkitError):
    """A request cannot go on from this response: it, or one before it, is not there for this owner."""


class ResponseStore:
    """Responses in a database. Each holds the items of its own request and its answer; what was said before is read
    from the responses that it goes on from, so that a long chain is stored once.

    What a call acknowledged is on disk; a call that raised changed nothing. Raises StoreError.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.writing() as transaction:
            for statement in _SCHEMA:
                transaction.execute(statement)

    def add(self, owner: str, response: Mapping[str, Any], items: Sequence[Item]) -> None:
        """A response as it was answered, and the items of its request.

        Raises PreviousResponseNotFound where the one it goes on from was deleted in the meantime.
        """
        name, previous, now = response["id"], response["previous_response_id"], time.time()
        body = {key: value for key, value in response.items() if key != "output"}
        with self.database.writing() as transaction:
            tree = self._grown(transaction, owner, name, previous, now)
            transaction.execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                owner,
                name,
                tree,
                previous,
                now,
                as_json(list(items)),
                as_json(response["output"]),
                as_json(body),
            )

    def get(self, owner: str, response: str) -> dict[str, Any]:
        """The response as it was answered. Raises ResponseNotFound."""
        with self.database.reading() as transaction:
            rows = transaction.execute(
                "SELECT body, output FROM responses WHERE owner = ? AND id = ?", owner, _plain(response)
            )
        if not rows:
            raise _unknown(response)
        body, output = rows[0]
        return {**json.loads(body), "output": json.loads(output)}

    def items(self, owner: str, response: str) -> list[dict[str, Any]]:
        """What the response answers: items of its request, behind those of the responses before it that are still
        there. Raises ResponseNotFound.
        """
        rows = self._chain(owner, response)
        if not rows:
            raise _unknown(response)
        _, own, _ = rows[-1]
        return [*_said(rows[:-1]), *json.loads(own)]

    def conversation(self, owner: str, response: str) -> list[dict[str, Any]]:
        """All items up to the end of the response, to go on from. Raises PreviousResponseNotFound, also where one
        before it was deleted: a conversation with a hole would be answered wrongly.
        """
        rows = self._chain(owner, response)
        if not rows:
            raise PreviousResponseNotFound(f"there is no response {response!r} to go on from")
        first, _, _ = rows[0]
        if first is not None:
            raise PreviousResponseNotFound(f"the response {response!r} goes on from {first!r}, which was deleted")
        return _said(rows)

    def delete(self, owner: str, response: str) -> None:
        """Forgets one response. Those that go on from it stay, and nobody can go on from them. Raises
        ResponseNotFound.
        """
        with self.database.writing() as transaction:
            tree = self._tree(transaction, owner, response)
            if tree is None:
                raise _unknown(response)
            transaction.execute("DELETE FROM responses WHERE owner = ? AND id = ?", owner, response)
            if not transaction.execute("SELECT id FROM responses WHERE owner = ? AND tree = ?", owner, tree):
                transaction.execute("DELETE FROM response_trees WHERE owner = ? AND id = ?", owner, tree)

    def delete_older(self, seconds: float) -> int:
        """Forgets responses of all owners where nobody went on for so long, whole trees; how many trees they were."""
        before = time.time() - seconds
        with self.database.writing() as transaction:
            rows = transaction.execute(
                "SELECT owner, id FROM response_trees WHERE updated < ?" + self.database.locking, before
            )
            for owner, tree in rows:
                transaction.execute("DELETE FROM responses WHERE owner = ? AND tree = ?", owner, tree)
                transaction.execute("DELETE FROM response_trees WHERE owner = ? AND id = ?", owner, tree)
        return len(rows)

    def _grown(self, transaction: Transaction, owner: str, name: str, previous: str | None, now: float) -> str:
        """The tree that a new response belongs to, written to now."""
        if previous is None:
            transaction.execute("INSERT INTO response_trees VALUES (?, ?, ?)", owner, name, now)
            return name
        tree = self._tree(transaction, owner, previous)
        if tree is None:
            raise PreviousResponseNotFound(f"the response {previous!r} was deleted before this answer was whole")
        transaction.execute("UPDATE response_trees SET updated = ? WHERE owner = ? AND id = ?", now, owner, tree)
        return tree

    def _tree(self, transaction: Transaction, owner: str, response: str) -> str | None:
        """The tree of a response, which no other writer has until the transaction ends."""
        rows = transaction.execute(
            "SELECT id FROM response_trees WHERE owner = ? AND id = (SELECT tree FROM responses WHERE owner = ?"
            " AND id = ?)" + self.database.locking,
            owner,
            owner,
            _plain(response),
        )
        return str(rows[0][0]) if rows else None

    def _chain(self, owner: str, response: str) -> list[Row]:
        """(previous, input, output) of the response and those before it, the first one first."""
        with self.database.reading() as transaction:
            return transaction.execute(_CHAIN, owner, _plain(response), owner)


def _said(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [item for _, asked, answered in rows for item in (*json.loads(asked), *json.loads(answered))]


def _unknown(response: str) -> ResponseNotFound:
    return ResponseNotFound(f"there is no response {response!r}")


def _plain(response: str) -> str:
    """An id as a database takes it: one with other characters is nobody's."""
    return response if response.isascii() and "\x00" not in response else ""
