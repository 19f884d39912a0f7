"""TreeLock: the lock of one tree of runs, which finalisers may meet locked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TreeLock:
    """The lock of one tree of runs.

    Python may run a finaliser (a dropped generator that held a ticket) anywhere, so also inside the locked section and
    in the same thread. What a finaliser does is `do`: there it waits until the section is over, instead of for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner = 0
        self._later: deque[Callable[[], object]] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *exc_info: object) -> None:
        while self._later:
            self._later.popleft()()
        self._owner = 0
        self._lock.release()

    def do(self, action: Callable[[], T]) -> T | None:
        """`action()` under the lock. None, and later, when this thread is inside the locked section already."""
        if self._owner == threading.get_ident():
            self._later.append(action)
            return None
        with self:
            return action()
