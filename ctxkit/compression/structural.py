"""StructuralCompressor: drops what a text of its kind can spare, found by its form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ctxkit.compression.code_level import read_code
from ctxkit.compression.counted import TotalCounter
from ctxkit.compression.cut import first_of
from ctxkit.compression.json_level import json_reader
from ctxkit.compression.ladder import Ladder
from ctxkit.compression.log_level import read_log
from ctxkit.compression.table_level import read_delimited, read_json_lines, read_markdown_table
from ctxkit.compression.text_level import read_text
from ctxkit.context.group import Group
from ctxkit.context.level import Level, LevelRequest


@dataclass(frozen=True)
class StructuralCompressor:
    """Reduces each text by what it is: JSON, JSON lines, a table, code, a log, or plain text.

    JSON is minified and then sampled, tables keep header, ends and matching rows, code keeps its skeleton, logs say
    repeated lines once, and plain text keeps head and tail. Arguments of tool calls stay JSON of the same keys.

    least_tokens: the smallest size of a group that is aimed at. lean: from 0 to 1, how much more the question counts
    for JSON than the place in an array.
    """

    least_tokens: int = 48
    lean: float = 0.5

    def __post_init__(self) -> None:
        if self.least_tokens < 1:
            raise ValueError(f"`least_tokens` must be at least 1, got {self.least_tokens!r}")
        if not 0 <= self.lean <= 1:
            raise ValueError(f"`lean` must be in [0, 1], got {self.lean!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        request = replace(request, counter=TotalCounter(request.counter))
        contents = first_of(
            (
                json_reader(lean=self.lean, fidelity=0.9),
                read_json_lines,
                read_markdown_table,
                read_delimited,
                read_code,
                read_log,
                read_text,
            )
        )
        arguments = json_reader(lean=self.lean, fidelity=0.9, keep_fields=True)
        return Ladder("structural", group, request, contents, arguments, self.least_tokens).levels()
