"""Documents: files to read, their text with its structure, and chunks that remember where they stood."""

from .chunk import Chunk
from .chunker import Chunker
from .document import Document
from .load import load
from .walk import Skipped, discover

__all__ = ["Chunk", "Chunker", "Document", "Skipped", "discover", "load"]
