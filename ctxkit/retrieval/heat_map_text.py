"""A heat map in a terminal: in colours, or with brackets where there are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ctxkit.retrieval.heat_map import HeatMap, Piece

if TYPE_CHECKING:
    from rich.text import Text

# Both colours of each level are set, so that they can be read on a light and on a dark terminal.
STYLES = ("", "#1f1f1f on #fff3c4", "#1f1f1f on #ffdd7a", "#1f1f1f on #ffb057", "bold #ffffff on #b93815")
BRACKETS = (("", ""), ("[", "]"), ("[", "]"), ("[[", "]]"), ("[[", "]]"))  # none for answers to small words
_WHOLE = 2_000  # characters; of a longer passage, what is far from any warm word is left out
_NEAR = 160  # characters of it that are kept on each side
_MOST = 40  # stretches of warm words that are shown of it
_CUT = " … "


def plain(heat_map: HeatMap) -> str:
    """The passage with `[words]` that answered and `[[words]]` that answered well."""
    marks = [BRACKETS[0 if piece.small else piece.level] for piece in shown(heat_map)]
    return "".join(f"{left}{piece.text}{right}" for (left, right), piece in zip(marks, shown(heat_map), strict=True))


def coloured(heat_map: HeatMap) -> Text:
    """The passage with warm words in colour, for rich."""
    from rich.text import Text

    return Text.assemble(*((piece.text, STYLES[piece.level]) for piece in shown(heat_map)))


def shown(heat_map: HeatMap) -> Iterator[Piece]:
    """The pieces; of a long passage only what is near warm words."""
    pieces = list(heat_map.pieces)
    long = sum(len(piece.text) for piece in pieces) > _WHOLE
    warm = 0
    for at, piece in enumerate(pieces):
        text, last = piece.text, at == len(pieces) - 1
        if not piece.level and long:
            text = _shortened(text, first=at == 0, last=last)
        warm += piece.level > 0
        yield Piece(text, piece.answers)
        if long and warm == _MOST and not last:
            yield Piece(_CUT.rstrip())
            return


def _shortened(text: str, *, first: bool, last: bool) -> str:
    """Without its middle; the first piece without its beginning, the last without its end, the only one cut."""
    if len(text) <= 2 * _NEAR:
        return text
    head = "" if first and not last else text[:_NEAR]
    tail = "" if last else text[-_NEAR:]
    return f"{head}{_CUT if head else _CUT.lstrip()}{tail}" if tail else f"{head}{_CUT.rstrip()}"
