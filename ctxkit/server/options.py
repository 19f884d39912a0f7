"""What the person who starts a server decides."""

from __future__ import annotations

from dataclasses import dataclass

from ctxkit.context.labels import Label
from ctxkit.server.keys import ApiKeys
from ctxkit.server.labels import Untrusted


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """api_keys: who may ask, as `ApiKeys` reads them; with none, everybody who can reach the port.
    answer_tokens: of an answer whose request does not say; at most a quarter of the window.
    passages: hits offered to the budget where there is an index.
    max_running, max_waiting: requests answered at the same time, and waiting for their turn; more get 429.
    max_waiting_per_key: of one key. timeout_seconds: for a whole request, waiting included.
    max_body_bytes: of a request. metrics: serve /metrics.
    keep_sessions_days: sessions, and responses, that nobody went on with for so long are forgotten; None keeps them.
    requests_per_minute, tokens_per_minute: of one key; None is without limit.
    untrusted: what is done with tool calls behind untrusted text; a request may ask for more than that, never for less.
    index_label: of the passages of the server's index whose document does not say whether it is trusted.
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
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    untrusted: Untrusted = "flag"
    index_label: str = "untrusted"

    def __post_init__(self) -> None:
        for name in ("answer_tokens", "passages", "max_running", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)!r}")
        for name in ("requests_per_minute", "tokens_per_minute"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise ValueError(f"`{name}` must be at least 1 or None, got {limit!r}")
        if self.max_waiting < 0 or self.max_waiting_per_key < 0 or self.timeout_seconds <= 0:
            raise ValueError("`max_waiting` and `max_waiting_per_key` must be 0 or more, `timeout_seconds` above 0")
        ApiKeys(self.api_keys)
        Label.parse(self.index_label)

    def __repr__(self) -> str:
        return f"ServeOptions({len(self.api_keys)} API keys, max_running={self.max_running})"
