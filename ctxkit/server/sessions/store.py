"""SessionStore: who said what in which session. Every owner sees his own sessions, and no other exists for him."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ctxkit.errors import CtxkitError
from ctxkit.protocols import ChatMessage
from ctxkit.server.sessions.database import Database, Transaction, as_json

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sessions (owner TEXT, id TEXT, created DOUBLE PRECISION NOT NULL,"
    " updated DOUBLE PRECISION NOT NULL, length BIGINT NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (owner, id))",
    "CREATE TABLE IF NOT EXISTS messages (owner TEXT, session TEXT, position BIGINT, message TEXT NOT NULL,"
    " PRIMARY KEY (owner, session, position))",
    "CREATE TABLE IF NOT EXISTS originals (owner TEXT, session TEXT, key TEXT, text TEXT NOT NULL,"
    " PRIMARY KEY (owner, session, key))",
)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class SessionNotFound(CtxkitError):
    """There is no such session for this owner."""


class SessionConflict(CtxkitError):
    """The session is not as long as the writer thought: somebody else wrote, or it exists already."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session without its messages. created, updated: seconds since 1970. length: its messages."""

    id: str
    created: float
    updated: float
    length: int
    metadata: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return {"object": "session", **asdict(self)}


class SessionStore:
    """Sessions in a database. What a call acknowledged is on disk; a call that raised changed nothing.

    Raises SessionNotFound, SessionConflict, StoreError, and ValueError for a name that is none.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.writing() as transaction:
            for statement in _SCHEMA:
                transaction.execute(statement)

    def create(
        self,
        owner: str,
        session: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        messages: Sequence[ChatMessage] = (),
    ) -> SessionRow:
        """A session with these messages, or none at all; under a name of its own where none is given."""
        name, now = _checked(session or uuid.uuid4().hex), time.time()
        with self.database.writing() as transaction:
            if _row(transaction, owner, name) is not None:
                raise SessionConflict(f"there is a session {name!r} already")
            transaction.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
                owner,
                name,
                now,
                now,
                len(messages),
                as_json(dict(metadata or {})),
            )
            _insert(transaction, owner, name, 0, messages)
        return SessionRow(name, now, now, len(messages), dict(metadata or {}))

    def get(self, owner: str, session: str) -> SessionRow:
        with self.database.reading() as transaction:
            return _known(transaction, owner, session)

    def sessions(self, owner: str) -> list[SessionRow]:
        """The owner's, the one written to last first."""
        with self.database.reading() as transaction:
            rows = transaction.execute(
                "SELECT id, created, updated, length, metadata FROM sessions WHERE owner = ? ORDER BY updated DESC, id",
                owner,
            )
        return [_session(row) for row in rows]

    def messages(self, owner: str, session: str, start: int = 0) -> list[dict[str, Any]]:
        """From position `start` on."""
        with self.database.reading() as transaction:
            _known(transaction, owner, session)
            rows = transaction.execute(
                "SELECT message FROM messages WHERE owner = ? AND session = ? AND position >= ? ORDER BY position",
                owner,
                session,
                start,
            )
        return [json.loads(text) for (text,) in rows]

    def append(
        self, owner: str, session: str, messages: Sequence[ChatMessage], *, length: int | None = None
    ) -> SessionRow:
        """All of the messages, or none. length: refuse with SessionConflict unless the session is so long."""
        with self.database.writing() as transaction:
            row = _known(transaction, owner, session, self.database.locking)
            if length is not None and row.length != length:
                raise SessionConflict(f"the session has {row.length:,} messages, not {length:,}: somebody else wrote")
            _insert(transaction, owner, session, row.length, messages)
            now = time.time()
            transaction.execute(
                "UPDATE sessions SET length = ?, updated = ? WHERE owner = ? AND id = ?",
                row.length + len(messages),
                now,
                owner,
                session,
            )
        return SessionRow(row.id, row.created, now, row.length + len(messages), row.metadata)

    def fork(self, owner: str, session: str, *, length: int | None = None) -> SessionRow:
        """A new session with the first `length` messages of this one, all by default, and its originals."""
        name, now = uuid.uuid4().hex, time.time()
        with self.database.writing() as transaction:
            row = _known(transaction, owner, session)
            kept = row.length if length is None else min(length, row.length)
            transaction.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", owner, name, now, now, kept, as_json(row.metadata)
            )
            transaction.execute(
                "INSERT INTO messages SELECT owner, CAST(? AS TEXT), position, message FROM messages"
                " WHERE owner = ? AND session = ? AND position < ?",
                name,
                owner,
                session,
                kept,
            )
            transaction.execute(
                "INSERT INTO originals SELECT owner, CAST(? AS TEXT), key, text FROM originals"
                " WHERE owner = ? AND session = ?",
                name,
                owner,
                session,
            )
        return SessionRow(name, now, now, kept, row.metadata)

    def delete(self, owner: str, session: str) -> None:
        with self.database.writing() as transaction:
            _known(transaction, owner, session, self.database.locking)
            _forget(transaction, owner, [session])

    def delete_older(self, seconds: float) -> int:
        """Forgets sessions of all owners that nobody wrote to for so long; how many they were."""
        with self.database.writing() as transaction:
            rows = transaction.execute(
                "SELECT owner, id FROM sessions WHERE updated < ?" + self.database.locking, time.time() - seconds
            )
            for owner, session in rows:
                _forget(transaction, owner, [session])
        return len(rows)

    def originals(self, owner: str, session: str) -> SessionOriginals:
        """Where a session's reduced texts are kept."""
        return SessionOriginals(self.database, owner, session)


