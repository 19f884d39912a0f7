"""The `ctxkit` command: one verb per module, results on stdout, everything else on stderr."""

from ctxkit.cli.app import app, main

__all__ = ["app", "main"]
