"""Recorder: keeps the events of a run and hands them on as they come."""

from __future__ import annotations

import time
from collections.abc import Callable

from ctxkit_agents.runtime.events import Event, Tokens


class Recorder:
    """listener: called with each event, in the thread of the run.

    tokens: the listener wants pieces of answers too. They are not kept: the message that they become is.
    """

    def __init__(self, listener: Callable[[Event], None] | None = None, *, tokens: bool = False) -> None:
        self.events: list[Event] = []
        self.wants_tokens = tokens and listener is not None
        self._listener = listener
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._began

    def add(self, event: Event) -> None:
        if not isinstance(event, Tokens):
            self.events.append(event)
        if self._listener is not None:
            self._listener(event)
