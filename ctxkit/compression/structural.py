"""StructuralCompressor: drops what a text of its kind can spare, found by its form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.sources.cut import Source, first_of
from ctxkit.compression.structure.text_level import read_text
from ctxkit.compression.text_compressor import TextCompressor, structure_reader
from ctxkit.context.level import LevelRequest


@dataclass(frozen=True)
class StructuralCompressor(TextCompressor):
    """Reduces each text by what it is: JSON, JSON lines, a table, code, a log, or plain text.

    JSON is minified, says repeated keys once, loses words of long strings and then is sampled; tables lose words of
    sentences and then rows, but for header, ends and matching ones; code keeps its skeleton; logs say what repeats
    once, first of all but what varies; and plain text keeps head and tail. Arguments of tool calls stay JSON of the
    same keys.

    lean: from 0 to 1, how much more the question counts for JSON than the place in an array.
    """

    lean: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lean <= 1:
            raise ValueError(f"`lean` must be in [0, 1], got {self.lean!r}")

    @property
    def name(self) -> str:
        return "structural"

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        read = first_of((structure_reader(self.lean), read_text))
        return [read(text, request) for text in texts]
