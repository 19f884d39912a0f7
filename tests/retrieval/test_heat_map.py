"""Heat maps: what is marked is what matched, in words; text and HTML show the passage and nothing else gets in."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Evidence, Match, Ranking
from ctxkit.retrieval import HashingEncoder, HeatMap, Hit, Index, heat_map_page, placings
from ctxkit.retrieval.heat_map import LEVELS
from ctxkit.retrieval.heat_map_html import _HEAT, _STRENGTHS, DARK, LIGHT
from ctxkit.retrieval.heat_map_text import coloured, plain


def hit(text: str, *matches: Match, titles: tuple[str, ...] = (), rank: int = 1, **fields: object) -> Hit:
    return Hit(Chunk("c", "a.md", text, titles), rank, 1.0, 0.9, matches=matches, **fields)  # type: ignore[arg-type]


def match(text: str, word: str, asked: str, similarity: float, query: str = "") -> Match:
    start = len(text[: text.index(word)].encode())
    return Match(start, start + len(word.encode()), asked, similarity, query.index(asked) if query else -1)


def warm(heat_map: HeatMap) -> list[str]:
    return [piece.text for piece in heat_map.pieces if piece.level]


# --- which words ---------------------------------------------------------------------------------------------------


def test_pieces_of_one_word_are_one_word_in_the_text_and_in_the_query():
    text, query = "Annual budgets are recapitalised.", "recapitalising budget"
    pieces = [("recap", "recap", 0.8), ("ital", "italis", 0.6), ("ised", "ing", 0.4)]
    matches = [match(text, word, asked, similarity, query) for word, asked, similarity in pieces]
    heat_map = HeatMap.of(hit(text, *matches, match(text, "budgets", "budget", 0.83, query)))
    assert warm(heat_map) == ["budgets", "recapitalised"]
    assert heat_map.legend == "recapitalising -> recapitalised .60, budget -> budgets .83"


def test_a_word_of_the_query_can_be_answered_by_two_and_one_word_can_answer_two():
    text, query = "The code book of the shop.", "codebook store"
    heat_map = HeatMap.of(
        hit(
            text,
            match(text, "code", "code", 0.7, query),
            match(text, "book", "book", 0.5, query),
            match(text, "book", "store", 0.4, query),
        )
    )
    assert heat_map.legend == "codebook -> code book .60, store -> book .40"
    (book,) = [piece for piece in heat_map.pieces if piece.text == "book"]
    assert [(answer.asked, answer.similarity) for answer in book.answers] == [("codebook", 0.5), ("store", 0.4)]


def test_without_places_in_the_query_its_tokens_stay_apart():
    text = "low water"
    heat_map = HeatMap.of(hit(text, match(text, "low", "lo", 0.9), match(text, "low", "w", 0.7)))
    assert [link.asked for link in heat_map.links] == ["lo", "w"]


def test_words_without_gaps_between_them_stay_apart():
    text, query = "東京の川", "東京"
    heat_map = HeatMap.of(hit(text, match(text, "東", "東", 0.9, query), match(text, "京", "京", 0.8, query)))
    assert warm(heat_map) == ["東", "京"]
    assert [link.asked for link in heat_map.links] == ["東", "京"]


def test_accents_and_emoji_are_never_cut_through():
    text = "a cafe\u0301 🌿 naïve"
    matches = (match(text, "caf", "coffee", 0.7), match(text, "🌿", "plant", 0.6), match(text, "ve", "simple", 0.5))
    assert warm(HeatMap.of(hit(text, *matches))) == ["cafe\u0301", "🌿", "naïve"]


def test_small_words_are_faint_and_not_in_the_legend_where_others_are():
    text, query = "the window of the budget", "the budget"
    matches = (match(text, "the", "the", 0.99, query), match(text, "budget", "budget", 0.7, query))
    heat_map = HeatMap.of(hit(text, *matches))
    assert [piece.level for piece in heat_map.pieces if piece.level] == [1, 3]
    assert heat_map.legend == "budget -> budget .70"
    assert plain(heat_map) == "the window of the [[budget]]"
    assert HeatMap.of(hit(text, matches[0])).legend == "the -> the .99"


@pytest.mark.parametrize(
    ("similarity", "level"), [(-0.2, 0), (0.24, 0), (0.25, 1), (0.49, 1), (0.5, 2), (0.65, 3), (0.8, 4), (1.0, 4)]
)
def test_levels_rise_with_similarity(similarity: float, level: int):
    heat_map = HeatMap.of(hit("word", match("word", "word", "wort", similarity)))
    assert [piece.level for piece in heat_map.pieces] == [level]
    assert list(LEVELS) == sorted(LEVELS)


def test_what_a_heading_answered_is_said_where_the_query_is_known():
    text, query = "It is 2,000 tokens.", "What budget has the window?"
    found = hit(text, match(text, "tokens", "window", 0.6, query), titles=("Budgets",))
    assert HeatMap.of(found, query).legend == "window -> tokens .60, budget -> in a heading"
    assert HeatMap.of(found).legend == "window -> tokens .60"


def test_without_token_vectors_the_words_of_the_query_are_marked():
    heat_map = HeatMap.of(hit("Budgets and a readTimeout_ms."), "the budget of timeouts")
    assert warm(heat_map) == ["Budgets", "readTimeout_ms"]
    assert heat_map.legend == "budget -> Budgets, timeouts -> readTimeout_ms"
    assert not heat_map.by_tokens
    assert heat_map.to_dict()["links"][0] == {"asked": "budget", "answered": ["Budgets"], "similarity": None}


def test_without_query_and_token_vectors_the_evidence_is_marked():
    text = "Ölfarbe trocknet. Wasser nicht."
    heat_map = HeatMap.of(hit(text, evidence=(Evidence(0, 18, 0.5),)))
    assert warm(heat_map) == ["Ölfarbe trocknet."]
    assert heat_map.legend == ""


@pytest.mark.parametrize("query", ["", "   ", "the of", "🌿", "\x00", "a" * 5000])
@pytest.mark.parametrize("text", ["", " ", "...", "🌿", "one"])
def test_degenerate_passages_and_queries_have_a_heat_map(text: str, query: str):
    heat_map = HeatMap.of(hit(text), query)
    assert "".join(piece.text for piece in heat_map.pieces) == text
    assert isinstance(str(heat_map), str) and heat_map._repr_html_()
    assert heat_map_page(query, [hit(text)])


@given(
    st.lists(
        st.sampled_from(["rivers", "Zürich", "東京", "e\u0301te", "🌿", "read_time", "a", "\n\n", "<b>"]), max_size=9
    )
)
def test_the_pieces_are_the_passage(words: list[str]):
    text = " ".join(words) + " rivers"
    with Index.in_memory(encoder=HashingEncoder(32, multi_vector=True)) as index:
        index.add([Chunk("c", "a.md", text)])
        (found,) = index.search("rivers of Zürich 東京 e\u0301te", k=1)
    heat_map = HeatMap.of(found, "rivers")
    assert "".join(piece.text for piece in heat_map.pieces) == text
    assert "rivers" in " ".join(warm(heat_map))
    assert all(left.answers or right.answers for left, right in pairwise(heat_map.pieces))


# --- as text -------------------------------------------------------------------------------------------------------


def test_brackets_stand_where_there_are_no_colours():
    text = "Rivers reach a sea."
    matches = (match(text, "Rivers", "river", 0.91), match(text, "sea", "ocean", 0.55))
    assert str(HeatMap.of(hit(text, *matches))) == "[[Rivers]] reach a [sea]."


def test_colours_change_nothing_of_the_text():
    text = "Rivers [reach] a sea."
    heat_map = HeatMap.of(hit(text, match(text, "Rivers", "river", 0.91)))
    assert coloured(heat_map).plain == text
    console = Console(force_terminal=True, color_system="truecolor", width=60)
    with console.capture() as shown:
        console.print(coloured(heat_map))
    assert "\x1b[" in shown.get() and "reach" in shown.get()


def test_of_a_very_long_passage_only_what_is_near_warm_words_is_shown():
    text = "start " + "filler " * 20_000 + "rivers " + "filler " * 20_000
    shown = plain(HeatMap.of(hit(text, match(text, "rivers", "river", 0.9))))
    assert "[[rivers]]" in shown and shown.startswith("… ") and shown.endswith(" …")
    assert len(shown) < 400
    nothing = plain(HeatMap.of(hit(text)))
    assert nothing.startswith("start filler") and nothing.endswith(" …") and len(nothing) < 200
    many = HeatMap.of(hit("rivers " + "filler rivers " * 5_000), "rivers")
    assert plain(many).count("[[rivers]]") == 40 and plain(many).endswith(" …")


# --- as HTML -------------------------------------------------------------------------------------------------------


class Checked(HTMLParser):
    """Counts what opens and closes; `text` is what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Checked:
    checked = Checked()
    checked.feed(html)
    assert checked.open == []
    return checked


