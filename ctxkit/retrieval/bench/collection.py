"""Collections in BEIR form (arXiv 2104.08663): passages, and where there are any, queries and judgements."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxkit.documents.chunk import Chunk
from ctxkit.errors import DocumentError
from ctxkit.retrieval.evidence import sentences

_CORPUS, _QUERIES, _TEST = "corpus.jsonl", "queries.jsonl", "test.tsv"
_FEWEST_WORDS = 5  # of a sentence that is taken for a query


@dataclass(frozen=True)
class Collection:
    """Passages to be indexed as they are, and queries.

    queries: text by id. grades: of each query, the grade of each judged passage; empty where nobody judged.
    sampled: whether the queries are sentences of the passages, as there were none.
    """

    name: str
    passages: Sequence[Chunk]
    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, int]]
    sampled: bool = False


def read_collection(folder: str | Path, *, most_queries: int = 200, seed: int = 0) -> Collection:
    """`corpus.jsonl`, `queries.jsonl` and the judgements of `qrels/test.tsv`, else of all of `qrels/`, or `qrels.tsv`.

    most_queries: of more, so many are drawn. Where there are judgements, only judged queries count; where there are no
    queries, sentences of the passages take their place.

    Raises DocumentError where the corpus is missing or a file is not of that form.
    """
    place = Path(folder)
    passages = [_passage(place, row) for row in _rows(place / _CORPUS)]
    if not passages:
        raise DocumentError(str(place / _CORPUS), "it holds no passages")
    rng = random.Random(seed)
    if not (place / _QUERIES).is_file():
        return Collection(place.name, passages, _sentences(passages, most_queries, rng), {}, sampled=True)
    grades = _grades(place)
    queries = {str(row["_id"]): str(row["text"]) for row in _rows(place / _QUERIES, "_id", "text")}
    if grades:
        queries = {
            id_: text for id_, text in queries.items() if any(grade > 0 for grade in grades.get(id_, {}).values())
        }
    kept = sorted(rng.sample(list(queries), min(most_queries, len(queries))))
    if not kept:
        raise DocumentError(
            str(place / _QUERIES), "no query is judged by the qrels" if grades else "it holds no queries"
        )
    return Collection(place.name, passages, {id_: queries[id_] for id_ in kept}, grades)


def _passage(place: Path, row: Mapping[str, Any]) -> Chunk:
    title = str(row.get("title") or "").replace("_", " ").strip()
    id_ = str(row["_id"])
    return Chunk(id_, id_, str(row["text"]), (title,) if title else ())


def _rows(path: Path, *names: str) -> Iterator[dict[str, Any]]:
    needed = names or ("_id", "text")
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _row(path, number, line, needed)
    except UnicodeDecodeError as error:
        raise DocumentError(str(path), f"not UTF-8 (byte {error.start:,})") from error
    except OSError as error:
        raise DocumentError(
            str(path),
            f"cannot be read ({error.strerror}); a collection in BEIR form has {_CORPUS}, one passage to a line",
        ) from error


def _row(path: Path, number: int, line: str, needed: Sequence[str]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DocumentError(str(path), f"line {number:,} is not JSON: {error}") from error
    if not isinstance(row, dict) or any(name not in row for name in needed):
        raise DocumentError(str(path), f"line {number:,} is no object with {' and '.join(map(repr, needed))}")
    return row


def _grades(place: Path) -> dict[str, dict[str, int]]:
    folder = place / "qrels"
    files = [folder / _TEST] if (folder / _TEST).is_file() else sorted(folder.glob("*.tsv"))
    found: dict[str, dict[str, int]] = {}
    for path in files or [path for path in [place / "qrels.tsv"] if path.is_file()]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            fields = line.split("\t")
            if len(fields) == 3 and fields[2].strip().lstrip("-").isdigit():
                found.setdefault(fields[0], {})[fields[1]] = int(fields[2])
            elif line.strip() and number > 1:  # the first line names the columns
                raise DocumentError(str(path), f"line {number:,} is not query, passage and grade, set apart by tabs")
    return found


def _sentences(passages: Sequence[Chunk], most: int, rng: random.Random) -> dict[str, str]:
    """One sentence each of some passages."""
    found: dict[str, str] = {}
    for chunk in rng.sample(list(passages), len(passages)):
        telling = [text for _, _, text in sentences(chunk.text) if len(text.split()) >= _FEWEST_WORDS]
        if telling and len(found) < most:
            found[f"of {chunk.id}"] = rng.choice(telling)
    return found or {f"of {passages[0].id}": passages[0].text}
