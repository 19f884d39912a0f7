"""Is the answer inside the packed context? ctxkit's own pack against BM25 alone and dense alone, in one run.

    python benchmarks/pack_recall.py [DATA_FOLDER] [--budgets 300 500 1000]

Data: xquad-en in BEIR form (corpus.jsonl, queries.jsonl with `answers`), 240 passages, 1,190 questions. A question
counts where one of its answer strings is in the packed text. Tokens are those of the named model's own tokenizer, and
the budget is the whole text that `ctxkit pack` prints, citation numbers and titles included.

`ctxkit` is the product as the command line has it: `ctxkit index`, then `ctxkit pack` (passages cut at 200 encoder
tokens); `ctxkit whole` is the same over uncut passages. The other rows are the usual way: whole passages of one
ranking, best first, until the next does not fit, counted bare, without number and title, which favours them. `fusion`
is our score fusion, `rrf` reciprocal rank fusion of BM25 and MiniLM.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ctxkit.documents import Chunker, load
from ctxkit.models import resolve
from ctxkit.pipeline import Pipeline
from ctxkit.retrieval import Hit, Index, ReciprocalRankFusion, SentenceTransformerEncoder
from ctxkit.tokens import TemplateCounter

CANDIDATES = 40


def main() -> None:
    arguments = parse()
    counter = TemplateCounter.from_folder(resolve(arguments.model)).as_text()
    queries = read(arguments.data / "queries.jsonl")[: arguments.limit]
    documents = load(arguments.data / "corpus.jsonl")
    with ExitStack() as opened:
        encoder = SentenceTransformerEncoder()
        whole, cut = 10**6, 200
        indexes = {
            name: opened.enter_context(Index.in_memory(encoder=encoder, fusion=fusion))
            for name, fusion in (("cut", None), ("whole", None), ("rrf", ReciprocalRankFusion()))
        }
        for name, index in indexes.items():
            index.add(Chunker(encoder.count_batch, cut if name == "cut" else whole).chunk_all(documents))
        print(f"{len(documents)} passages, {len(queries)} questions, tokens of {counter.name}")
        rows = {
            "ctxkit": pack_ctxkit(indexes["cut"], counter),
            "ctxkit whole": pack_ctxkit(indexes["whole"], counter),
            "fusion": pack_ranking(indexes["whole"], counter, "hybrid"),
            "rrf": pack_ranking(indexes["rrf"], counter, "hybrid"),
            "bm25": pack_ranking(indexes["whole"], counter, "lexical"),
            "dense": pack_ranking(indexes["whole"], counter, "dense"),
        }
        print(f"{'':>12} " + " ".join(f"{budget:>8}" for budget in arguments.budgets) + "   ms/question")
        for name, pack in rows.items():
            started = time.perf_counter()
            shares = [recall(queries, pack, budget) for budget in arguments.budgets]
            spent = (time.perf_counter() - started) / (len(queries) * len(arguments.budgets))
            figures = " ".join(f"{share:>8.4f}" for share in shares)
            print(f"{name:>12} {figures}   {1000 * spent:.1f}", flush=True)


def parse() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "xquad-en"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--budgets", type=int, nargs="+", default=[300, 500, 1000])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="whose tokens are counted")
    parser.add_argument("--limit", type=int, default=None, help="only the first questions")
    return parser.parse_args()


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


Pack = Callable[[str, int], str]


def pack_ctxkit(index: Index, counter: TemplateCounter) -> Pack:
    pipeline = Pipeline(index, candidates=CANDIDATES)
    return lambda question, budget: pipeline.pack(question, counter=counter, budget_tokens=budget).text


def pack_ranking(index: Index, counter: TemplateCounter, mode: str) -> Pack:
    """Whole passages, best first, each that still fits."""

    def pack(question: str, budget: int) -> str:
        hits: Sequence[Hit] = index.search(question, k=CANDIDATES, mode=mode)  # type: ignore[arg-type]
        taken: list[str] = []
        for hit in hits:
            if counter.count("\n\n".join([*taken, hit.chunk.text])) <= budget:
                taken.append(hit.chunk.text)
            else:
                break
        return "\n\n".join(taken)

    return pack


def recall(queries: Sequence[dict], pack: Pack, budget: int) -> float:
    found = 0
    for query in queries:
        text = pack(query["text"], budget)
        found += any(answer in text for answer in query["answers"])
    return found / len(queries)


if __name__ == "__main__":
    main()