EVIL = "<script>alert(\"1\")</script> & 'x' </mark></style>"


def test_everything_is_escaped_and_nothing_comes_from_elsewhere():
    found = Hit(Chunk("c", EVIL, f"{EVIL} rivers", (EVIL,)), 1, 1.0, 0.5, (Ranking(EVIL, 1, 1.0),))
    for html in (heat_map_page(EVIL + " rivers", [found], note=EVIL), found._repr_html_()):
        checked = parsed(html)
        assert "<script" not in html and EVIL in checked.text
        assert not {name for name, _ in checked.attributes} & {"src", "href", "onclick"}
        assert not re.search(r"url\(|https?:|@import", html)


def test_a_page_says_in_text_and_to_the_keyboard_what_each_word_answered():
    text = "Rivers reach a sea."
    page = heat_map_page("river", [hit(text, match(text, "Rivers", "river", 0.91))])
    assert '<mark tabindex="0"' in page and '<span class="told"> (river .91)</span>' in page
    assert "prefers-color-scheme:dark" in page and page.startswith("<!doctype html>")
    assert "mark:focus>.told" in page


def test_a_page_without_hits_says_so():
    assert "Nothing was found." in parsed(heat_map_page("nothing", [])).text


def test_a_notebook_shows_the_passage_and_pointing_shows_the_answer():
    text = "Rivers\nreach a sea."
    shown = parsed(hit(text, match(text, "sea", "ocean", 0.72))._repr_html_())
    assert text in shown.text and "ocean -> sea .72" in shown.text
    assert ("title", "ocean .72") in shown.attributes


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_at_every_level_in_both_themes(theme: dict[str, str]):
    heat = [int(part) for part in _HEAT.split(",")]
    ground = rgb(theme["ground"])
    for strength in _STRENGTHS:
        mixed = [strength * warm_ + (1 - strength) * cold for warm_, cold in zip(heat, ground, strict=True)]
        assert contrast(rgb(theme["text"]), mixed) >= 4.5
    assert contrast(rgb(theme["faint"]), ground) >= 4.5


