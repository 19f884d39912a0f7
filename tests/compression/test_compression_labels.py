"""Labels: whatever a compressor makes of a part has the label of all that it was made of."""

from __future__ import annotations

from collections.abc import Callable

from ctxkit.compression import StubCompressor, SummaryCompressor
from ctxkit.compression.diff_history import DiffHistoryCompressor
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context import Compressor, Label, LevelRequest, passage
from ctxkit.context.group import Group, grouped, identified
from ctxkit.testing import ScriptedModel

SECRET = Label.parse("untrusted+secret")
INTERNAL = Label.parse("internal")
PROSE = "\n\n".join(
    f"Paragraph {i} opens here. The socket of server {i} waits {i * 7} seconds before it gives up." for i in range(12)
)
ROWS = "[" + ", ".join(f'{{"id": {i}, "note": "the socket of server {i} waits for long"}}' for i in range(30)) + "]"


def check_keeps(compressor: Compressor, group: Group, request: LevelRequest) -> None:
    levels = list(compressor.levels(group, request))
    assert levels
    for level in levels:
        given = {part.id: part.label for part in group.parts}
        assert all(part.label == given[part.id] for part in level.parts)
        small = level.resize(20) if level.resize else None
        assert small is None or all(part.label == given[part.id] for part in small.parts)


def test_every_text_compressor_keeps_each_parts_label(
    text_compressor: TextCompressor,
    request_of: Callable[..., LevelRequest],
    group_of: Callable[..., Group],
) -> None:
    """Two parts of one group with two labels: none leaks into the other, none is lost."""
    group = group_of(passage(PROSE, label=SECRET), passage(ROWS, label=INTERNAL), passage(PROSE[:700]))
    check_keeps(text_compressor, group, request_of())


def test_stubs_and_summaries_keep_the_label(
    request_of: Callable[..., LevelRequest], group_of: Callable[..., Group]
) -> None:
    group = group_of(passage(PROSE, label=SECRET), passage(PROSE + "\nMore.", label=INTERNAL))
    check_keeps(StubCompressor(), group, request_of(expandable=True))
    check_keeps(SummaryCompressor(ScriptedModel(lambda _: "Sockets wait.")), group, request_of())


def test_a_difference_has_the_label_of_its_base_too(request_of: Callable[..., LevelRequest]) -> None:
    page = "\n".join(f"line {i} of the page" for i in range(40))
    base = passage(page, id="old", source="page", label=Label.parse("secret"))
    parts = identified([base, passage(page + "\nnew", id="new", source="page", label=Label("untrusted"))])
    groups = grouped(parts)
    (levels, made) = DiffHistoryCompressor().joint_levels(groups, request_of())
    assert not list(levels)
    assert [level.parts[0].label for level in made] == [SECRET]
