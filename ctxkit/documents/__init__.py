"""Documents: files to read, their text with its structure, and chunks that remember where they stood."""

from ctxkit.documents.chunk import Chunk
from ctxkit.documents.chunker import Chunker
from ctxkit.documents.document import Document
from ctxkit.documents.load import load, source_name
from ctxkit.documents.walk import Skipped, discover

__all__ = ["Chunk", "Chunker", "Document", "Skipped", "discover", "load", "source_name"]
