"""Label: how far a text is trusted and who may read it. Labels form a lattice, so what is made of several has one too.

Permissive information flow for language models (arXiv 2410.03055) is what they are for; see `ctxkit_agents.flow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

INTEGRITY = ("trusted", "untrusted")
"""Whose words a text is, the best first: of somebody who may give orders, or of anybody."""

SECRECY = ("public", "internal", "confidential", "secret")
"""How far a text may go, the freest first."""

_READERS = "for:"
_READER = re.compile(r"[^\s+,:]+")


@dataclass(frozen=True, slots=True)
class Label:
    """What a text may be used for. It has three axes, and each is a lattice of its own.

    integrity: one of INTEGRITY. secrecy: one of SECRECY.
    readers: the only ones who may read it; None for everybody. Any order of levels that is not SECRECY can be written
        as sets of readers: a level is who may read it.

    The label of everything that has none is `Label()`: trusted, public, for everybody. Raises ValueError for a name
    that is none.

    >>> str(Label("untrusted").join(Label(secrecy="secret")))
    'untrusted+secret'
    >>> Label.parse("internal").flows_to(Label.parse("secret"))
    True
    """

    integrity: str = "trusted"
    secrecy: str = "public"
    readers: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.integrity not in INTEGRITY:
            raise ValueError(f"`integrity` must be one of {', '.join(INTEGRITY)}, got {self.integrity!r}")
        if self.secrecy not in SECRECY:
            raise ValueError(f"`secrecy` must be one of {', '.join(SECRECY)}, got {self.secrecy!r}")
        if self.readers is None:
            return
        if isinstance(self.readers, str):
            raise ValueError(f"`readers` must be a set of names, got {self.readers!r}")
        object.__setattr__(self, "readers", frozenset(self.readers))
        for name in self.readers:
            if not isinstance(name, str) or not _READER.fullmatch(name):
                raise ValueError(f'a reader must be a name without white space, "+", "," and ":", got {name!r}')

    @property
    def is_default(self) -> bool:
        """Whether it is the label of everything that has none."""
        return self == DEFAULT

    @property
    def trusted(self) -> bool:
        return self.integrity == INTEGRITY[0]

    def flows_to(self, other: Label) -> bool:
        """Whether a text of this label may stand where `other` is the most that is allowed."""
        return (
            INTEGRITY.index(self.integrity) <= INTEGRITY.index(other.integrity)
            and SECRECY.index(self.secrecy) <= SECRECY.index(other.secrecy)
            and (self.readers is None or (other.readers is not None and self.readers >= other.readers))
        )

    def join(self, other: Label) -> Label:
        """The label of what is made of both: the least that both flow to."""
        return Label(
            max(self.integrity, other.integrity, key=INTEGRITY.index),
            max(self.secrecy, other.secrecy, key=SECRECY.index),
            _common(self.readers, other.readers),
        )

    @classmethod
    def parse(cls, text: str) -> Label:
        """The label that `str` writes: names of the axes joined by "+", those left out are the default.

        "" is `Label()`, "untrusted+secret+for:ann,bob" has all three axes, "for:" is for nobody. Raises ValueError.
        """
        found: dict[str, str | frozenset[str]] = {}
        for piece in filter(None, (piece.strip() for piece in text.split("+"))):
            axis, value = _axis(piece, text)
            if axis in found:
                raise ValueError(f"the label {text!r} says twice what its {axis} is")
            found[axis] = value
        return cls(**found)  # type: ignore[arg-type]

    def __str__(self) -> str:
        said = [self.integrity] * (not self.trusted) + [self.secrecy] * (self.secrecy != SECRECY[0])
        if self.readers is not None:
            said.append(_READERS + ",".join(sorted(self.readers)))
        return "+".join(said) or SECRECY[0]


DEFAULT = Label()
"""Trusted, public, for everybody: the least of all labels."""

HIGHEST = Label(INTEGRITY[-1], SECRECY[-1], frozenset())
"""Untrusted, secret, for nobody: everything flows to it."""


def joined(labels: Iterable[Label | None]) -> Label:
    """The label of what is made of all of these; None is the default."""
    result = DEFAULT
    for label in labels:
        if label is not None and label is not result:
            result = result.join(label)
    return result


def _common(mine: frozenset[str] | None, others: frozenset[str] | None) -> frozenset[str] | None:
    if mine is None or others is None:
        return others if mine is None else mine
    return mine & others


def _axis(piece: str, text: str) -> tuple[str, str | frozenset[str]]:
    """Which axis a piece of a label is of, and its value there."""
    if piece in INTEGRITY:
        return "integrity", piece
    if piece in SECRECY:
        return "secrecy", piece
    if piece.startswith(_READERS):
        names = (name.strip() for name in piece.removeprefix(_READERS).split(","))
        return "readers", frozenset(filter(None, names))
    known = ", ".join((*INTEGRITY, *SECRECY))
    raise ValueError(f'{piece!r} in the label {text!r} is none of {known}, nor "for:" and names of readers')
