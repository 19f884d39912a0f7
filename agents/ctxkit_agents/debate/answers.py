"""The answer in what an agent said, in a form in which equal answers are equal strings."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_AROUND = " \t\r\n.,;:!?*_`'\"()[]{}$"


def last_number(text: str) -> str:
    """The last number, without thousands separators and trailing zeros; "" where there is none.

    >>> last_number("16 - 7 = 9, and 9 x $2,000 is $18,000.00.")
    '18000'
    """
    found = _NUMBER.findall(text)
    if not found:
        return ""
    number = found[-1].replace(",", "").replace("-.", "-0.")
    number = f"0{number}" if number.startswith(".") else number
    return number.rstrip("0").rstrip(".") if "." in number else number


def final_answer(text: str) -> str:
    """The last number of the last line; where it has none, the line itself in lower case, without what surrounds it.

    >>> final_answer("There are 3 of them.\\nAnswer: 1,024."), final_answer("Built in 1889.\\n**Paris.**")
    ('1024', 'paris')
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    return last_number(lines[-1]) or " ".join(lines[-1].strip(_AROUND).lower().split())
