"""Scope: what a `with` block ends."""

from __future__ import annotations

from typing import Self


class Scope:
    """Something that `with`, `async with` or `close()` ends; closing again does nothing, and closing never waits."""

    __slots__ = ()

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()