class SessionOriginals:
    """`ctxkit.session.Originals` of one session."""

    def __init__(self, database: Database, owner: str, session: str) -> None:
        self._database = database
        self._of = (owner, session)

    def put(self, key: str, text: str) -> None:
        with self._database.writing() as transaction:
            transaction.execute(
                "INSERT INTO originals VALUES (?, ?, ?, ?) ON CONFLICT (owner, session, key)"
                " DO UPDATE SET text = excluded.text",
                *self._of,
                key,
                as_json(text),
            )

    def get(self, key: str) -> str | None:
        with self._database.reading() as transaction:
            rows = transaction.execute(
                "SELECT text FROM originals WHERE owner = ? AND session = ? AND key = ?", *self._of, key
            )
        return json.loads(rows[0][0]) if rows else None

    def keys(self, prefix: str = "") -> tuple[str, ...]:
        with self._database.reading() as transaction:
            rows = transaction.execute("SELECT key FROM originals WHERE owner = ? AND session = ?", *self._of)
        return tuple(sorted(key for (key,) in rows if key.startswith(prefix)))


def _insert(transaction: Transaction, owner: str, session: str, start: int, messages: Iterable[ChatMessage]) -> None:
    for position, message in enumerate(messages, start):
        transaction.execute(
            "INSERT INTO messages VALUES (?, ?, ?, ?)", owner, session, position, as_json(dict(message))
        )


def _forget(transaction: Transaction, owner: str, sessions: Iterable[str]) -> None:
    for session in sessions:
        for table, column in (("originals", "session"), ("messages", "session"), ("sessions", "id")):
            transaction.execute(f"DELETE FROM {table} WHERE owner = ? AND {column} = ?", owner, session)


def _row(transaction: Transaction, owner: str, session: str, locking: str = "") -> SessionRow | None:
    rows = transaction.execute(
        "SELECT id, created, updated, length, metadata FROM sessions WHERE owner = ? AND id = ?" + locking,
        owner,
        session,
    )
    return _session(rows[0]) if rows else None


def _known(transaction: Transaction, owner: str, session: str, locking: str = "") -> SessionRow:
    row = _row(transaction, owner, session, locking)
    if row is None:
        raise SessionNotFound(f"there is no session {session!r}")
    return row


def _session(row: tuple[Any, ...]) -> SessionRow:
    name, created, updated, length, metadata = row
    return SessionRow(name, created, updated, length, json.loads(metadata))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a session's name has 1 to 128 letters, digits, dots, dashes and underscores, got {name!r}")
    return name
