"""Facts: what is pinned, that it takes linear time, and that facts are the last to go."""

from __future__ import annotations

import json

import pytest

from ctxkit.compression.baselines import Head, RareWords
from ctxkit.compression.prepared import compress
from ctxkit.compression.structure.code_level import read_code
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.words import Words
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter
from ctxkit.testing import tiny_counter

PINNED = {
    "connect to 10.0.0.5:8080 or 2001:db8::1 in 10.1.0.0/16 now": ["10.0.0.5:8080", "2001:db8::1", "10.1.0.0/16"],
    "pod payments-api-7d9f8b6c5-x2x9q in kube-system": ["payments-api-7d9f8b6c5-x2x9q"],
    "role arn:aws:iam::123456789012:role/Admin used": ["arn:aws:iam::123456789012:role/Admin"],
    "commit 3f2a9bc fixed it": ["3f2a9bc"],
    "mac 00:1A:2b:3c:4d:5e up": ["00:1A:2b:3c:4d:5e"],
    "call +1 (555) 123-4567 or (555) 123-4567": ["+1 (555) 123-4567", "(555) 123-4567"],
    "lasts PT1H30M or 1h30m": ["PT1H30M", "1h30m"],
    r"We get $x^2 + y$ and \(a+b\) and \frac{1}{2} ok": ["$x^2 + y$", r"\(a+b\)", r"\frac{1}{2}"],
    "costs USD 1,200 or 5.50 EUR or £3m, $5 and $6": ["USD 1,200", "5.50 EUR", "£3m", "$5", "$6"],
    "pages 10-20, 10–20, ratio 3:2 at 10:30 pm": ["10-20", "10–20", "3:2", "10:30 pm"],
    "in src/app.py:42:7, and/or at most km/h": ["src/app.py:42:7"],
    "run `pip install -e\n.[all]` (`serve`, `plot`, `gpu`)": ["`pip install -e\n.[all]`", "`serve`", "`plot`", "`gpu`"],
    r"open C:\Users\Ann Smith\file.txt and then go": [r"C:\Users\Ann Smith\file.txt"],
    "set $HOME ${PATH} DB_HOST=db.local": ["$HOME", "${PATH}", "DB_HOST=db.local"],
    "v2.0.1-rc.1+build.5 of python3.11": ["v2.0.1-rc.1+build.5", "python3.11"],
    "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_1 end": [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-DEF_1"
    ],
    "mail ann+test@ex-ample.co.uk. Ok": ["ann+test@ex-ample.co.uk"],
    "run --max-size=10M -x": ["--max-size=10M", "-x"],
    "e.g. the U.S. state-of-the-art and/or so": [],
    "[10/Oct/2000:13:55:36 -0700] GET": ["10/Oct/2000:13:55:36 -0700"],
    "see JIRA-123, foo_bar, FooBar, obj.name and #12": ["JIRA-123", "foo_bar", "FooBar", "obj.name", "#12"],
}
ADVERSARIAL = [
    "a-",
    "a.",
    "a/",
    "1-",
    "1.",
    "a_",
    "a",
    "A",
    "1",
    "0f",
    "/",
    "\\",
    "C:\\a ",
    '"',
    "`",
    "$",
    "$a",
    "-",
    "--a",
]
ADVERSARIAL += [
    "a@",
    "a+",
    "a:",
    "1:",
    "1,",
    "Jan ",
    "aB",
    "+1 ",
    "x=",
    "eyJ.",
    "1 ",
    "abcdef-",
    "~~~x\n```\n",
    "ff:",
    "arn:",
]


