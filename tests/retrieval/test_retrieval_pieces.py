"""Terms, evidence, fusion, relevance and hits, each by itself."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from ctxkit.context.part import SupportsPart
from ctxkit.documents.chunk import Chunk
from ctxkit.protocols import Evidence, Ranking
from ctxkit.retrieval import Hit, ReciprocalRankFusion, ScoreFusion
from ctxkit.retrieval.evidence import lexical_evidence
from ctxkit.retrieval.fusion import Run, best
from ctxkit.retrieval.relevance import relevances
from ctxkit.retrieval.terms import terms


def run(*pairs: tuple[int, float]) -> Run:
    return Run(np.array([p for p, _ in pairs], np.int64), np.array([s for _, s in pairs]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cats of Rome", ["cat", "rome"]),
        ("read_timeout_ms", ["read_timeout_ms", "read", "timeout", "ms"]),
        ("HTTPServer parseXML2Json", ["httpserver", "http", "server", "parsexml2json", "parse", "xml", "2", "json"]),
        ("Größe über naïve", ["größe", "über", "naïve"]),
        ("cities glass bus", ["city", "glass", "bus"]),
        ("…!? the", []),
        ("308 points", ["308", "point"]),
    ],
)
def test_terms(text, expected):
    assert terms(text) == expected


def test_evidence_are_the_bytes_of_the_sentences_that_match_best_first():
    text = "Ünder the bridge. A red fox sleeps!\nThe fox eats. Nothing here"
    spans = lexical_evidence("Where does the red fox sleep?", text)
    assert [text.encode()[s.start : s.end].decode() for s in spans] == ["A red fox sleeps!", "The fox eats."]
    assert [s.score for s in spans] == pytest.approx([1.0, 1 / 3])
    assert lexical_evidence("unrelated", text) == lexical_evidence("", text) == lexical_evidence("fox", "") == ()


def test_best_breaks_ties_by_position_at_the_edge_too():
    found = best(np.array([5, 3, 9, 1]), np.array([1.0, 1.0, 2.0, 1.0]), 2)
    assert (found.positions.tolist(), found.scores.tolist()) == ([9, 1], [2.0, 1.0])


def test_reciprocal_ranks_by_hand():
    fused = ReciprocalRankFusion().fuse({"dense": run((4, 0.9), (2, 0.1)), "lexical": run((2, 7.0), (8, 1.0))})
    assert fused.positions.tolist() == [2, 4, 8]
    assert fused.scores == pytest.approx([1 / 61 + 1 / 62, 1 / 61, 1 / 62])


def test_scores_by_hand():
    fusion = ScoreFusion({"dense": 0.5, "lexical": 0.5})
    fused = fusion.fuse({"dense": run((4, 0.8), (2, 0.4), (3, -0.2)), "lexical": run((2, 6.0), (8, 3.0))})
    assert fused.positions.tolist() == [2, 4, 8, 3]
    assert fused.scores == pytest.approx([0.75, 0.5, 0.25, 0.0])


def test_a_method_cut_off_gives_the_rest_its_last_score():
    fusion = ScoreFusion({"dense": 1.0, "lexical": 1.0}, depth=2)
    fused = fusion.fuse({"dense": run((1, 1.0), (2, 0.5)), "lexical": run((3, 1.0))})
    assert dict(zip(fused.positions.tolist(), fused.scores.tolist(), strict=True)) == {3: 1.5, 1: 1.0, 2: 0.5}


@pytest.mark.parametrize("fusion", [ScoreFusion(), ReciprocalRankFusion()])
def test_fusing_nothing_gives_nothing(fusion):
    assert len(fusion.fuse({})) == len(fusion.fuse({"dense": Run.empty()})) == 0


@pytest.mark.parametrize("kind", ["scores", "ranks", "dense", "lexical"])
@pytest.mark.parametrize(
    "scores", [[1.0], [0.9, 0.9, 0.9], [1.0, 0.5, 0.0, -0.5], [0.0, 0.0], [-1.0, -2.0], list(np.linspace(1, 0, 400))]
)
def test_relevance_is_a_probability_and_falls_strictly(kind, scores):
    values = relevances(run(*enumerate(scores)), kind)
    assert len(values) == len(scores)
    assert all(0 < value < 1 for value in values)
    assert all(first > second for first, second in pairwise(values))
    assert sum(values) < 1.001


def test_a_clear_lead_is_worth_more_than_a_close_one():
    clear = relevances(run((1, 1.0), (2, 0.5)), "scores")
    close = relevances(run((1, 1.0), (2, 0.99)), "scores")
    assert clear[0] > 0.99 > 0.6 > close[0] > close[1] > 0.4


def hit() -> Hit:
    chunk = Chunk("c1", "docs/a.md", "A fox.\nMore of it.", ("Top", "Sub"), 10, 11, 5, 23, None, {"k": 1})
    return Hit(chunk, 1, 0.5, 0.75, (Ranking("dense", 2, 0.8),), (Evidence(0, 6, 1.0),))


def test_a_hit_becomes_a_passage():
    part = hit().as_part()
    assert isinstance(hit(), SupportsPart)
    assert (part.kind, part.id, part.content) == ("passage", "c1", "A fox.\nMore of it.")
    assert (part.title, part.source, part.relevance) == ("Top > Sub", "docs/a.md:10-11", 0.75)
    assert (hit().as_part(priority=2.0, id="p").priority, hit().as_part(id="p").id) == (2.0, "p")


def test_a_hit_prints_on_one_line_and_goes_into_json():
    assert repr(hit()) == "Hit(1, docs/a.md:10-11, relevance=0.75, score=0.5000, 'A fox. More of it.')"
    assert hit().snippets() == ["A fox."]
    data = json.loads(json.dumps(hit().to_dict()))
    assert data["chunk"]["location"] == "docs/a.md:10-11"
    assert data["rankings"] == [{"method": "dense", "rank": 2, "score": 0.8}]
    assert data["evidence"] == [{"start": 0, "end": 6, "score": 1.0}]
