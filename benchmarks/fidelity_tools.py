"""Do the facts of tool outputs survive compression? Generated documents of 15 kinds, every method at four rates.

    python benchmarks/fidelity_tools.py --ranks o200k_base.tiktoken          # tokens of o200k
    python benchmarks/fidelity_tools.py --model FOLDER --each 4 --kinds      # of a model, and one row for each kind

survival: facts (identifiers, numbers with units, URLs, paths, dates...) that stand in the output as a whole, of all.
mangled: facts of which at least half, but not all, stands there. valid: JSON documents whose output is JSON.
Random words, the head, rare words and no stop words know neither pins nor structure; "ours" ranks by rare words, too.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tool_outputs import Document, documents

from ctxkit.compression import ContentCompressor
from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.prepared import compress
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.protocols import Counter
from ctxkit.tokens import EstimatingCounter, OpenAIChatCounter, TemplateCounter

RATES = (0.2, 0.33, 0.5, 0.7)
FEW = 0.4  # of the tokens; a text whose facts take more cannot keep them all in half
METHODS: dict[str, TextCompressor] = {
    "random words": RandomWords(pins=None, structured=False),
    "head": Head(pins=None, structured=False),
    "rare words (idf)": RareWords(pins=None, structured=False),
    "no stop words": NoStopWords(pins=None, structured=False),
    "ours": RareWords(),
    "ours, ContentCompressor": ContentCompressor(),
}


@dataclass(frozen=True)
class Score:
    """Of one output. share: of the tokens of the source that its facts take. valid: None where the source is no JSON.

    used: share of the budget.
    """

    kind: str
    share: float
    facts: int
    whole: int
    mangled: int
    valid: bool | None
    used: float


def score(document: Document, method: TextCompressor, rate: float, counter: Counter) -> Score:
    made = compress(document.text, method, rate=rate, counter=counter)
    text = made.text.replace("\\n", " ") if document.is_json else made.text
    whole = [fact for fact in document.facts if stands(fact, text)]
    mangled = sum(half_stands(fact, text) for fact in set(document.facts) - set(whole))
    valid = is_json(document.kind, made.text) if document.is_json else None
    used = made.tokens / max(rate * made.source_tokens, 1)
    share = sum(counter.count_batch(document.facts)) / made.source_tokens
    return Score(document.kind, share, len(document.facts), len(whole), mangled, valid, used)


def stands(fact: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", text) is not None


def half_stands(fact: str, text: str) -> bool:
    half = -(-len(fact) // 2)
    return len(fact) > 3 and (fact[:half] in text or fact[-half:] in text)


def is_json(kind: str, text: str) -> bool:
    try:
        for part in text.splitlines() if kind == "json lines" else [text]:
            json.loads(part)
    except ValueError:
        return False
    return bool(text)


def row(name: str, scores: Sequence[Sequence[Score]]) -> str:
    """One line of the table: survival, mangled, valid and used at each rate."""
    cells = []
    for found in scores:
        facts = sum(one.facts for one in found)
        valid = [one.valid for one in found if one.valid is not None]
        survived, mangled = sum(one.whole for one in found) / facts, sum(one.mangled for one in found) / facts
        is_valid = f"{sum(valid) / len(valid):5.0%}" if valid else "    -"
        used = sum(one.used for one in found) / len(found)
        cells.append(f"{survived:6.1%} {mangled:6.1%} {is_valid} {used:5.0%}")
    return f"| {name:24} | {' | '.join(cells)} |"


def counter_of(arguments: argparse.Namespace) -> Counter:
    if arguments.ranks:
        return OpenAIChatCounter.from_ranks(arguments.ranks, pattern="o200k")
    return TemplateCounter.from_folder(arguments.model) if arguments.model else EstimatingCounter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=16, help="documents of each kind")
    parser.add_argument("--kinds", action="store_true", help="one row for each kind, of our methods")
    parser.add_argument("--ranks", type=Path, help="o200k rank file of tiktoken")
    parser.add_argument("--model", type=Path, help="folder with a tokenizer and its chat template")
    arguments = parser.parse_args()
    counter, made = counter_of(arguments), documents(arguments.each)
    tokens = counter.count_batch([document.text for document in made])
    print(f"{len(made)} documents, {sum(tokens):,} tokens, {sum(len(one.facts) for one in made):,} facts")
    print(f"| survival, mangled, valid JSON, budget used at | {' | '.join(f'{rate:.0%}' for rate in RATES)} |")
    print("|---|" + "---|" * len(RATES))
    for name, method in METHODS.items():
        scores = [[score(document, method, rate, counter) for document in made] for rate in RATES]
        print(row(name, scores), flush=True)
        if name == "ours":
            few = [[one for one in found if one.share < FEW] for found in scores]
            print(row(f"  facts < {FEW:.0%}, {len(few[0])} texts", few), flush=True)
        if arguments.kinds and name.startswith("ours"):
            for kind in dict.fromkeys(document.kind for document in made):
                print(row(f"  {kind}", [[one for one in found if one.kind == kind] for found in scores]), flush=True)


if __name__ == "__main__":
    main()
