"""The part of `meta` that every write changes."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field, fields

from ctxkit.errors import StoreError
from ctxkit.retrieval.storage.tables import META, database_of, put_meta, rows


@dataclass
class State:
    """Where an index stands.

    generation: committed writes so far.
    epoch: how often the coded vectors were changed; what a reader has mapped of them is good for one epoch.
    floor: the log of deletions is complete from this generation on.
    sums: of each table, the sum of its rows' CRC32.
    numbers: of each table that counts, the highest number that a row ever had.
    """

    generation: int = 0
    epoch: int = 0
    floor: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> State:
        """Raises StoreError where it is damaged."""
        found = list(rows(connection, META, "WHERE key = 'state'"))
        try:
            return cls(**json.loads(str(found[0][1])))
        except (IndexError, TypeError, ValueError) as error:
            raise StoreError(
                f"{database_of(connection)}: damaged: it holds no state. Index the folder again"
            ) from error

    def write(self, connection: sqlite3.Connection) -> None:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        put_meta(connection, [("state", json.dumps(values, sort_keys=True))])
