"""The communication unit: what a worker wrote, read from its answer, and held to its cap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctxkit.compression.prepared import compress
from ctxkit.compression.text_compressor import TextCompressor
from ctxkit.protocols import Counter
from ctxkit.tokens import truncate
from ctxkit_agents.runtime.reading import first_json

_QUOTE_LINE = re.compile(r"^[ \t>*-]*EVIDENCE(?:[ \t]*\d+)?[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_ANSWERED_LINE = re.compile(r"^[ \t>*-]*ANSWERED[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)
_HEADING = re.compile(r"^\s*(?:new |merged )?notes:\s*", re.IGNORECASE)
_OPENING, _CLOSING = "\"'“‘«", "\"'”’»"

_LOOP_TIMES = 3
_LOOP_WORDS = 16
_LOOP_LONGEST = 60  # words of what is said again and again


@dataclass(frozen=True, slots=True)
class Written:
    """What a worker wrote. unit: its notes. quotes: as it wrote them. answered: it says that the unit answers."""

    unit: str
    quotes: tuple[str, ...] = ()
    answered: bool = False


def read_answer(text: str) -> Written:
    """Notes, then lines `EVIDENCE: "..."` and `ANSWERED: yes`; or a JSON object {"unit", "evidence", "answered"}.

    >>> read_answer('A is 3.\\nEVIDENCE: "A=3"\\nANSWERED: yes')
    Written(unit='A is 3.', quotes=('A=3',), answered=True)
    """
    value = first_json(text) if text.lstrip().startswith(("{", "```")) else None
    if isinstance(value, Mapping) and isinstance(value.get("unit"), str):
        return _from_json(value)
    quotes = tuple(filter(None, (_unquoted(match[1]) for match in _QUOTE_LINE.finditer(text))))
    said = _ANSWERED_LINE.findall(text)
    unit = _ANSWERED_LINE.sub("", _QUOTE_LINE.sub("", text)).strip()
    return Written(_HEADING.sub("", unit).strip(), quotes, bool(said) and _yes(said[-1]))


def _from_json(value: Mapping[str, Any]) -> Written:
    quotes = value.get("evidence")
    listed = [quotes] if isinstance(quotes, str) else quotes if isinstance(quotes, list) else []
    answered = value.get("answered")
    return Written(
        value["unit"].strip(),
        tuple(one for one in listed if isinstance(one, str) and one.strip()),
        _yes(answered) if isinstance(answered, str) else answered is True,
    )


def _yes(said: str) -> bool:
    return said.strip().casefold().startswith("yes")


def _unquoted(quote: str) -> str:
    quote = quote.strip()
    if len(quote) > 1 and quote[0] in _OPENING and quote[-1] in _CLOSING:
        quote = quote[1:-1]
    return quote.strip()


def is_loop(text: str) -> bool:
    """Whether most of a text says the same few words again and again, to its end.

    >>> is_loop("It rains. " + "He said so. " * 9), is_loop("He said so. He said so.")
    (True, False)
    """
    words = text.split()
    if len(words) < _LOOP_WORDS:
        return False
    for period in range(1, min(_LOOP_LONGEST, len(words) // _LOOP_TIMES) + 1):
        same = _agreeing(words, period) + period
        if same >= max(_LOOP_TIMES * period, _LOOP_WORDS, len(words) // 2):
            return True
    return False


def _agreeing(words: list[str], period: int) -> int:
    """Words at the end that are the same as those `period` before them."""
    count = 0
    while count < len(words) - period and words[-1 - count] == words[-1 - count - period]:
        count += 1
    return count


def capped(text: str, tokens: int, counter: Counter, compressor: TextCompressor, question: str) -> str:
    """The text in at most `tokens` tokens: its best sentences and words; its beginning where these come to nothing."""
    if counter.count(text) <= tokens:
        return text
    shorter = compress(text, compressor, tokens=tokens, question=question, counter=counter).text.strip()
    if shorter and counter.count(shorter) <= tokens:
        return shorter
    return truncate(text, tokens, counter).strip()
