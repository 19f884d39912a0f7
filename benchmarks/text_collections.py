"""Texts without judgements as BEIR-form folders, to make a large collection of vectors.

    python benchmarks/text_collections.py /tmp/texts --qmsum ../shared/data/qmsum --gsm8k ../shared/data/gsm8k \\
        --docstrings numpy scipy torch --docstring-characters 2000000

QMSum: a document per meeting, and the questions about it. GSM8K: a document per problem, with its answer. Docstrings:
of functions and classes of installed packages, files in the order of their names, 300 characters or more each.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

LEAST_CHARACTERS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--qmsum", type=Path)
    parser.add_argument("--gsm8k", type=Path)
    parser.add_argument("--docstrings", nargs="*", default=[], metavar="PACKAGE")
    parser.add_argument("--docstring-characters", type=int, default=2_000_000)
    arguments = parser.parse_args()
    if arguments.qmsum:
        meetings = list(rows(arguments.qmsum / "val.jsonl"))
        write(arguments.out / "qmsum", map(transcript, meetings), questions(meetings))
    if arguments.gsm8k:
        problems = rows(arguments.gsm8k / "test.jsonl")
        write(arguments.out / "gsm8k", (f"{row['question']} {row['answer']}" for row in problems), ())
    if arguments.docstrings:
        texts = limited(docstrings(arguments.docstrings), arguments.docstring_characters)
        write(arguments.out / "docstrings", texts, ())


def rows(path: Path) -> Iterator[dict]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def transcript(meeting: dict) -> str:
    return " ".join(f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"])


def questions(meetings: Iterable[dict]) -> Iterator[str]:
    for meeting in meetings:
        yield from (row["query"] for row in meeting["specific_query_list"])


def docstrings(packages: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for package in packages:
        spec = importlib.util.find_spec(package)
        folders = (spec.submodule_search_locations if spec else None) or ()
        for path in sorted(path for folder in folders for path in Path(folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
            nodes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef))
            found = [ast.get_docstring(node) or "" for node in nodes]
            yield from (text for text in found if len(text) >= LEAST_CHARACTERS and text not in seen)
            seen.update(found)


def limited(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        characters -= len(text)
        yield text


def write(folder: Path, texts: Iterable[str], queries: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in (("corpus", texts), ("queries", queries)):
        lines = [json.dumps({"_id": str(i), "text": text}) + "\n" for i, text in enumerate(found)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{folder.name}: {len(lines):,} {name}, {sum(map(len, lines)):,} bytes")


if __name__ == "__main__":
    main()
