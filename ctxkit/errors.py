"""Every error that ctxkit raises on purpose.

    CtxkitError
    ├── PartError                a part, or the set of parts, is malformed
    ├── BudgetError              a budget contradicts itself
    ├── BudgetInfeasible         what must be in the prompt does not fit into the window
    ├── BudgetOverdrawn          a run has not got the tokens, calls or depth that were asked for
    ├── BudgetClosed             a run, or the reservation of a call, has ended already
    ├── PromptError              the model's chat template refuses the messages
    ├── DocumentError            a file cannot be read as a document
    ├── StoreError               an index, or a store of originals, cannot be opened, read or written
    │   ├── IndexNotFound        there is no index at that path
    │   ├── IndexMismatch        the index was made by another encoder or format
    │   └── IndexLocked          another process is writing
    └── ModelError               a model cannot be had, or failed
        ├── ModelNotFound        no such model here
        ├── ModelNotPrepared     known, but not yet converted into the cache
        ├── MemoryInsufficient   keys and values would need more memory than is allowed
        ├── PolicyError          a policy asks for what this model, or another policy beside it, cannot give
        └── RemoteError          an OpenAI-compatible server said no, or nothing
            ├── RemoteTimeout    no answer in time
            ├── RemoteUnavailable  connection refused, 429, 5xx
            ├── RemoteRejected   the request itself was refused (4xx)
            └── ContextTruncatedByServer  the server read fewer prompt tokens than it was sent

    DeviceUnavailable(CtxkitError)           the GPU that was asked for cannot be had
    MissingExtra(CtxkitError, ImportError)   an optional dependency is not installed

An error states what was wrong, with the value, and what to do next. `retryable` says whether the
same call can succeed later.
"""

from __future__ import annotations

from collections.abc import Mapping


class CtxkitError(Exception):
    """Base of every error raised by ctxkit."""

    retryable = False


class PartError(CtxkitError, ValueError):
    """A part, or the set of parts given to `fit`, is malformed."""


class BudgetError(CtxkitError, ValueError):
    """A budget contradicts itself, before any part is looked at."""


class BudgetInfeasible(CtxkitError):
    """What must be in the prompt does not fit.

    Attributes:
        minimum: the smallest `window_tokens` for which the same call succeeds.
        window_tokens: the window that was asked for.
        reserve_tokens: tokens kept free for the answer (included in `minimum`).
        by_part: tokens of each part that must be in, by part id, and of the template.
    """

    def __init__(
        self, message: str, *, minimum: int, window_tokens: int, reserve_tokens: int, by_part: Mapping[str, int]
    ) -> None:
        super().__init__(message)
        self.minimum = minimum
        self.window_tokens = window_tokens
        self.reserve_tokens = reserve_tokens
        self.by_part = dict(by_part)


class BudgetOverdrawn(CtxkitError):
    """A run has not got what was asked of it, or a call took more than it had.

    Attributes:
        run: the name of the run whose limit or grant said no.
        limit: which one: "tokens", "tokens_in", "tokens_out", "calls", "depth" or "window_tokens".
        needed: what was asked for, or taken, in units of `limit`.
        left: what could have been had.
    """

    def __init__(self, message: str, *, run: str, limit: str, needed: int, left: int) -> None:
        super().__init__(message)
        self.run = run
        self.limit = limit
        self.needed = needed
        self.left = left


class BudgetClosed(CtxkitError):
    """A run, or the reservation of one call, has ended: it is settled, cancelled or closed."""


class PromptError(CtxkitError, ValueError):
    """The model's chat template refuses these messages."""


class DocumentError(CtxkitError):
    """A file cannot be read as a document. `path` names it, the message is one line."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StoreError(CtxkitError):
    """An index, or the store of a session's originals, cannot be opened, read or written."""


class IndexNotFound(StoreError):
    """There is no index at that path."""


class IndexMismatch(StoreError):
    """The index on disk was made by another encoder or another format version."""


class IndexLocked(StoreError):
    """Another process is writing to the index."""

    retryable = True


class ModelError(CtxkitError):
    """A model cannot be had, or failed."""


class ModelNotFound(ModelError):
    """No model of that name can be had here."""


class ModelNotPrepared(ModelError):
    """The model is known but has not been converted into the cache folder yet."""


class MemoryInsufficient(ModelError):
    """Keys and values would need more memory than is allowed; computed before any of it is taken.

    Attributes:
        needed_bytes: what the call would have brought the pages to.
        allowed_bytes: the most that they may take.
    """

    retryable = True

    def __init__(self, message: str, *, needed_bytes: int, allowed_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.allowed_bytes = allowed_bytes


class PolicyError(ModelError, ValueError):
    """A policy asks for what this model, or another policy beside it, cannot give."""


class RemoteError(ModelError):
    """An OpenAI-compatible server answered with an error, or not at all.

    `status` is the HTTP status, `code` the server's own error code, where there was one.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class RemoteTimeout(RemoteError):
    """The server did not answer in time."""

    retryable = True


class RemoteUnavailable(RemoteError):
    """The server cannot be reached or is overloaded (connection refused, 429, 5xx)."""

    retryable = True


class RemoteRejected(RemoteError):
    """The server refused the request itself (4xx other than 429). `param` is the field that it named, if any."""

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.param = param


class ContextTruncatedByServer(RemoteError):
    """The server reports clearly fewer prompt tokens than it was sent: it has cut the prompt, and answered anyway.

    Attributes:
        planned_tokens: what the prompt has, by the model's counter.
        reported_tokens: what the server says it read, tokens from its cache included.
        window_tokens: the most that the server is known to read; plan with no more.
        reply: the answer to the cut prompt, a ctxkit.Reply.
    """

    def __init__(self, message: str, *, planned_tokens: int, reported_tokens: int, reply: object = None) -> None:
        super().__init__(message)
        self.planned_tokens = planned_tokens
        self.reported_tokens = reported_tokens
        self.window_tokens = reported_tokens
        self.reply = reply


class MissingExtra(CtxkitError, ImportError):
    """An optional dependency is not installed; the message names the install command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"`{package}` is needed for this and is not installed. "
            f"Install the extra from the checkout: pip install '.[{extra}]'"
        )
        self.package = package
        self.extra = extra


class DeviceUnavailable(CtxkitError):
    """The device that was asked for is not on this machine, or what was asked for cannot run on it."""
