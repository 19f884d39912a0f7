"""The lock of a store's writers within one process, and the thread that codes what writes left to be coded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ctxkit.errors import StoreError

_log = logging.getLogger(__name__)


class WriterLock:
    """One writer at a time. A second one is refused, but that it waits where the first is the coding thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: threading.Thread | None = None
        self._coder: threading.Thread | None = None

    @contextmanager
    def held(self, refusal: Callable[[], StoreError]) -> Iterator[None]:
        """Hold the lock. Raises what `refusal` makes where another writer has it."""
        me = threading.current_thread()
        while not self._lock.acquire(blocking=me is self._coder):
            holder, coder = self._holder, self._coder
            if holder is not None and holder is not coder:
                raise refusal()
            if coder is not None:
                coder.join()  # it ends by itself, and starts no other
        self._holder = me
        try:
            yield
        finally:
            self._holder = None
            self._lock.release()

    def code(self, work: Callable[[], None]) -> None:
        """Do `work`, which writes, in a thread of its own, unless one is at it. What fails is logged, and due again."""

        def run() -> None:
            try:
                work()
            except StoreError as error:
                _log.warning("coding in the background: %s", error)

        if self._coder is None or not self._coder.is_alive():
            self._coder = threading.Thread(target=run, name="ctxkit-coding", daemon=True)
            self._coder.start()

    def settled(self) -> None:
        """Wait until the coding thread is done."""
        if self._coder is not None and self._coder is not threading.current_thread():
            self._coder.join()
