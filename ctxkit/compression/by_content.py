"""ContentCompressor: each text by what it is; prose by what matters for the question."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ctxkit.compression.code_level import read_code
from ctxkit.compression.counted import TotalCounter
from ctxkit.compression.cut import first_of
from ctxkit.compression.extractive import extract
from ctxkit.compression.json_level import json_reader
from ctxkit.compression.ladder import Ladder
from ctxkit.compression.log_level import read_log
from ctxkit.compression.table_level import read_delimited, read_json_lines, read_markdown_table
from ctxkit.context.group import Group
from ctxkit.context.level import Level, LevelRequest

_LEAN = 0.5


@dataclass(frozen=True)
class ContentCompressor:
    """JSON, tables, code and logs as StructuralCompressor reduces them, all other text as ExtractiveCompressor does.

    One ladder for each group where asking both compressors would make two, so it takes half the time of both.

    least_tokens: the smallest size of a group that is aimed at.
    """

    least_tokens: int = 48

    def __post_init__(self) -> None:
        if self.least_tokens < 1:
            raise ValueError(f"`least_tokens` must be at least 1, got {self.least_tokens!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        request = replace(request, counter=TotalCounter(request.counter))
        contents = first_of(
            (
                json_reader(lean=_LEAN, fidelity=0.9),
                read_json_lines,
                read_markdown_table,
                read_delimited,
                read_code,
                read_log,
                extract,
            )
        )
        arguments = json_reader(lean=_LEAN, fidelity=0.9, keep_fields=True)
        return Ladder("content", group, request, contents, arguments, self.least_tokens).levels()
