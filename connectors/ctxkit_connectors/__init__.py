"""Connectors: ctxkit behind the interfaces of other frameworks. Empty today."""
