"""What the tests of the compressors share: a counter, requests, groups and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ctxkit import Part, tool_call, tool_result
from ctxkit.compression import (
    CentroidCompressor,
    ContentCompressor,
    ExtractiveCompressor,
    SentenceSelector,
    StructuralCompressor,
)
from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.facts import FactWords
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context.group import Group, identified
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter
from ctxkit.testing import tiny_counter

TEXT_COMPRESSORS: tuple[TextCompressor, ...] = (
    RandomWords(),
    Head(),
    RareWords(),
    NoStopWords(),
    RareWords(pins=None, structured=False),
    StructuralCompressor(),
    ExtractiveCompressor(),
    ContentCompressor(),
    CentroidCompressor(),
    FactWords(),
    SentenceSelector(),
)
"""Every compressor of texts keeps the contract of `compress`; a new one is one line here."""


@pytest.fixture(scope="session", params=TEXT_COMPRESSORS, ids=lambda one: one.name)
def text_compressor(request: pytest.FixtureRequest) -> TextCompressor:
    compressor: TextCompressor = request.param
    return compressor


@pytest.fixture(scope="session")
def counter() -> Counter:
    return tiny_counter()


@pytest.fixture(scope="session")
def request_of(counter: Counter) -> Callable[..., LevelRequest]:
    def request_of(
        question: str = "Why does the socket of server 17 wait?", *, expandable: bool = False
    ) -> LevelRequest:
        return LevelRequest(question, counter, expandable)

    return request_of


@pytest.fixture(scope="session")
def group_of() -> Callable[..., Group]:
    def group_of(*parts: Part) -> Group:
        """All the parts as one group."""
        return Group(0, tuple(range(len(parts))), identified(parts))

    return group_of


@pytest.fixture(scope="session")
def tool_group(group_of: Callable[..., Group]) -> Callable[..., Group]:
    def tool_group(result: str, arguments: str = '{"path": "/a/b.py", "limit": 1.50}', **fields: bool) -> Group:
        """A call and its result; `fields` are the result's."""
        function = {"name": "f", "arguments": arguments}
        call = tool_call([{"id": "c0", "type": "function", "function": function}], "Let me look.")
        return group_of(call, tool_result("c0", result, **fields))

    return tool_group


@pytest.fixture(scope="session")
def size(counter: Counter) -> Callable[[Sequence[Part]], int]:
    def size(parts: Sequence[Part]) -> int:
        """Tokens of contents and call arguments."""
        arguments = [call["function"]["arguments"] for part in parts for call in part.tool_calls]
        return sum(TotalCounter(counter).count_batch([*(part.content for part in parts), *arguments]))

    return size
