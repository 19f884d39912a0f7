"""WrappedEncoder: an encoder around another one."""

from __future__ import annotations

from collections.abc import Sequence

from ctxkit.protocols import Encoder


class WrappedEncoder:
    """Says of itself what the encoder inside says; what differs is overridden."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    @property
    def dims(self) -> int:
        return self._encoder.dims

    @property
    def multi_vector(self) -> bool:
        return self._encoder.multi_vector

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return self._encoder.count_batch(texts)
