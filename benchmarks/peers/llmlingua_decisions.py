"""Records what llmlingua 0.2.2 keeps of some texts on small random checkpoints: what a test compares ctxkit with.

    python benchmarks/peers/llmlingua_decisions.py tests/compression/data/llmlingua_decisions.json

It prints the share that ctxkit decides alike when it keeps as many words of each text. The checkpoints are those
of `ctxkit.testing.token_classifier`, which come out the same everywhere. The texts stay clear of what llmlingua does on
purpose otherwise or by mistake (see LLMLingua2): one chunk each, no marks inside words.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from peers.llmlingua_worker import Workers  # noqa: E402

from ctxkit.compression.llmlingua2 import LLMLingua2  # noqa: E402
from ctxkit.compression.sources.word_source import WordSource  # noqa: E402
from ctxkit.compression.text.words import Words  # noqa: E402
from ctxkit.testing import WhitespaceCounter  # noqa: E402
from ctxkit.testing.token_classifier import Kind, tiny_token_classifier  # noqa: E402

FOLDERS: dict[Kind, str] = {"bert": "bert-base-multilingual-cased", "xlm-roberta": "xlm-roberta-large"}
NAMES = {"force_reserve_digit": "reserve_digits"}  # llmlingua's name and ours
WORDS = (
    "the meeting of council began at nine and a budget for roads was read Motion passed with votes from Smith Jones "
    "against We need more time to see what it costs before June said member who lives near river"
).split()
RARE = "Kowalczyk depots rescheduled 2019 4500 refunded walking reported Quarterly unresolved tested 17 largest".split()
CASES: list[dict[str, Any]] = [
    {"rate": 0.5},
    {"rate": 0.33},
    {"rate": 0.7, "token_to_word": "first"},
    {"rate": 0.4, "force_tokens": [".", ",", "Motion"]},
    {"rate": 0.4, "force_reserve_digit": True},
    {"rate": 0.3, "force_tokens": ["."], "drop_consecutive": True},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--venvs", type=Path, default=Path(user_cache_dir("ctxkit")) / "peers")
    parser.add_argument("--python", type=Path, help="an interpreter that has llmlingua 0.2.2")
    arguments = parser.parse_args()
    workers = Workers(arguments.venvs, arguments.python)
    texts = [written(random.Random(seed), 110) for seed in range(8)]
    found = {kind: decisions(workers, kind, texts) for kind in FOLDERS}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    made = {"peer": "llmlingua 0.2.2", "words": WORDS, "texts": texts, "cases": CASES, "kept": found}
    arguments.out.write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8")
    for kind in FOLDERS:
        for case, labels in zip(CASES, found[kind], strict=True):
            print(f"{kind:12} {agreement(kind, case, texts, labels):8.2%}  {case}", flush=True)


def written(draw: random.Random, count: int) -> str:
    """Sentences of words that the checkpoints know whole or in pieces."""
    sentences = []
    while sum(len(sentence.split()) for sentence in sentences) < count:
        words = draw.choices(WORDS + RARE, k=draw.randint(4, 14))
        words[len(words) // 2] += draw.choice(["", ","])
        sentences.append(" ".join(words) + draw.choice(".?!"))
    return " ".join(sentences)


def decisions(workers: Workers, kind: Kind, texts: list[str]) -> list[list[str]]:
    """For each case and text the words in order, "1" for kept and "0" for dropped."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = tiny_token_classifier(Path(folder) / FOLDERS[kind], kind, words=WORDS)
        with workers.llmlingua(checkpoint, 1) as peer:
            return [[asked(peer.ask([text], return_word_label=True, **case)) for text in texts] for case in CASES]


def agreement(kind: Kind, case: dict[str, Any], texts: list[str], labels: list[str]) -> float:
    """Share of the words that ctxkit decides as llmlingua did."""
    options = {NAMES.get(name, name): value for name, value in case.items() if name != "rate"}
    same = 0
    with tempfile.TemporaryDirectory() as folder:
        compressor = LLMLingua2(tiny_token_classifier(Path(folder), kind, words=WORDS), device="cpu", **options)
        for text, of_text in zip(texts, labels, strict=True):
            words = Words.of(text)
            source = WordSource(words, compressor.scores([words], "")[0], WhitespaceCounter())
            kept = set(source.order[: of_text.count("1")])
            same += sum((i in kept) == (label == "1") for i, label in enumerate(of_text))
    return same / sum(map(len, labels))


def asked(answer: dict[str, Any]) -> str:
    return "".join(str(kept) for _, kept in answer["decisions"])


if __name__ == "__main__":
    main()
