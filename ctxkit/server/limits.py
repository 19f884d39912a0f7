"""RateLimits: how many requests a key may send in a minute, and how many tokens it may have read and written."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from ctxkit.protocols import Reply
from ctxkit.server.answering import Item, Piece
from ctxkit.server.chat_body import usage_of
from ctxkit.server.problems import Problem, too_many

Clock = Callable[[], float]
"""Seconds that only ever rise."""


class Bucket:
    """Holds a minute's worth, which flows in evenly. What turned out dearer than was thought is owed: below 0."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level, self._at = float(per_minute), clock()

    @property
    def level(self) -> float:
        now = self._clock()
        self._level = min(self._level + (now - self._at) * self.per_minute / 60, self.per_minute)
        self._at = now
        return self._level

    def take(self, amount: float) -> None:
        """Less than 0 gives back."""
        self._level = min(self.level - amount, self.per_minute)

    def seconds_until(self, amount: float) -> float:
        """Until it holds so much; 0 where it does."""
        return max(amount - self.level, 0) * 60 / self.per_minute


class RateLimits:
    """Of each owner on its own, by token buckets. For one event loop of one process, which shares them with no other.

    requests_per_minute, tokens_per_minute: None is without limit. clock: seconds, for tests.
    """

    def __init__(
        self, requests_per_minute: int | None, tokens_per_minute: int | None, clock: Clock = time.monotonic
    ) -> None:
        self.per_minute = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def request(self, owner: str) -> None:
        """Takes a request. Raises Problem 429 where there is none left, or tokens are owed."""
        requests, tokens = self._bucket(owner, "requests"), self._bucket(owner, "tokens")
        if requests is not None and requests.level < 1:
            raise _refused("requests", requests, requests.seconds_until(1))
        if tokens is not None and tokens.level < 0:
            raise _refused("tokens", tokens, tokens.seconds_until(0))
        if requests is not None:
            requests.take(1)

    def charge(self, owner: str, tokens: int) -> None:
        """Takes tokens that were used already."""
        if (bucket := self._bucket(owner, "tokens")) is not None:
            bucket.take(tokens)

    async def metered(
        self, owner: str, prompt_tokens: int, answer_tokens: int, items: AsyncGenerator[Item]
    ) -> AsyncGenerator[Item]:
        """Answers whose tokens are taken: beforehand what is planned and may be written at most, at their end what the
        model saw and wrote. A failure before the first piece costs nothing.

        Raises Problem 429 where the tokens are not there.
        """
        planned, meter = prompt_tokens + answer_tokens, _Meter(prompt_tokens)
        self._reserve(owner, planned)
        try:
            async with aclosing(items) as each:
                async for at, item in each:
                    meter.note(at, item)
                    yield at, item
        except Exception:
            meter.failed = True
            raise
        finally:
            self.charge(owner, meter.used - planned)

    def headers(self, owner: str | None) -> dict[str, str]:
        """What is left, as OpenAI says it: `x-ratelimit-limit-requests` and so on. None without limits or owner."""
        found: dict[str, str] = {}
        for kind in self.per_minute:
            bucket = None if owner is None else self._bucket(owner, kind)
            if bucket is not None:
                found[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
                found[f"x-ratelimit-remaining-{kind}"] = str(max(math.floor(bucket.level), 0))
                found[f"x-ratelimit-reset-{kind}"] = duration(bucket.seconds_until(bucket.per_minute))
        return found

    def _reserve(self, owner: str, tokens: int) -> None:
        bucket = self._bucket(owner, "tokens")
        if bucket is None:
            return
        if tokens > bucket.per_minute:
            told = f"the request may take {tokens:,} tokens, answer included, of {bucket.per_minute:,} a minute"
            headers = {"x-should-retry": "false"}
            message = f"{told}; shorten it, or lower `max_tokens`"
            raise Problem(429, message, type="rate_limit_error", code="rate_limit_exceeded", headers=headers)
        if tokens > bucket.level:
            raise _refused("tokens", bucket, bucket.seconds_until(tokens))
        bucket.take(tokens)

    def _bucket(self, owner: str, kind: str) -> Bucket | None:
        limit = self.per_minute[kind]
        if limit is None:
            return None
        if (owner, kind) not in self._buckets:
            self._buckets[owner, kind] = Bucket(limit, self._clock)
        return self._buckets[owner, kind]


class _Meter:
    """What answers have used so far: those that ended by their own count, of the others a token for each piece."""

    def __init__(self, prompt_tokens: int) -> None:
        self.failed = False
        self._prompt_tokens = prompt_tokens
        self._pieces: Counter[int] = Counter()
        self._replies: list[Reply] = []

    def note(self, at: int, item: Piece | Reply) -> None:
        if isinstance(item, Piece):
            self._pieces[at] += 1
        else:
            self._replies.append(item)
            del self._pieces[at]

    @property
    def used(self) -> int:
        if self.failed and not self._pieces and not self._replies:
            return 0
        prompt = 0 if self._replies else self._prompt_tokens
        return int(usage_of(self._replies)["total_tokens"]) + prompt + self._pieces.total()


def duration(seconds: float) -> str:
    """As OpenAI writes it.

    >>> duration(0.25), duration(1.5), duration(360)
    ('250ms', '1.5s', '6m0s')
    """
    milliseconds = math.ceil(round(seconds * 1000, 3))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds / 1000, 60)
    return (f"{minutes:.0f}m" if minutes else "") + f"{rest:g}s"


def _refused(kind: str, bucket: Bucket, seconds: float) -> Problem:
    wait = max(math.ceil(seconds), 1)
    return too_many(f"the limit of {bucket.per_minute:,} {kind} a minute is reached; try again in {wait:,} s", wait)