def rgb(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2, success criterion 1.4.3."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --- why a hit is where it is --------------------------------------------------------------------------------------


def ranked(rank: int, score: float, *rankings: Ranking) -> Hit:
    return Hit(Chunk(str(rank), "a.md", "text"), rank, score, 0.5, rankings)


def test_placings_say_what_each_method_says_and_who_put_others_higher():
    hits = [
        ranked(1, 0.957, Ranking("dense", 1, 9.13), Ranking("lexical", 3, 4.2)),
        ranked(2, 0.931, Ranking("dense", 4, 8.02), Ranking("lexical", 1, 6.1)),
        ranked(3, 0.5, Ranking("dense", 11, 7.0)),
    ]
    assert placings(hits) == [
        "1st by vectors (9.13), 3rd by words (4.20); 0.957 together",
        "4th by vectors (8.02), 1st by words (6.10); 0.931 together; behind 1, which vectors put higher",
        "11th by vectors (7.00), not found by words; 0.500 together; behind 2, which vectors and words put higher",
    ]


def test_one_method_alone_is_its_rank_and_score():
    assert placings([ranked(1, 0.5, Ranking("dense", 1, 0.5)), ranked(2, 0.4, Ranking("dense", 22, 0.4))]) == [
        "1st by vectors (0.50)",
        "22nd by vectors (0.40)",
    ]
    assert placings([]) == []
    assert placings([ranked(1, 1.0)]) == [""]
