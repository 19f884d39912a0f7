"""Heat maps as HTML: a fragment for notebooks and a page of its own for a search. Escaped, no script, any theme."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ctxkit.retrieval.heat_map import Answer, HeatMap, Link, decimals
from ctxkit.retrieval.hit import Hit
from ctxkit.retrieval.placing import placings

# One colour at four strengths, see-through: text in the theme's own colour stays readable on light and on dark. The
# line below a word says its level to those who do not see the colour.
_HEAT = "217,72,15"
_STRENGTHS = (0.0, 0.12, 0.26, 0.4, 0.55)
_LINES = (0, 1, 2, 3, 4)  # pixels
_SHOWN_ANSWERS = 4  # words of the query that one word is said to answer

LIGHT = {"text": "#1f2328", "faint": "#57606a", "ground": "#ffffff", "line": "#d0d7de"}
DARK = {"text": "#e6edf3", "faint": "#9ea7b3", "ground": "#0d1117", "line": "#30363d"}


def fragment(heat_map: HeatMap) -> str:
    """One hit for a notebook: where it is from, the legend, and the passage; pointing at a word shows what it answered.

    Styles are inline, colours those of the notebook's theme.
    """
    hit = heat_map.hit
    head = f"<b>{escape(hit.chunk.location)}</b> &middot; relevance {hit.relevance:.2f}"
    legend = f'<div style="opacity:.75">{escape(heat_map.legend)}</div>' if heat_map.legend else ""
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:70em;color:inherit">'
        f"<div>{head}</div>{legend}"
        '<div style="white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;margin-top:4px">'
        f"{_passage(heat_map, told_inside=False)}</div></div>"
    )


def page(query: str, hits: Sequence[Hit], *, note: str = "") -> str:
    """A whole page: the hits of a search as heat maps, with their scores and why each is where it is.

    It needs nothing from elsewhere. note: a sentence below the query, about the index. Words can be reached by the tab
    key, and a screen reader reads what they answered.
    """
    lines = placings(hits)
    articles = "".join(_article(HeatMap.of(hit, query), line) for hit, line in zip(hits, lines, strict=True))
    shown = articles or '<p class="faint">Nothing was found.</p>'
    below = f'<p class="faint">{escape(note)}</p>' if note else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(query)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n<body><main><h1>{escape(query)}</h1>"
        f"{below}{_scale() if any(hit.matches for hit in hits) else ''}{shown}</main></body></html>\n"
    )


def _article(heat_map: HeatMap, placing: str) -> str:
    hit = heat_map.hit
    location, title = hit.chunk.location, hit.chunk.title
    named = f'<div class="title">{escape(title)}</div>' if title != hit.chunk.source else ""
    facts = [f"relevance {hit.relevance:.2f}", placing]
    headings = [f"<li>{escape(word)} &rarr; in a heading</li>" for word in heat_map.by_headings]
    legend = "".join([*(_link(link, heat_map.by_tokens) for link in heat_map.links), *headings])
    return (
        f'\n<article><h2><span class="rank">{hit.rank}</span> {escape(location)}</h2>{named}'
        f'<p class="faint">{escape("; ".join(fact for fact in facts if fact))}</p>'
        f"{f'<ul>{legend}</ul>' if legend else ''}"
        f'<div class="passage">{_passage(heat_map, told_inside=True)}</div></article>'
    )


def _link(link: Link, by_tokens: bool) -> str:
    similarity = f" <b>{decimals(link.similarity)}</b>" if by_tokens else ""
    small = ' class="small"' if link.small else ""
    return f"<li{small}>{escape(link.asked)} &rarr; {escape(' '.join(link.answered))}{similarity}</li>"


def _passage(heat_map: HeatMap, *, told_inside: bool) -> str:
    return "".join(
        warm(piece.text, piece.level, _told(heat_map, piece.answers), told_inside)
        if piece.level
        else escape(piece.text)
        for piece in heat_map.pieces
    )


def _told(heat_map: HeatMap, answers: Sequence[Answer]) -> str:
    """What a word answered, in a few words."""
    if not heat_map.by_tokens:
        return ", ".join(answer.asked for answer in answers[:_SHOWN_ANSWERS])
    return ", ".join(f"{answer.asked} {decimals(answer.similarity)}" for answer in answers[:_SHOWN_ANSWERS])


def warm(text: str, level: int, told: str, told_inside: bool) -> str:
    """A run of text as warm as its level, from 1 to 4. told: what pointing at it shows; inside, also to the tab key."""
    style = (
        f"background:rgba({_HEAT},{_STRENGTHS[level]});color:inherit;border-radius:2px;"
        f"border-bottom:{_LINES[level]}px solid rgb({_HEAT})"
    )
    if told_inside:
        inner = f'{escape(text)}<span class="told"> ({escape(told)})</span>'
        return f'<mark tabindex="0" style="{style}">{inner}</mark>'
    return f'<mark title="{escape(told)}" style="{style}">{escape(text)}</mark>'


def _scale() -> str:
    """What the colours mean."""
    steps = " ".join(
        warm(name, level, "", told_inside=False).replace(' title=""', "")
        for level, name in enumerate(("from .25, and small words", "from .50", "from .65", "from .80"), start=1)
    )
    return f'<p class="faint scale">Similarity of a word to the word of the query that it answered: {steps}</p>'


def _colours(of: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in of.items())


_STYLE = f"""
:root{{color-scheme:light dark;{_colours(LIGHT)}}}
@media (prefers-color-scheme:dark){{:root{{{_colours(DARK)}}}}}
body{{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,sans-serif}}
main{{max-width:64rem;margin:0 auto;padding:1.5rem 1rem 6rem}}
h1{{font-size:1.5rem;line-height:1.3;margin:0 0 .3rem;overflow-wrap:anywhere}}
h2{{font-size:1rem;margin:0;overflow-wrap:anywhere}}
article{{border-top:1px solid var(--line);padding:1.1rem 0 .6rem}}
.rank{{display:inline-block;min-width:1.4em;color:var(--faint)}}
.title{{overflow-wrap:anywhere}}
.faint{{color:var(--faint);font-size:.87rem;margin:.3rem 0}}
.scale mark{{color:var(--text)!important;padding:0 .4em;display:inline-block}}
ul{{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.4rem 0;padding:0;font-size:.87rem}}
li.small{{color:var(--faint)}}
.passage{{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.75;margin-top:.5rem}}
mark{{position:relative;padding:0 1px}}
mark:focus{{outline:2px solid var(--text);outline-offset:1px}}
.told{{position:absolute;left:0;top:100%;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap;
user-select:none}}
mark:hover>.told,mark:focus>.told{{width:auto;height:auto;overflow:visible;clip-path:none;z-index:1;padding:.1rem .5rem;
border-radius:4px;background:var(--text);color:var(--ground);font-size:.82rem;line-height:1.5}}
"""
