"""The embedded compressor: a small head on the packaged encoder that knows which words carry facts."""

from __future__ import annotations

from ctxkit.compression.facts.compressor import FactWords
from ctxkit.compression.facts.head import KeepHead

__all__ = ["FactWords", "KeepHead"]
