"""The diff of two texts: it gives the second one back byte for byte, whatever the two are, and in bounded time."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxkit.compression.diffs import diff_text
from ctxkit.compression.diffs.align import changes

LINES = st.sampled_from(
    [
        "",
        "a",
        "b",
        "c",
        "+a",
        "-b",
        "@@ -1 +1 @@",
        "\\ No newline at end of file",
        " a",
        "a\r",
        "\r",
        "é天",
        "--- x",
        "\ud800",
    ]
)
TEXTS = st.one_of(
    st.lists(LINES, max_size=12).map("\n".join),
    st.lists(LINES, max_size=12).map(lambda lines: "".join(line + "\n" for line in lines)),
    st.text(st.characters(), max_size=60),
)


@given(TEXTS, TEXTS)
@example("", "")
@example("", "\n")
@example("a", "a\n")
@example("a\r\nb\r\n", "a\nb\r\n")
@example("\n\n\n", "\n\n")
def test_a_diff_gives_the_text_back(base: str, text: str) -> None:
    made = diff_text.diff(base, text)
    assert diff_text.apply(base, made) == text
    assert (made == "") == (base == text)


@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 4), max_size=30))
def test_what_lies_between_two_changes_is_equal(before: list[int], after: list[int]) -> None:
    at = new_at = 0
    for change in [*changes(before, after)]:
        assert before[at : change.start] == after[new_at : change.new_start]
        assert change.end > change.start or change.new_end > change.new_start
        at, new_at = change.end, change.new_end
    assert before[at:] == after[new_at:]


@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_few_edits_are_the_fewest(before: list[int], after: list[int]) -> None:
    longest = [[0] * (len(after) + 1) for _ in range(len(before) + 1)]
    for i, a in enumerate(before):
        for j, b in enumerate(after):
            longest[i + 1][j + 1] = longest[i][j] + 1 if a == b else max(longest[i][j + 1], longest[i + 1][j])
    edits = sum(one.end - one.start + one.new_end - one.new_start for one in changes(before, after))
    assert edits == len(before) + len(after) - 2 * longest[-1][-1]


def test_it_is_a_unified_diff_without_headers_and_context() -> None:
    base = "".join(f"line {n} of the file\n" for n in range(1, 31))
    text = base.replace("line 3 of", "line three of").replace("line 20 of the file\n", "") + "one more\n"
    assert diff_text.diff(base, text).split("\n") == [
        "@@ -3 +3 @@",
        "-line 3 of the file",
        "+line three of the file",
        "@@ -20 +19,0 @@",
        "-line 20 of the file",
        "@@ -30,0 +30 @@",
        "+one more",
    ]


def test_hunks_that_nearly_meet_are_one() -> None:
    assert diff_text.diff("a\nx\nb\n", "A\nx\nB\n") == "@@ -1,3 +1,3 @@\n-a\n+A\n x\n-b\n+B"


@pytest.mark.parametrize(
    ("base", "text"),
    [
        ("x\n" * 40_000 + "end\n", "y\n" + "x\n" * 39_000 + "z\n"),
        ("".join(f"{n}\n" for n in range(20_000)), "".join(f"{n}\n" for n in range(10_000, 30_000))),
        ("".join(f"{n}\n" for n in range(20_000)), "".join(f"other {n}\n" for n in range(20_000))),
        ("x\ny\n" * 10_000, "y\ny\nx\n" * 7_000),
    ],
    ids=["equal lines", "a shifted window", "nothing in common", "two lines in other orders"],
)
def test_large_texts_take_bounded_work(base: str, text: str) -> None:
    assert diff_text.apply(base, diff_text.diff(base, text)) == text


def test_a_large_text_with_a_few_changes_has_a_small_diff() -> None:
    rng = random.Random(3)
    lines = [f"{rng.choice(['open', 'late'])} order {n}\n" for n in range(30_000)]
    changed = [line if rng.random() > 0.01 else line.replace("order", "parcel") for line in lines]
    made = diff_text.diff("".join(lines), "".join(changed))
    assert len(made) < sum(2 * len(line) + 40 for line, new in zip(lines, changed, strict=True) if line != new)


@pytest.mark.parametrize(
    "made",
    ["@@ -1 +1 @@\n-b\n+c", "@@ -9 +9 @@\n-a\n+c", "no hunk", "@@ -1 +1 @@\n-a", "@@ -1 +1 @@\n?a\n+b", "\n"],
)
def test_a_diff_of_another_base_is_refused(made: str) -> None:
    with pytest.raises(ValueError, match="diff"):
        diff_text.apply("a\n", made)
