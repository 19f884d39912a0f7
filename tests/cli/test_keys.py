"""`ctxkit keys`: the line goes into a file, the key is shown once and elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctxkit.server.keys import ApiKeys


def test_the_command_prints_the_line_and_tells_the_key_apart(ctxkit: Callable[..., Any]) -> None:
    made = ctxkit("keys", "new", "ann")
    assert made.code == 0 and ApiKeys([made.out]).owner_of(f"Bearer {made.err.strip()}") == "name-ann"
    assert ctxkit("keys", "new", "a b").code == 2
