"""Answers: what a reply comes to, as text that can be compared. None where there is none.

Two replies vote for the same if their answers are equal, so extractors bring what they find into one form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from ctxkit_agents.runtime.reading import json_values

Extractor = Callable[[str], str | None]
"""A reply's text to its answer; None where there is none."""

_NUMBER = re.compile(r"(?<![\w.])[-−+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])|(?<![\w.])[-−+]?\.\d+", re.ASCII)
_SAID = re.compile(r"\b(?:final answer|answer)\b(?:\s+(?:is|would be))?\s*[:=]?\s*", re.IGNORECASE)
_MARKS = " \t*_`\"'“”‘’.,;:!?()[]{}#>"


def last_number(text: str) -> str | None:
    """The last number in the text, without commas, currency and needless zeros.

    >>> last_number("18 of 24, so it costs $1,234.50.")
    '1234.5'
    """
    found = _NUMBER.findall(text)
    return _canonical(found[-1]) if found else None


def last_line(text: str) -> str | None:
    """The last line with a word in it: lower case, single spaces, no marks around it, nothing before "answer is".

    >>> last_line("Let me see.\\n**The answer is: Paris.**")
    'paris'
    """
    for line in reversed(text.splitlines()):
        for said in (_SAID.split(line)[-1], line):
            if any(map(str.isalnum, said)):
                return folded(said)
    return None


def final_answer(text: str) -> str | None:
    """The last number; the last line where there is no number. The default of `Vote`."""
    return last_number(text) or last_line(text)


def choice(options: Sequence[str]) -> Extractor:
    """Which of the options the reply takes: the first behind the last "answer is", else the last that it names.

    Case does not matter, but for options of one letter: an article is no answer A.
    Raises ValueError where there are fewer than two, and where two are the same.
    """
    if (
        len(options) < 2
        or len({_option(option) for option in options}) < len(options)
        or not all(map(_option, options))
    ):
        raise ValueError(f"`options` must be two or more different words, got {list(options)!r}")
    longest_first = sorted(options, key=len, reverse=True)  # "not sure" before "sure"
    any_of = re.compile("|".join(rf"(?<!\w)({_pattern(option)})(?!\w)" for option in longest_first))

    def extract(text: str) -> str | None:
        *_, behind = _SAID.split(text)
        named = list(any_of.finditer(text))
        found = any_of.search(behind) if behind != text else None
        found = found or (named[-1] if named else None)
        return longest_first[(found.lastindex or 1) - 1] if found else None

    return extract


def json_field(name: str) -> Extractor:
    """The field of the last JSON object in the reply that has it. Numbers and text are brought into one form."""

    def extract(text: str) -> str | None:
        found = [value[name] for value in json_values(text) if isinstance(value, dict) and name in value]
        return _of_json(found[-1]) if found else None

    return extract


def _canonical(number: str) -> str:
    """Written one way: "-0.50" and "-.5" are one number."""
    sign = "-" if number[0] in "-−" else ""
    whole, _, part = number.lstrip("-−+$").replace(",", "").partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    if whole == "0" and not part:
        return "0"
    return f"{sign}{whole}.{part}" if part else f"{sign}{whole}"


def folded(text: str) -> str:
    """In small letters and single spaces, without the marks around it."""
    return " ".join(text.casefold().split()).strip(_MARKS)


def _option(option: str) -> str:
    return option.strip() if len(option.strip()) == 1 else folded(option)


def _pattern(option: str) -> str:
    words = r"\s+".join(re.escape(word) for word in option.split())
    return words if len(option.strip()) == 1 else f"(?i:{words})"


def _of_json(value: Any) -> str | None:
    if isinstance(value, bool | dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    if isinstance(value, int | float):
        return last_number(format(Decimal(str(value)), "f"))
    if value is None:
        return None
    text = str(value).strip()
    return _canonical(text) if _NUMBER.fullmatch(text) else folded(text) or None
