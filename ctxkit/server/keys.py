"""API keys: who asks. Keys are hashed when the server starts; compared in constant time; never logged."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from ctxkit.server.problems import Problem

ANYBODY = "anybody"
"""Who asks where the server has no keys."""


class ApiKeys:
    """The keys that are let in. `owner_of` names the key's owner, which is not the key."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __len__(self) -> int:
        return len(self._digests)

    def owner_of(self, authorization: str | None) -> str:
        """The owner's name, from an Authorization header. Raises Problem 401."""
        if not self._digests:
            return ANYBODY
        scheme, _, given = (authorization or "").partition(" ")
        digest = _digest(given.strip()) if scheme.lower() == "bearer" else b""
        known = [hmac.compare_digest(digest, one) for one in self._digests]  # all of them: the time tells nothing
        if not any(known):
            told = "no API key was sent" if not authorization else "this API key is not known here"
            message = f"{told}; send the header `Authorization: Bearer KEY`"
            headers = {"www-authenticate": "Bearer"}
            raise Problem(401, message, code="invalid_api_key", headers=headers)
        return f"key-{digest.hex()[:16]}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(b"ctxkit api key\x00" + key.encode()).digest()
