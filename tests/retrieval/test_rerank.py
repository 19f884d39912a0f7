"""Reranking orders hits by another judge and keeps all that was known of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import MissingExtra, ModelError, ModelNotFound
from ctxkit.protocols import Evidence, Ranking, Vectors
from ctxkit.retrieval import HashingEncoder, Hit, Index
from ctxkit.retrieval.encoders import loading
from ctxkit.retrieval.rerank import SEARCH, CrossEncoderReranker, MaxSimReranker, Reranker, reranked


@dataclass(frozen=True)
class Given:
    """Scores by text."""

    by_text: dict[str, float]
    name: str = "given"

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        return [self.by_text[text] for text in texts]


def hits_of(count: int) -> list[Hit]:
    return [
        Hit(
            Chunk(f"c{i}", "a.md", f"text {i}"),
            i + 1,
            10.0 - i,
            0.5**i,
            (Ranking("dense", i + 3, 0.1), Ranking("lexical", i + 1, 7.0)),
            (Evidence(0, 4, 1.0),),
        )
        for i in range(count)
    ]


@given(
    scores=st.lists(st.floats(-5, 5) | st.sampled_from([0.0, 1.0, math.inf]), max_size=8),
    k=st.none() | st.integers(1, 9),
)
def test_hits_are_sorted_by_the_reranker_and_keep_the_rest(scores, k):
    hits = hits_of(len(scores))
    found = reranked(hits, "q", Given({f"text {i}": score for i, score in enumerate(scores)}), k)
    order = sorted(range(len(hits)), key=lambda i: (-scores[i], i))[:k]
    assert [hit.chunk for hit in found] == [hits[i].chunk for i in order]
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))
    for hit, i in zip(found, order, strict=True):
        assert (hit.score, hit.evidence) == (scores[i], hits[i].evidence)
        assert hit.rankings[:2] == hits[i].rankings
        assert hit.rankings[2:] == (Ranking(SEARCH, i + 1, 10.0 - i), Ranking("given", hit.rank, scores[i]))
    assert [hit.relevance for hit in found] == [hit.relevance for hit in hits][: len(found)]
    assert hits == hits_of(len(scores))


def test_relevance_still_falls_strictly_after_a_search(chunk):
    with Index.in_memory(encoder=HashingEncoder(16)) as index:
        index.add([chunk(text, id=text) for text in ("red fox", "blue fox", "owl", "night owl", "red")])
        hits = index.search("red fox", 5)
    found = reranked(hits, "owl", MaxSimReranker(HashingEncoder(16, multi_vector=True)))
    assert found[0].chunk.id in ("owl", "night owl")
    assert all(first.relevance > second.relevance for first, second in pairwise(found))


def test_reranking_twice_remembers_the_search_once_and_each_judge_once():
    hits = hits_of(2)
    first, second = Given({"text 0": 0.0, "text 1": 1.0}), Given({"text 0": 5.0, "text 1": 4.0}, "other")
    found = reranked(reranked(reranked(hits, "q", first), "q", second), "q", first)
    assert [ranking.method for ranking in found[0].rankings] == ["dense", "lexical", SEARCH, "other", "given"]
    assert found[0].rankings[2] == Ranking(SEARCH, 2, 9.0)
    assert found[0].rankings[3] == Ranking("other", 2, 4.0)


def test_headings_are_judged_too():
    hit = Hit(Chunk("c", "a.md", "text", ("Top", "Sub")), 1, 1.0, 0.5)
    assert reranked([hit], "q", Given({"Top > Sub\ntext": 3.0}))[0].score == 3.0


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, math.nan], [1.0, 2.0, 3.0]])
def test_a_reranker_that_gives_no_number_for_each_is_named(scores):
    class Wrong:
        name = "wrong"

        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            return scores

    with pytest.raises(ValueError, match="reranker 'wrong' gave .* for 2 texts"):
        reranked(hits_of(2), "q", Wrong())


def test_k_below_one_is_refused():
    with pytest.raises(ValueError, match="`k` must be at least 1 or None, got 0"):
        reranked([], "q", Given({}), 0)


@given(texts=st.lists(st.text("ab c", max_size=12), max_size=6), query=st.text("ab c", max_size=8), multi=st.booleans())
def test_maxsim_is_the_sum_of_best_rows(texts, query, multi):
    encoder = HashingEncoder(8, multi_vector=multi)
    asked = encoder.encode_queries([query])[0]
    expected = [float((encoder.encode_documents([text])[0] @ asked.T).max(axis=0).sum()) for text in texts]
    assert MaxSimReranker(encoder).scores(query, texts) == pytest.approx(expected, abs=1e-5)


def test_maxsim_of_a_text_without_rows_is_zero():
    class Bare(HashingEncoder):
        def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
            full = super().encode_documents([text for text in texts if text])
            return Vectors(full.values, np.cumsum([0, *(bool(text) for text in texts)]))

    scores = MaxSimReranker(Bare(8)).scores("a", ["", "a", "", "b", ""])
    assert scores == pytest.approx([0.0, 1.0, 0.0, scores[3], 0.0])
    assert MaxSimReranker(Bare(8)).scores("a", ["", ""]) == [0.0, 0.0]


@pytest.fixture(scope="module")
def cross_encoders(tmp_path_factory) -> dict[int, Path]:
    """Folders of tiny random BERTs with one label and with three."""
    pytest.importorskip("sentence_transformers")
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"cat dog bank rate mat where".split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    folders = {}
    for labels in (1, 3):
        folders[labels] = tmp_path_factory.mktemp("cross") / str(labels)
        torch.manual_seed(5)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.BertConfig(
            vocab_size=len(words), num_labels=labels, initializer_range=0.5, max_position_embeddings=32, **sizes
        )
        transformers.BertForSequenceClassification(config).save_pretrained(folders[labels])
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(
            folders[labels]
        )
    return folders


def test_a_cross_encoder_scores_by_its_logits_whatever_the_batch(cross_encoders):
    import torch
    from sentence_transformers import CrossEncoder

    texts = ["cat mat", "", "bank rate " * 40, "dog", "東京 🎉"]
    model = CrossEncoder(str(cross_encoders[1]), device="cpu")
    expected = model.predict([("where cat", text) for text in texts], activation_fn=torch.nn.Identity())
    for size in (1, 2, 32):
        reranker: Reranker = CrossEncoderReranker(cross_encoders[1], device="cpu", batch_size=size)
        scores = reranker.scores("where cat", texts)
        assert scores == pytest.approx(expected.tolist(), abs=1e-5)
        assert all(type(score) is float for score in scores)
    assert len(set(scores)) == len(texts)
    assert reranker.scores("where cat", []) == []


def test_a_cross_encoder_reranks_hits_under_its_name(cross_encoders):
    hits = [
        Hit(Chunk(text, "a.md", text), i + 1, 1.0, 0.5**i) for i, text in enumerate(["cat mat", "bank", "dog rate"])
    ]
    reranker = CrossEncoderReranker(str(cross_encoders[1]), device="cpu")
    found = reranked(hits, "where cat", reranker, 2)
    best = sorted(reranker.scores("where cat", [hit.chunk.text for hit in hits]), reverse=True)[:2]
    assert [hit.score for hit in found] == pytest.approx(best, abs=1e-6)
    assert found[0].rankings[-1] == Ranking(str(cross_encoders[1]), 1, found[0].score)


def test_what_cannot_rerank_is_refused_with_its_reason(cross_encoders, tmp_path):
    assert CrossEncoderReranker(tmp_path)._loaded is None
    with pytest.raises(ModelError, match="gives 3 scores per pair; a reranker gives one"):
        CrossEncoderReranker(cross_encoders[3]).scores("q", ["a"])
    for name in (str(tmp_path), "no/such-reranker"):
        with pytest.raises(ModelNotFound, match="cannot be loaded as a CrossEncoder"):
            CrossEncoderReranker(name).scores("q", ["a"])
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        CrossEncoderReranker("x", batch_size=0)


def test_a_missing_package_names_the_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(loading, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install '.\[retrieval\]'"):
        CrossEncoderReranker("x").scores("q", ["a"])
