"""The answer in what an agent said, in a form in which equal answers are equal strings; "" where there is none."""

from __future__ import annotations

from ctxkit_agents import answers


def last_number(text: str) -> str:
    """The last number, without thousands separators and trailing zeros; "" where there is none.

    >>> last_number("16 - 7 = 9, and 9 x $2,000 is $18,000.00.")
    '18000'
    """
    return answers.last_number(text) or ""


def final_answer(text: str) -> str:
    """The last number of the last line; where it has none, the line itself in lower case, without what surrounds it.

    >>> final_answer("There are 3 of them.\\nAnswer: 1,024."), final_answer("Built in 1889.\\n**Paris.**")
    ('1024', 'paris')
    """
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return last_number(last) or answers.folded(last)
