"""Clusters under a budget against plain top-k, MMR and near-duplicate removal, all at the same tokens.

    python benchmarks/crag.py [DATA_FOLDER] [--copies 1 5] [--questions 200] [--meetings 8] [--encoder minilm]

xquad-en: each of the 240 passages is indexed in so many lightly rewritten copies (sentences in another order, a prefix
before them). A question counts where one of its answer strings is in the context. `pairs` asks two questions about
passages of two articles at once; each of the two counts for half. QMSum (val): meetings, cut into runs of turns of
about 150 words, each in so many copies (turns in another order, a prefix before them); what counts is the share of the
gold turns' sentences (five words or more) that are in the context word for word. One copy is natural repetition only.

Every row but the first has, for each question, the same budget: a share of the tokens of plain top-k (20 hits, whole).
Budgets of 0.54 and less are at least 46 % fewer tokens. Tokens are those of the named model's own tokenizer, citation
numbers and titles included. `used` is what the rows took of plain top-k's tokens at each budget. Hits, and vectors, are
the same for all rows. Mode `summarise` is not here: it measures the model that writes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ctxkit.compression.text.segment import sentence_bounds
from ctxkit.context import Budget, fit
from ctxkit.context.compose import compose
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import BudgetInfeasible
from ctxkit.models import resolve
from ctxkit.pipeline.crag import ClusteredRag
from ctxkit.protocols import Encoder
from ctxkit.retrieval import HashingEncoder, Hit, Index, SentenceTransformerEncoder
from ctxkit.retrieval.clusters import hit_vectors, mmr, without_near_duplicates
from ctxkit.tokens import TemplateCounter, truncate

CANDIDATES = 20
SHARES = (0.54, 0.25, 0.1)
PREFIXES = ("", "As reported earlier: ", "From the archive. ", "Updated version: ", "In short, ", "For the record. ")


@dataclass(frozen=True)
class Task:
    """A question, its hits, and what it wants to find: of each group of texts any one."""

    asked: str
    hits: list[Hit]
    vectors: np.ndarray
    wanted: list[list[str]]

    def found(self, text: str) -> float:
        text = " ".join(text.split())
        return float(np.mean([any(one in text for one in group) for group in self.wanted]))


Pack = Callable[[Task, int], tuple[str, int]]


def main() -> None:
    arguments = parse()
    counter = TemplateCounter.from_folder(resolve(arguments.model)).as_text()
    encoder: Encoder = HashingEncoder(256) if arguments.encoder == "hashing" else SentenceTransformerEncoder()
    print(f"{encoder.name}, tokens of {counter.name}, top-k of {CANDIDATES}")
    for copies in arguments.copies:
        with Index.in_memory(encoder=encoder) as index:
            index.add(xquad_chunks(arguments.data / "xquad-en", copies))
            for pairs in (False, True):
                asked = xquad_questions(arguments.data / "xquad-en", arguments.questions, pairs)
                tasks = list(answered(index, asked))
                report(f"xquad-en, {copies} copies, {'pairs' if pairs else 'single'}", tasks, counter)
    if arguments.meetings:
        for copies in arguments.copies:
            tasks = list(meetings(arguments.data / "qmsum" / "val.jsonl", arguments.meetings, copies, encoder))
            report(f"QMSum, {arguments.meetings} meetings, {copies} copies", tasks, counter)


def parse() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--meetings", type=int, default=8, help="of QMSum; 0 leaves it out")
    parser.add_argument("--encoder", choices=("minilm", "hashing"), default="minilm")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="whose tokens are counted")
    return parser.parse_args()


def rows(counter: TemplateCounter) -> dict[str, Pack]:
    """The ways to fill a budget, by name."""

    def top_k(task: Task, budget: int) -> tuple[str, int]:
        return cut_off(task.hits, budget, counter)

    def fitted(task: Task, budget: int) -> tuple[str, int]:
        plan = fit([hit.as_part() for hit in task.hits], budget=Budget(budget), counter=counter)
        return plan.text, plan.prompt_tokens

    def by_mmr(balance: float) -> Pack:
        return lambda task, budget: cut_off(mmr(task.hits, task.vectors, balance=balance), budget, counter)

    def distinct(**threshold: float) -> Pack:
        return lambda task, budget: cut_off(
            without_near_duplicates(task.hits, task.vectors, **threshold), budget, counter
        )

    def clustered(**settings: str | int) -> Pack:
        rag = ClusteredRag(**settings)  # type: ignore[arg-type]

        def pack(task: Task, budget: int) -> tuple[str, int]:
            made = rag.pack(task.asked, task.hits, task.vectors, budget_tokens=budget, counter=counter)
            return made.plan.text, made.tokens_out

        return pack

    packs = {"top-k, cut off": top_k, "top-k, fit": fitted, "MMR 0.7": by_mmr(0.7), "MMR 0.5": by_mmr(0.5)}
    packs |= {"distinct, cosine 0.95": distinct(cosine=0.95), "distinct, jaccard 0.6": distinct(jaccard=0.6)}
    for mode in ("representatives", "extract"):
        for k in ("silhouette", "paper", "budget"):
            packs[f"crag {mode}, {k}"] = clustered(mode=mode, k=k)
    return packs


def cut_off(hits: Sequence[Hit], budget: int, counter: TemplateCounter) -> tuple[str, int]:
    """The passages as one text, cut where the budget ends."""
    text = "\n\n".join(message.content for message in compose([hit.as_part() for hit in hits]))
    text = truncate(text, budget, counter)
    return text, counter.count(text)


@dataclass
class Tally:
    found: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    seconds: float = 0.0


def report(title: str, tasks: Sequence[Task], counter: TemplateCounter) -> None:
    """One table on stdout."""
    wholes = [cut_off(task.hits, 10**9, counter) for task in tasks]
    mean = np.mean([tokens for _, tokens in wholes])
    recall = np.mean([task.found(text) for task, (text, _) in zip(tasks, wholes, strict=True)])
    print(f"\n{title}: {len(tasks)} questions, plain top-k takes {mean:,.0f} tokens and holds {recall:.3f}")
    print(f"{'':>30}" + "".join(f"{share:>8.2f}" for share in SHARES) + "    used" + " " * 14 + "ms")
    for name, pack in rows(counter).items():
        tallies = [tally(pack, tasks, [int(share * tokens) for _, tokens in wholes]) for share in SHARES]
        used = [np.sum(one.used) / (mean * len(tasks)) for one in tallies]
        figures = "".join(f"{np.mean(one.found):>8.3f}" for one in tallies)
        spent = 1000 * sum(one.seconds for one in tallies) / (len(tasks) * len(SHARES))
        print(f"{name:>30}{figures}    {' '.join(f'{one:.2f}' for one in used)}  {spent:>6.1f}", flush=True)


def tally(pack: Pack, tasks: Sequence[Task], budgets: Sequence[int]) -> Tally:
    """A context that cannot be had at all in its budget holds nothing."""
    result = Tally()
    started = time.perf_counter()
    for task, budget in zip(tasks, budgets, strict=True):
        try:
            text, tokens = pack(task, budget)
        except BudgetInfeasible:
            text, tokens = "", 0
        if tokens > budget:
            raise SystemExit(f"{tokens} tokens in a budget of {budget}")
        result.found.append(task.found(text))
        result.used.append(tokens)
    result.seconds = time.perf_counter() - started
    return result


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def xquad_chunks(folder: Path, copies: int) -> Iterator[Chunk]:
    draw = random.Random(0)
    for record in read(folder / "corpus.jsonl"):
        sentences = [record["text"][a:b].strip() for a, b in bounds_of(record["text"])]
        for copy in range(copies):
            text = PREFIXES[copy % len(PREFIXES)] + " ".join(sentences)
            yield Chunk(f"{record['_id']}/{copy}", f"{record['_id']}.{copy}.txt", text, (record["title"],))
            draw.shuffle(sentences)


def bounds_of(text: str) -> Iterator[tuple[int, int]]:
    bounds = sentence_bounds(text)
    return zip(bounds, bounds[1:], strict=False)


def xquad_questions(folder: Path, limit: int, pairs: bool) -> list[tuple[str, list[list[str]]]]:
    """(what is asked, answers of each question in it), drawn with a fixed seed."""
    queries = read(folder / "queries.jsonl")
    random.Random(1).shuffle(queries)
    single = [(query["text"], [[" ".join(one.split()) for one in query["answers"]]]) for query in queries]
    if not pairs:
        return single[:limit]
    both = zip(single[:limit], single[limit : 2 * limit], strict=False)
    return [(f"{one} {other}", found + more) for (one, found), (other, more) in both]


def answered(index: Index, asked: Sequence[tuple[str, list[list[str]]]]) -> Iterator[Task]:
    """The questions with their hits; each chunk is encoded once more for its vector."""
    known: dict[str, np.ndarray] = {}
    for question, wanted in asked:
        hits = index.search(question, CANDIDATES)
        new = [hit for hit in hits if hit.chunk.id not in known]
        if new:
            known.update(zip((hit.chunk.id for hit in new), hit_vectors(new, index.encoder), strict=True))
        yield Task(question, hits, np.stack([known[hit.chunk.id] for hit in hits]), wanted)


def meetings(path: Path, limit: int, copies: int, encoder: Encoder) -> Iterator[Task]:
    for number, meeting in enumerate(read(path)[:limit]):
        turns = [f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]]
        with Index.in_memory(encoder=encoder) as index:
            index.add(turn_chunks(turns, f"meeting-{number}", copies))
            asked = [(query["query"], gold(turns, query)) for query in meeting["specific_query_list"]]
            yield from answered(index, [(question, wanted) for question, wanted in asked if wanted])


def turn_chunks(turns: Sequence[str], source: str, copies: int, words: int = 150) -> Iterator[Chunk]:
    draw = random.Random(0)
    taken: list[str] = []
    for at, turn in enumerate(turns, start=1):
        taken.append(turn)
        if sum(len(one.split()) for one in taken) >= words or at == len(turns):
            for copy in range(copies):
                turned = taken if not copy else draw.sample(taken, len(taken))
                text = PREFIXES[copy % len(PREFIXES)] + "\n".join(turned)
                yield Chunk(f"{source}:{at}:{copy}", source, text, start_line=at - len(taken) + 1, end_line=at)
            taken = []


def gold(turns: Sequence[str], query: dict) -> list[list[str]]:
    """The sentences of the gold turns, each a thing to be found."""
    spans = [turns[int(first) : int(last) + 1] for first, last in query["relevant_text_span"]]
    texts = [turn for span in spans for turn in span]
    sentences = [" ".join(text[a:b].split()) for text in texts for a, b in bounds_of(text)]
    return [[sentence] for sentence in dict.fromkeys(sentences) if len(sentence.split()) >= 5]


if __name__ == "__main__":
    main()
