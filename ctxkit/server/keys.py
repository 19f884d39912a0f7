"""API keys: who asks. Kept as hashes, compared in constant time, never logged; and read anew while a server runs."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ctxkit.server.problems import Problem

ANYBODY = "anybody"
"""Who asks where the server has no keys."""

_HASHED = re.compile(r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9_-]{0,57}):)?sha256=(?P<digest>[0-9a-fA-F]{64})")
_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Key:
    """name: "" where it has none."""

    digest: bytes
    name: str = ""


class ApiKeys:
    """The keys that are let in. `owner_of` names the key's owner, which is not the key.

    lines: each a key as it is sent, or `NAME:sha256=HEX`, the SHA-256 of one, where the name may be left out. Keys of
    one name have one owner, so that a key can be changed; a key without a name is its own owner, hashed or not.
    Raises ValueError.
    """

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._keys = tuple(map(_read, lines))

    def __len__(self) -> int:
        return len(self._keys)

    def replace(self, lines: Iterable[str]) -> None:
        """From now on these are let in, and no others. Raises ValueError where there are none, and changes nothing."""
        keys = tuple(map(_read, lines))
        if not keys:
            raise ValueError("there is no key, and without keys everybody would be let in")
        self._keys = keys

    def owner_of(self, authorization: str | None) -> str:
        """The owner's name, from an Authorization header. Raises Problem 401."""
        if not self._keys:
            return ANYBODY
        scheme, _, given = (authorization or "").partition(" ")
        digest = _sha256(given.strip()) if scheme.lower() == "bearer" else b""
        found = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]  # all: the time tells nothing
        if not found:
            told = "no API key was sent" if not authorization else "this API key is not known here"
            message = f"{told}; send the header `Authorization: Bearer KEY`"
            headers = {"www-authenticate": "Bearer"}
            raise Problem(401, message, code="invalid_api_key", headers=headers)
        return f"name-{found[0].name}" if found[0].name else _owner(given.strip())


def lines_of(path: Path) -> list[str]:
    """The keys of a file: its lines, but for empty ones and those that begin with "#".

    Raises OSError, and ValueError for a file without a key or with a line that is none.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{path} holds no key")
    ApiKeys(keys)
    return keys


def new_key(name: str = "") -> tuple[str, str]:
    """A key that nobody can guess, and the line of a file that lets it in. Raises ValueError for a wrong name."""
    key = f"ctxkit-{secrets.token_urlsafe(_BYTES)}"
    line = f"{name}:" * bool(name) + f"sha256={_sha256(key).hex()}"
    _read(line)
    return key, line


def _read(line: str) -> _Key:
    """The error tells nothing of the line: it may be a key."""
    line = line.strip()
    if not line:
        raise ValueError("an API key must not be empty")
    if hashed := _HASHED.fullmatch(line):
        return _Key(bytes.fromhex(hashed["digest"]), hashed["name"] or "")
    if "sha256=" in line.lower():  # what is meant to be a hash must not become a key
        raise ValueError(
            "a hashed API key is `NAME:sha256=` and 64 hexadecimal digits; the name has 1 to 58 letters, digits, "
            "dashes and underscores"
        )
    return _Key(_sha256(line))


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _owner(key: str) -> str:
    """Of a key without a name. Another hash than the one that lets it in: it stands in logs."""
    return "key-" + hashlib.sha256(b"ctxkit api key\x00" + key.encode()).hexdigest()[:16]
