"""Antecedents: a sentence that begins with "He" or "However" goes with the one before it."""

from __future__ import annotations

from collections.abc import Sequence

import regex

_LEANS = regex.compile(
    r"\W*(?:he|she|it|they|him|them|his|her|hers|its|their|theirs|this|that|these|those|such|both|neither"
    r"|the (?:former|latter)"
    r"|however|therefore|thus|hence|moreover|furthermore|consequently|instead|nevertheless|nonetheless|additionally"
    r"|similarly|likewise|conversely|meanwhile|otherwise|then|afterwards?|but|also"
    r"|as a (?:result|consequence)|in (?:addition|contrast)|for (?:example|instance)|on the other hand"
    r"|because of this)\b",
    regex.IGNORECASE,
)

_LEAST_STEP = 1e-9


def leans(sentence: str) -> bool:
    """Whether it begins with a pronoun, a demonstrative or a connective (English): it says little by itself.

    >>> leans("They won."), leans("However, he lost."), leans("The Panthers won.")
    (True, True, False)
    """
    return _LEANS.match(sentence) is not None


def lifted(scores: Sequence[float], leaning: Sequence[bool]) -> list[float]:
    """The scores of the sentences of one text, that of an antecedent no more than a hair below its dependant's.

    An antecedent that leans itself lifts the one before it as well.

    >>> [round(score, 3) for score in lifted([0.1, 0.2, 0.9, 0.3], [False, True, True, False])]
    [0.9, 0.9, 0.9, 0.3]
    """
    raised = list(scores)
    for i in range(len(raised) - 1, 0, -1):
        if leaning[i]:
            raised[i - 1] = max(raised[i - 1], raised[i] - _LEAST_STEP)
    return raised
