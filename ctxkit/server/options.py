"""What the person who starts a server decides."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """api_keys: who may ask; with none, everybody who can reach the port.
    answer_tokens: of an answer whose request does not say; at most a quarter of the window.
    passages: hits offered to the budget where there is an index.
    max_running, max_waiting: requests answered at the same time, and waiting for their turn; more get 429.
    max_waiting_per_key: of one key. timeout_seconds: for a whole request, waiting included.
    max_body_bytes: of a request. metrics: serve /metrics.
    keep_sessions_days: sessions, and responses, that nobody went on with for so long are forgotten; None keeps them.
    cors_origins: pages of other origins that may ask; none by default.
    """

    api_keys: tuple[str, ...] = ()
    answer_tokens: int = 512
    passages: int = 40
    max_running: int = 16
    max_waiting: int = 256
    max_waiting_per_key: int = 64
    timeout_seconds: float = 600.0
    max_body_bytes: int = 32_000_000
    metrics: bool = True
    cors_origins: tuple[str, ...] = ()
    keep_sessions_days: float | None = None

    def __post_init__(self) -> None:
        for name in ("answer_tokens", "passages", "max_running", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")
        if self.max_waiting < 0 or self.max_waiting_per_key < 0 or self.timeout_seconds <= 0:
            raise ValueError("`max_waiting` and `max_waiting_per_key` must be 0 or more, `timeout_seconds` above 0")
        if any(not key.strip() for key in self.api_keys):
            raise ValueError("an API key must not be empty")

    def __repr__(self) -> str:
        return f"ServeOptions({len(self.api_keys)} API keys, max_running={self.max_running})"
