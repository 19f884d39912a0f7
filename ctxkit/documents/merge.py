"""Fills chunks with pieces that fit alone.

Tokens of a joined text are not the sum of its pieces' tokens, so groups are planned by sums, counted exactly in one
batch, and mended: too long ones are cut between pieces, neighbours that fit together are joined, and a small rest takes
from the group before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Group = list["Atom"]

_SMALL = 4  # a last group below 1/4 of the limit is evened out with the one before


@dataclass(frozen=True, slots=True)
class Atom:
    """A piece of text that fits alone: half-open char span, its tokens, and the section it may be joined within."""

    start: int
    end: int
    tokens: int
    section: int
    path: tuple[str, ...]


@dataclass
class Tally:
    """Counts texts in one call per batch and remembers the counts."""

    count: Callable[[Sequence[str]], list[int]]
    known: dict[str, int] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str]) -> list[int]:
        new = list(dict.fromkeys(text for text in texts if text not in self.known))
        if new:
            self.known.update(zip(new, self.count(new), strict=True))
        return [self.known[text] for text in texts]


@dataclass(frozen=True)
class Packer:
    """Packs the atoms of `text` into groups of at most `max_tokens`, each within one section."""

    text: str
    tally: Tally
    max_tokens: int

    def pack(self, atoms: Sequence[Atom]) -> list[Group]:
        """Groups in order; each atom in exactly one."""
        return self._even_out(self._join(self._mend(self._fill(atoms))))

    def _fill(self, atoms: Sequence[Atom]) -> list[Group]:
        groups: list[Group] = []
        planned = 0
        for atom in atoms:
            if groups and groups[-1][-1].section == atom.section:
                joined = planned + self._gap(groups[-1][-1], atom) + atom.tokens
                if joined <= self.max_tokens:
                    groups[-1].append(atom)
                    planned = joined
                    continue
            groups.append([atom])
            planned = atom.tokens
        return groups

    def _gap(self, left: Atom, right: Atom) -> int:
        """Tokens to expect for what stands between two atoms: one for a line end, a blank goes with the next word."""
        return 1 if "\n" in self.text[left.end : right.start] else 0

    def _tokens(self, groups: Sequence[Group]) -> list[int]:
        joined = [group for group in groups if len(group) > 1]
        counts = iter(self.tally([self.text[group[0].start : group[-1].end] for group in joined]))
        return [next(counts) if len(group) > 1 else group[0].tokens for group in groups]

    def _mend(self, groups: list[Group]) -> list[Group]:
        """Cuts the groups that are too long after all, near where the plan went wrong, until none is."""
        while True:
            counts = self._tokens(groups)
            if all(tokens <= self.max_tokens or len(g) == 1 for g, tokens in zip(groups, counts, strict=True)):
                return groups
            mended: list[Group] = []
            for group, tokens in zip(groups, counts, strict=True):
                if tokens <= self.max_tokens or len(group) == 1:
                    mended.append(group)
                else:
                    at = self._where_full(group, tokens)
                    mended.extend((group[:at], group[at:]))
            groups = mended

    def _where_full(self, group: Group, tokens: int) -> int:
        budget = self.max_tokens / tokens * sum(atom.tokens for atom in group)
        at, filled = 0, 0
        while at < len(group) - 1 and filled + group[at].tokens <= budget:
            filled += group[at].tokens
            at += 1
        return max(1, at)

    def _join(self, groups: list[Group]) -> list[Group]:
        """Joins neighbours of one section that fit together, in rounds, until no pair does."""
        refused: set[tuple[int, int]] = set()
        while True:
            counts = self._tokens(groups)
            pairs = self._promising(groups, counts, refused)
            if not pairs:
                return groups
            together = self._tokens([groups[i] + groups[i + 1] for i in pairs])
            joined = {i for i, tokens in zip(pairs, together, strict=True) if tokens <= self.max_tokens}
            refused.update((groups[i][0].start, groups[i + 1][-1].end) for i in pairs if i not in joined)
            groups = [
                groups[i] + groups[i + 1] if i in joined else groups[i]
                for i in range(len(groups))
                if i - 1 not in joined
            ]

    def _promising(self, groups: list[Group], counts: list[int], refused: set[tuple[int, int]]) -> list[int]:
        """Indices i, no two adjacent, where groups i and i + 1 may fit into one chunk."""
        found: list[int] = []
        for i in range(len(groups) - 1):
            left, right = groups[i], groups[i + 1]
            fits = left[0].section == right[0].section and counts[i] + counts[i + 1] <= self.max_tokens
            if fits and (left[0].start, right[-1].end) not in refused and (not found or found[-1] < i - 1):
                found.append(i)
        return found

    def _even_out(self, groups: list[Group]) -> list[Group]:
        """Moves atoms from a full group to a small last group of its section, where both then fit."""
        counts = self._tokens(groups)
        sections = [group[0].section for group in groups]
        small = [
            i
            for i in range(1, len(groups))
            if sections[i - 1] == sections[i] != (*sections, None)[i + 1] and counts[i] * _SMALL < self.max_tokens
        ]
        halves = [_halved(groups[i - 1] + groups[i]) for i in small]
        tokens = self._tokens([group for pair in halves for group in pair])
        for i, pair, left, right in zip(small, halves, tokens[::2], tokens[1::2], strict=True):
            if max(left, right) <= self.max_tokens:
                groups[i - 1 : i + 1] = pair
        return groups


def _halved(atoms: Group) -> tuple[Group, Group]:
    """Two groups of about the same size."""
    total = sum(atom.tokens for atom in atoms)
    at, filled = 1, atoms[0].tokens
    while at < len(atoms) - 1 and filled + atoms[at].tokens / 2 < total / 2:
        filled += atoms[at].tokens
        at += 1
    return atoms[:at], atoms[at:]
