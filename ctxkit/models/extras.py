"""What the optional dependencies of this layer are called, and the error where one is missing."""

from __future__ import annotations

import importlib.util

from ctxkit.errors import MissingExtra


def require_local(*packages: str) -> None:
    """Raises MissingExtra for the first of `packages` that is not installed. Imports nothing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "local")
