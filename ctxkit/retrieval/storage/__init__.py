"""How an index lies on disk: a sqlite database that commits, and files of arrays that never change."""

from __future__ import annotations
