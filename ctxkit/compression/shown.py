"""A compression to look at: what stayed, what went, in a terminal, a notebook or a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from ctxkit.compression.sources.cut import Fragment

if TYPE_CHECKING:
    from rich.text import Text

    from ctxkit.compression.prepared import Compressed, Compression

Fate = Literal["kept", "gone", "mark"]

_TERMINAL = {"kept": "", "gone": "dim strike red", "mark": "bold cyan"}
_BRACKETS = {"kept": ("", ""), "gone": ("[-", "-]"), "mark": ("{+", "+}")}
_FAINT = "#868e96"
_INLINE = {
    "gone": "color:#c92a2a;opacity:.72;text-decoration:line-through;background:rgba(201,42,42,.09)",
    "mark": "color:#0b7285;font-weight:600",
}
_TAGS = {"gone": "del", "mark": "ins"}


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text. fate: kept, gone, or a mark that the source does not hold."""

    text: str
    fate: Fate


def pieces(source: str, fragments: Sequence[Fragment]) -> Iterator[Piece]:
    """The source with what stayed and what went, and the marks where they stand; without the marks it is the source."""
    at = 0
    for fragment in fragments:
        if fragment.start is None:
            yield Piece(fragment.text, "mark")
            continue
        if fragment.start > at:
            yield Piece(source[at : fragment.start], "gone")
        yield Piece(fragment.text, "kept")
        at = fragment.end
    if at < len(source):
        yield Piece(source[at:], "gone")


def plain(result: Compressed) -> str:
    """`[-gone-]` and `{+mark+}`, as wdiff writes them."""
    runs = ((_BRACKETS[piece.fate], piece.text) for piece in pieces(result.source, result.fragments))
    return "".join(f"{left}{text}{right}" for (left, right), text in runs)


def coloured(result: Compressed) -> Text:
    """What went struck through, for rich."""
    from rich.text import Text

    return Text.assemble(*((piece.text, _TERMINAL[piece.fate]) for piece in pieces(result.source, result.fragments)))


def fragment_html(compression: Compression) -> str:
    """For notebooks: inline styles, the colours of the theme, no script."""
    style = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.6;margin:.6em 0"
    texts = "".join(f'<div style="{style}">{_marked(result)}</div>' for result in compression.results)
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:70em;color:inherit">'
        f"<div>{escape(headline(compression))}</div>{texts}</div>"
    )


def page(compression: Compression, title: str) -> str:
    """A whole page that needs nothing from elsewhere, for light and dark."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>:root{color-scheme:light dark}'
        "body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;font:15px/1.5 system-ui,sans-serif}"
        f"h1{{font-size:1.3rem;overflow-wrap:anywhere}}</style></head><body><h1>{escape(title)}</h1>"
        f'<p style="color:{_FAINT}">Struck out: left out. In blue: marks that stand for what was left out.</p>'
        f"{fragment_html(compression)}</body></html>\n"
    )


def headline(compression: Compression) -> str:
    """One line: tokens before and after, and how."""
    before, after = compression.source_tokens, compression.tokens
    return f"{after:,} of {before:,} tokens ({compression.rate:.0%}), {compression.method}"


def _marked(result: Compressed) -> str:
    return "".join(_run(piece) for piece in pieces(result.source, result.fragments))


def _run(piece: Piece) -> str:
    if piece.fate == "kept":
        return escape(piece.text)
    tag = _TAGS[piece.fate]
    return f'<{tag} style="{_INLINE[piece.fate]}">{escape(piece.text)}</{tag}>'
