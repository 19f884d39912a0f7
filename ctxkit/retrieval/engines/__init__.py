"""What searches the vectors of an index: one engine to a file, one face for all."""

from __future__ import annotations