@pytest.mark.parametrize("text", PINNED)
def test_what_is_pinned(text: str) -> None:
    assert [text[start:end] for start, end in Pins().spans(text)] == PINNED[text]


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_no_text_takes_forever(unit: str) -> None:
    """A pattern that tries again from every place would take hours."""
    text = unit * (100_000 // len(unit))
    assert "".join(Words.of(text, Pins()).spaced) == text


def test_at_half_of_the_tokens_all_pins_are_kept_whatever_the_scores_say(counter: Counter) -> None:
    sentences = [f"The worker waited for quite a long time until request req-{i}f{i}a was done. " for i in range(40)]
    made = compress("".join(sentences), Head(structured=False), rate=0.5, counter=counter)
    assert all(f"req-{i}f{i}a" in made.text for i in range(40))
    small = compress("".join(sentences), Head(structured=False), rate=0.1, counter=counter)
    assert small.text.startswith("The worker waited")


ITEMS = [
    {
        "id": 1_000 + i,
        "user": {"login": f"dev-{i}"},
        "body": f"This is a \u201clong\u201d text\n\nwith words, see INV-{i}9{i}. " * 3,
    }
    for i in range(30)
]


@pytest.mark.parametrize("ascii_only", [True, False])
def test_strings_lose_words_before_an_item_goes(ascii_only: bool, counter: Counter) -> None:
    text = json.dumps(ITEMS, indent=1, ensure_ascii=ascii_only)
    made = compress(text, RareWords(), rate=0.5, counter=counter)
    first, explained, *rows = json.loads(made.text)
    assert explained == {"…": "rows: values of the keys above"}
    assert [first["id"], *(row[0] for row in rows)] == [item["id"] for item in ITEMS]
    assert rows[0][1] == ["dev-1"]
    assert all(f"INV-{i}9{i}" in made.text for i in range(30))
    assert made.tokens >= 0.97 * 0.5 * made.source_tokens


def test_json_lines_lose_words_too(counter: Counter) -> None:
    text = "\n".join(map(json.dumps, ITEMS)) + "\n"
    made = compress(text, RareWords(), rate=0.5, counter=counter)
    assert len([json.loads(line) for line in made.text.splitlines()]) == 31
    assert all(f"INV-{i}9{i}" in made.text for i in range(30))


def test_a_table_loses_words_of_its_sentences_before_rows(counter: Counter) -> None:
    rows = [
        f'T-{i},"It took a rather long time, and then some, to find {i}7 ms, so we gave up.",{i}' for i in range(20)
    ]
    made = compress("id,note,n\n" + "\n".join(rows) + "\n", RareWords(), rate=0.6, counter=counter)
    lines = made.text.splitlines()
    assert len(lines) == 21
    assert all(
        line.startswith(f'T-{i},"') and f"{i}7 ms" in line and line.endswith(f'",{i}')
        for i, line in enumerate(lines[1:])
    )


def test_similar_lines_of_a_log_keep_what_varies(counter: Counter) -> None:
    lines = [f"2024-05-01T10:00:{i:02d}Z INFO api request req-{i}a{i}c from 10.0.0.{i} took {i} ms" for i in range(50)]
    made = compress("\n".join(lines), RareWords(), rate=0.5, counter=counter)
    assert all(f"req-{i}a{i}c" in made.text and f"10.0.0.{i} " in made.text for i in range(50))


def test_prose_that_shows_code_is_no_code() -> None:
    text = (
        "# Title\n\nIt is used so:\n\n```python\nimport os\n\n\ndef f(x):\n    return os.path(x)\n```\n\nAnd so on.\n"
        * 3
    )
    assert read_code(text, LevelRequest("", tiny_counter())) is None


def test_words_in_code_marks_do_not_crowd_out_the_sentences_that_explain_them() -> None:
    names = " ".join(f"`{name}`" for name in ("system", "passage", "turn", "memory", "question"))
    words = Words.of(f"Kinds are {names} and ids like `INV-20931`.", Pins())
    facts = [word for word, fact in zip(words.proper, words.facts, strict=True) if fact]
    assert facts == ["`INV-20931`"]


def test_a_repeated_log_line_keeps_every_value_that_varies_also_where_the_first_line_has_it() -> None:
    lines = [f"12:{i // 60:02}:{i % 60:02} INFO HTTP/1.1 request {i} took {3 + i % 5} ms" for i in range(60)]
    left = compress("\n".join(lines), RareWords(), rate=0.3, counter=tiny_counter()).text.split("\n")
    assert left[0] == lines[0] and left[5:7] == ["5 3 ms", "6 4 ms"]
