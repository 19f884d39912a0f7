"""What is noted of a request while it is answered, for its line in the log: numbers and names, never content."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ctxkit.protocols import Reply

_SAFE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass
class Noted:
    """owner: the hashed name of who asks. reduced, dropped: messages that were shortened, and left out.

    error: the code of the problem that the request ended with, also where its stream had begun.
    """

    request_id: str
    owner: str | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reduced: int = 0
    dropped: int = 0
    error: str | None = None

    def fitted(self, report: Mapping[str, Any]) -> None:
        """report: `x_ctxkit` of the answer."""
        self.reduced = len(report["reduced"])
        self.dropped = len(report["dropped"]) + report["dropped_more"]

    def answered(self, reply: Reply) -> None:
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens


# Tasks and threads copy the variable and share what it holds: each may note something.
_current: ContextVar[Noted | None] = ContextVar("ctxkit_noted", default=None)


def noted() -> Noted:
    """Of the request that is being answered here; outside of one, what is noted is forgotten."""
    return _current.get() or Noted("")


def request_id() -> str | None:
    """Of the request that is being answered here."""
    found = _current.get()
    return None if found is None else found.request_id


@contextmanager
def noting(given: str | None) -> Iterator[Noted]:
    """While the block runs, `noted()` is of one request. given: the id that its client sent; kept if it is 1 to 128
    letters, digits, dots, colons, dashes and underscores, else a new one is made."""
    kept = given if given is not None and _SAFE.fullmatch(given) else f"req_{uuid.uuid4().hex}"
    token = _current.set(Noted(kept))
    try:
        yield noted()
    finally:
        _current.reset(token)
