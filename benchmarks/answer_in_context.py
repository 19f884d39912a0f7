"""Does the answer survive? Sentences chosen by the question against head, random words and plain sentences.

    python benchmarks/answer_in_context.py DATA_FOLDER [--only xquad passage qmsum] [--questions 0] [--meetings 12]
        [--variants] [--store vectors.sqlite]

xquad: all 240 passages of xquad-en are given with each question and compressed together to so many tokens in all; a
question counts where one of its answer strings stands in what is left, in any passage. passage: only the passage with
the answer is given, and cut to a share of its tokens. Weights were tuned on every other article (`tune`), the remaining
articles are `held`. QMSum (val): a meeting is one text, a line per turn; what counts is the share of the characters of
the query's gold turns that is kept, at a share of the meeting's tokens.

"plain sentences" is what one writes without a library: whole sentences by 0.35 BM25 + 0.65 cosine of MiniLM, each
divided by its best, as many as fit. Tokens are those of SmolLM2. Vectors are made once and kept in the store; times are
per question, with the vectors of the texts there (`s`), all budgets of a line together.

--questions: so many of the 1,190, evenly (0: all). --variants: what each part of the method gives.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.by_question.passage import Passage
from ctxkit.compression.by_question.selector import SentenceSelector
from ctxkit.compression.extractive import ExtractiveCompressor
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.sources.cut import Cut, Fragment
from ctxkit.compression.sources.joint import cut_together
from ctxkit.compression.text.score import relevance
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.context.level import LevelRequest
from ctxkit.models import resolve
from ctxkit.protocols import Counter, Encoder
from ctxkit.retrieval.encoders import CachedEncoder, SentenceTransformerEncoder, TokenStateEncoder
from ctxkit.tokens import TemplateCounter

BUDGETS = (64, 128, 256)
SHARES = (0.2, 0.33, 0.5, 0.7)
MEETING_SHARES = (0.05, 0.1, 0.2, 0.33)

Cutter = Callable[[Sequence[str], str, Sequence[int]], list[list[Cut]]]
"""Texts, question and budgets in tokens to the cuts at each budget, [budgets][texts]."""


@dataclass(frozen=True)
class Task:
    """A question about texts. wanted: strings of which one must be kept. gold: char spans of text 0 to be kept."""

    question: str
    texts: Sequence[str]
    budgets: Sequence[int]
    half: int  # 0: weights were tuned on it, 1: held out
    wanted: Sequence[str] = ()
    gold: Sequence[tuple[int, int]] = ()

    def found(self, cuts: Sequence[Cut]) -> float:
        if self.wanted:
            return float(any(answer in cut.text for cut in cuts for answer in self.wanted))
        return covered(cuts[0].fragments, self.gold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="*", default=["xquad", "passage", "qmsum"])
    parser.add_argument("--questions", type=int, default=0)
    parser.add_argument("--meetings", type=int, default=12)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--store", type=Path, default=Path("vectors.sqlite"))
    arguments = parser.parse_args()
    counter = TotalCounter(TemplateCounter.from_folder(resolve("smollm2-135m-instruct")).as_text())
    encoder = CachedEncoder(SentenceTransformerEncoder(), arguments.store)
    tokens = CachedEncoder(TokenStateEncoder(), arguments.store)
    methods = selectors(encoder, tokens)
    if arguments.variants:
        methods = variants(encoder, tokens)
    for name in arguments.only:
        tasks = TASKS[name](arguments, counter)
        rows = methods if arguments.variants else {**baselines(name, encoder, counter), **methods}
        labels = [f"{budget}" for budget in BUDGETS] if name == "xquad" else [f"{share:.0%}" for share in SHARES]
        report(name, tasks, rows, counter, [f"{s:.0%}" for s in MEETING_SHARES] if name == "qmsum" else labels)


def selectors(encoder: Encoder, tokens: Encoder) -> dict[str, TextCompressor]:
    return {
        "BM25": SentenceSelector(),
        "BM25, sentence vectors": SentenceSelector(encoder),
        "BM25, token vectors": SentenceSelector(token_encoder=tokens),
        "all three": SentenceSelector(encoder, tokens),
    }


def variants(encoder: Encoder, tokens: Encoder) -> dict[str, TextCompressor]:
    whole = SentenceSelector(encoder, tokens)
    alone = replace(whole.weights, neighbourhood=0.0)
    return {
        "all three": whole,
        "sentences alone": replace(whole, weights=alone),
        "no antecedents": replace(whole, coherent=False),
        "words: no stop words": replace(whole, words=NoStopWords()),
        "words: head": replace(whole, words=Head()),
        "words: random": replace(whole, words=RandomWords()),
        "spread 0.05": replace(whole, spread=0.05),
        "spread 0.1": replace(whole, spread=0.1),
        "spread 0.2": replace(whole, spread=0.2),
        "shortlist 16": replace(whole, shortlist=16),
        "shortlist 240": replace(whole, shortlist=240),
        "no pins": replace(whole, pins=None),
    }


def baselines(name: str, encoder: Encoder, counter: Counter) -> dict[str, TextCompressor | Cutter]:
    plain = {"plain sentences": PlainSentences(encoder, counter)}
    words: dict[str, TextCompressor | Cutter] = {
        "head": Head(),
        "random words": RandomWords(),
        "rare words": RareWords(),
    }
    return plain if name == "xquad" else {**words, "extractive": ExtractiveCompressor(), **plain}


class PlainSentences:
    """Whole sentences by BM25 and one vector each, as many as fit."""

    def __init__(self, encoder: Encoder, counter: Counter) -> None:
        self._encoder, self._counter = encoder, counter
        self._known: tuple[tuple[str, ...], list[tuple[int, int, str]], list[int], np.ndarray] | None = None

    def __call__(self, texts: Sequence[str], question: str, budgets: Sequence[int]) -> list[list[Cut]]:
        sentences, sizes, vectors = self._read(tuple(texts))
        cosine = vectors @ self._encoder.encode_queries([question]).values[0]
        lexical = np.array(relevance([sentence for _, _, sentence in sentences], question))
        order = np.argsort(-(0.35 * lexical + 0.65 * cosine / max(cosine.max(), 1e-9)), kind="stable").tolist()
        return [self._cuts(len(texts), sentences, sizes, order, budget) for budget in budgets]

    def _read(self, texts: tuple[str, ...]) -> tuple[list[tuple[int, int, str]], list[int], np.ndarray]:
        if self._known is None or self._known[0] != texts:
            passages = [Passage.of(text) for text in texts]
            sentences = [
                (i, start, sentence)
                for i, passage in enumerate(passages)
                for start, sentence in zip(passage.bounds, passage.sentences, strict=False)
            ]
            of_sentences = [sentence for _, _, sentence in sentences]
            vectors = self._encoder.encode_documents(of_sentences)
            firsts = vectors.values[vectors.offsets[:-1]]
            self._known = (texts, sentences, self._counter.count_batch(of_sentences), firsts)
        return self._known[1:]

    @staticmethod
    def _cuts(count: int, sentences: list, sizes: list[int], order: list[int], budget: int) -> list[Cut]:
        kept, left = [], budget
        for i in order:
            if sizes[i] <= left:
                kept.append(i)
                left -= sizes[i]
        fragments: list[list[Fragment]] = [[] for _ in range(count)]
        for i in sorted(kept):
            place, start, text = sentences[i]
            fragments[place].append(Fragment(text, start))
        return [Cut("".join(f.text for f in some), 0, 0.0, tuple(some)) for some in fragments]


def compressed(compressor: TextCompressor, counter: Counter) -> Cutter:
    def cut(texts: Sequence[str], question: str, budgets: Sequence[int]) -> list[list[Cut]]:
        sources = compressor.sources(texts, LevelRequest(question, counter))
        chosen = [cut_together(texts, sources, counter, budget) for budget in budgets]
        for cuts, budget in zip(chosen, budgets, strict=True):
            if sum(0 if cut is None else counter.count(cut.text) for cut in cuts) > budget:
                raise RuntimeError(f"{compressor.name}: over {budget} tokens")
        return [[cut or whole(text) for cut, text in zip(cuts, texts, strict=True)] for cuts in chosen]

    return cut


def whole(text: str) -> Cut:
    return Cut(text, 0, 0.0, (Fragment(text, 0),))


def covered(fragments: Sequence[Fragment], spans: Sequence[tuple[int, int]]) -> float:
    """Share of the characters of the spans that stand in the fragments."""
    kept = [(f.start, f.end) for f in fragments if f.start is not None]
    common = sum(max(0, min(end, e) - max(start, s)) for start, end in spans for s, e in kept)
    return common / max(sum(end - start for start, end in spans), 1)


def report(
    name: str, tasks: Sequence[Task], rows: dict[str, TextCompressor | Cutter], counter: Counter, labels: Sequence[str]
) -> None:
    halves = np.array([task.half for task in tasks])
    print(f"\n{name}: {len(tasks):,} questions, {sum(halves == 0):,} of them to tune on; tune | held out | all\n")
    print(f"| method | {' | '.join(labels)} | s |\n|---|{'---|' * len(labels)}---|")
    for method, made in rows.items():
        cutter = compressed(made, counter) if isinstance(made, TextCompressor) else made
        cutter(tasks[0].texts, tasks[0].question, tasks[0].budgets)  # loads and encodes
        found, seconds = results(tasks, cutter)
        values = [[found[halves == half].mean(axis=0) for half in (0, 1)], found.mean(axis=0)]
        cells = [
            f".{1000 * t:03.0f} .{1000 * h:03.0f} **.{1000 * a:03.0f}**"
            for t, h, a in zip(*values[0], values[1], strict=True)
        ]
        print(f"| {method} | {' | '.join(cells)} | {seconds:.3f} |".replace(".1000", "1.00"), flush=True)


def results(tasks: Sequence[Task], cutter: Cutter) -> tuple[np.ndarray, float]:
    """What was found, [tasks, budgets], and the median of the seconds per task."""
    found, times = [], []
    for task in tasks:
        start = time.perf_counter()
        cuts = cutter(task.texts, task.question, task.budgets)
        times.append(time.perf_counter() - start)
        found.append([task.found(some) for some in cuts])
    return np.array(found), float(np.median(times))


def xquad(arguments: argparse.Namespace, counter: Counter) -> list[Task]:
    rows, texts = questions_of(arguments)
    return [Task(row["text"], list(texts.values()), BUDGETS, half, row["answers"]) for row, _, half in rows]


def passages(arguments: argparse.Namespace, counter: Counter) -> list[Task]:
    rows, texts = questions_of(arguments)
    sizes = dict(zip(texts, counter.count_batch(list(texts.values())), strict=True))
    return [
        Task(row["text"], [texts[gold]], [int(share * sizes[gold]) for share in SHARES], half, row["answers"])
        for row, gold, half in rows
    ]


def questions_of(arguments: argparse.Namespace) -> tuple[list[tuple[dict, str, int]], dict[str, str]]:
    """Questions with the id of their passage and the half that its article is in, and the passages by id."""
    folder = arguments.data / "xquad-en"
    texts = {row["_id"]: row["text"] for row in json_lines(folder / "corpus.jsonl")}
    lines = (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]
    gold = dict(line.split("\t")[:2] for line in lines)
    articles = sorted({id_.split("#")[0] for id_ in texts})
    rows = list(json_lines(folder / "queries.jsonl"))
    step = len(rows) / arguments.questions if arguments.questions else 1.0
    some = [rows[int(i * step)] for i in range(arguments.questions or len(rows))]
    return [(row, gold[row["_id"]], articles.index(gold[row["_id"]].split("#")[0]) % 2) for row in some], texts


def meetings(arguments: argparse.Namespace, counter: Counter) -> list[Task]:
    tasks: list[Task] = []
    for number, meeting in enumerate(list(json_lines(arguments.data / "qmsum" / "val.jsonl"))[: arguments.meetings]):
        turns = [f"{turn['speaker']}: {turn['content']}\n" for turn in meeting["meeting_transcripts"]]
        ends = np.cumsum([0, *map(len, turns)]).tolist()
        text = "".join(turns)
        budgets = [int(share * counter.count(text)) for share in MEETING_SHARES]
        for row in meeting["specific_query_list"]:
            gold = [(ends[int(a)], ends[min(int(b) + 1, len(turns))]) for a, b in row["relevant_text_span"]]
            tasks.append(Task(row["query"], [text], budgets, number % 2, gold=gold))
    return tasks


TASKS = {"xquad": xquad, "passage": passages, "qmsum": meetings}


def json_lines(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


if __name__ == "__main__":
    main()
