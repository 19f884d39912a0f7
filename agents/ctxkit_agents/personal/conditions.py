"""Conditions: when a standing instruction applies, what it then asks for, and when two of them contradict each other.

Rules for English sentences such as "When I book flights, I prefer aisle seats." No model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ctxkit.compression.text.score import terms

_LEADING = re.compile(
    r"^\s*(?:if|when|whenever|every time|each time|any time|in case|for|on|before|after|while)\b\s*(.+?)\s*"
    r"(?:,\s*then\b|,|:|\bthen\b)\s*(\S.*)$",
    re.IGNORECASE | re.DOTALL,
)
_TRAILING = re.compile(r"^(.+?),?\s+\b(?:if|when|whenever|every time|each time|in case)\b\s+(.+)$", re.I | re.DOTALL)
_GENERIC = frozenset(
    "about add also always anything ask book buy call find get give go good help let like look make making mention "
    "need new order plan please put request reserve say schedul search see set show something take talk tell thing "
    "try update use using want would".split()
)
_STATES = re.compile(r"\b(?:prefer\w*|like|love|favou?rite|hate|avoid|is|are|be|should|must)\b", re.IGNORECASE)
_NO = r"\b(?:no|not|never|without|don't|do not|doesn't|except|instead of|rather than|anything but)\b"
_DENIED = re.compile(_NO + r"((?:[ -]\w+){1,3})", re.IGNORECASE)
_SLOT_IS = re.compile(
    r"\b(?:my|the)\s+(?:(?:preferred|favou?rite|usual|default)\s+)?(\w+(?:\s\w+)?)\s+"
    r"(?:is|are|should be|must be|has to be)\s+(.+)$",
    re.IGNORECASE,
)
_SLOT_OF = re.compile(
    r"\b(?:prefer|want|use|choose|take|pick|like|give me|always)\s+(?:an?\s+|the\s+|only\s+)?"
    r"(\w[\w-]*(?:\s\w[\w-]*){0,2})\s*(?:[.,;]|$)",
    re.IGNORECASE,
)
_IN = re.compile(r"\b(answer|reply|write|respond|speak|talk)\b.*?\bin\s+(\w+)", re.IGNORECASE)


@dataclass(frozen=True)
class Conditional:
    """A standing instruction, read.

    condition: when it applies; "" for always. demand: what it asks for then.
    """

    text: str
    condition: str
    demand: str

    @classmethod
    def of(cls, text: str) -> Conditional:
        """
        >>> Conditional.of("If I ask for trains, look for hotels too.")
        Conditional(text='If I ask for trains, look for hotels too.', condition='I ask for trains', demand='look for \
hotels too')
        """
        said = " ".join(text.split()).rstrip(". ")
        if found := _LEADING.match(said):
            return cls(text, found[1], found[2])
        if found := _TRAILING.match(said):
            return cls(text, found[2], found[1])
        return cls(text, "", said)

    @property
    def triggers(self) -> bool:
        """Whether its demand has something done, so that other instructions may apply to that. A taste does not."""
        return not _STATES.search(self.demand)

    @cached_property
    def topic(self) -> frozenset[str]:
        """The words of the condition that matter."""
        return frozenset(stems(self.condition))

    @cached_property
    def slots(self) -> dict[str, str]:
        """What the demand sets, and to what: "I prefer aisle seats" sets seat to aisle."""
        if found := _IN.search(self.demand):
            return {f"{found[1].lower()} in": found[2].casefold()}
        if found := _SLOT_IS.search(self.demand):
            return {_stem(found[1].split()[-1].casefold()): found[2].casefold()}
        if found := _SLOT_OF.search(self.demand):
            *value, slot = found[1].split()
            if slot[0].isupper():  # a name: of what, nobody says
                return {"name": found[1].casefold()}
            return {_stem(_singular(slot)): " ".join(value).casefold()} if value else {}
        return {}

    @property
    def negative(self) -> bool:
        return re.search(_NO, self.demand, re.IGNORECASE) is not None


def stems(text: str) -> list[str]:
    """The words of a text without endings; without generic ones such as "ask" and "find" where others are left."""
    words = [word for word in terms(text.casefold()) if len(word) > 1 or not word.isascii()]  # not the s of "doctor's"
    telling = [word for word in words if word not in _GENERIC and _bare(word) not in _GENERIC]
    return [_stem(word) for word in telling or words]


def coverage(conditions: Sequence[str], said: str) -> list[float]:
    """Share of each condition's words that were said, of its best alternative where it has "or"; 1 for no condition.

    >>> coverage(["I look for trains or buses", "I book a window seat on a plane"], "A bus to Rome. Which seat?")
    [1.0, 0.3333333333333333]
    """
    heard = {_stem(word) for word in terms(said.casefold())}
    return [max(_covered(one, heard) for one in re.split(r"\bor\b|/", text)) for text in conditions]


def affirmed(said: str) -> str:
    """What was said without what was said no to: "a flight, but no hotel" speaks of no hotel."""
    return _DENIED.sub(" ", said)


def contradict(one: Conditional, other: Conditional) -> bool:
    """Whether two instructions that apply at once set one thing to two values, or one forbids what the other asks.

    Only of instructions with the same condition, or where one has none: a seat in a train is no seat in a plane.
    """
    if one.topic and other.topic and one.topic != other.topic:
        return False
    if set(_wanted(one)) == set(_wanted(other)) and one.negative != other.negative:
        return True
    return any(other.slots.get(slot, value) != value for slot, value in one.slots.items())


def overrides(said: str, one: Conditional) -> bool:
    """Whether what is said now says no to what the instruction asks for, or sets something else."""
    wanted = set(_wanted(one))
    if any(set(stems(no[1])) & wanted for no in _DENIED.finditer(said)) and not one.negative:
        return True
    return any(_sets_other(said, slot, value) for slot, value in one.slots.items())


def _sets_other(said: str, slot: str, value: str) -> bool:
    """ "a window seat" sets the slot seat to something else than "aisle"."""
    if slot.endswith(" in"):
        found = _IN.search(said)
        return found is not None and found[2].casefold() != value
    words, wanted = re.findall(r"\w[\w-]*", said.casefold()), stems(value)
    named = [word for word, noun in pairwise(words) if _stem(_singular(noun)) == slot and terms(word)]
    return any(_stem(word) not in wanted for word in named)


def _wanted(one: Conditional) -> list[str]:
    return stems(re.sub(_NO, " ", one.demand, flags=re.IGNORECASE))


def _covered(condition: str, heard: set[str]) -> float:
    wanted = set(stems(condition))
    return len(wanted & heard) / len(wanted) if wanted else 1.0


def _singular(word: str) -> str:
    found = terms(word.casefold())
    return found[0] if found else word.casefold()


def _stem(word: str) -> str:
    word = _bare(word)
    if word.endswith("ie") and len(word) > 3:  # of "ferries", whose s is gone already
        return word[:-2] + "y"
    return word.removesuffix("e") if len(word) > 3 else word


def _bare(word: str) -> str:
    """Without -ing and -ed."""
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            return word[:-1] if word[-1] == word[-2] and word[-1] not in "ls" else word
    return word
