"""What of a JSON text to keep first: the ranking of its values, of the words of its strings, and of repeated keys.

Facts come before words: first all values (the question's and the ends of arrays in front), of long strings only their
very best words; then the pins in them; then their other words; then the keys that an earlier item has said.
"""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ctxkit.compression.structure.json_rows import MOST_FIELDS, Rows
from ctxkit.compression.structure.json_string import JsonString
from ctxkit.compression.structure.json_tree import Node
from ctxkit.compression.text.score import ends_first, terms

VALUES, PINS, WORDS, KEYS = range(4)
"""The tiers of the ranking."""

_LEAD = 0.1  # share of a string that comes with its item
_ASKED_LEAD_CHARS = 400
_ASKED = 0.5
_TIER_VALUE = (1.0, 1.0, 0.15, 0.02)
_MOST_TERMS = 64


@dataclass(frozen=True, slots=True)
class Atom:
    """A node, one more word of its string, or the keys of an item.

    score: value of a character. chars: what it adds to the output, about. word: number of words of the string in front
    of it in their ranking; -1 for the node itself. opens_gap, closes_gap: a marker comes, or goes, with it.
    """

    tier: int
    node: int
    score: float
    chars: int
    word: int = -1
    opens_gap: bool = False
    closes_gap: bool = False

    @property
    def extends(self) -> bool:
        """Whether the node is in already."""
        return self.word >= 0 or self.tier == KEYS

    @property
    def mass(self) -> float:
        return _TIER_VALUE[self.tier] * max(self.score, 1e-3) * self.chars


@dataclass(frozen=True)
class Ranking:
    """atoms: best first, parents before children. least: how many of them must stay.

    orders: the words of each string, best first, by node.
    """

    atoms: list[Atom]
    least: int
    orders: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class Tree:
    """A JSON text with what its ranking needs. rows: see `rows_of`. strings, word_scores: by node."""

    text: str
    nodes: Sequence[Node]
    rows: Rows
    strings: Mapping[int, JsonString]
    word_scores: Mapping[int, Sequence[float]]


def ranked_atoms(tree: Tree, question: str, *, lean: float, keep_fields: bool) -> Ranking:
    nodes = tree.nodes
    matches = _matches(tree.text, nodes, question)
    models = {nodes[item].parent for item in tree.rows if item >= 0}
    scores: list[float] = []
    must: list[bool] = []
    for index, node in enumerate(nodes):
        outer = node.parent <= 0 and (node.parent < 0 or nodes[0].opener == "{" and keep_fields)
        weight = 1.0 if node.parent < 0 else _weight(node, nodes[node.parent], matches[index], lean)
        if node.parent in models and node.opener == "{" and tree.rows[index] != index:
            weight = 1.0  # the item that says what the keys of the others are
        scores.append(weight if node.parent < 0 else scores[node.parent] * weight)
        must.append(outer)
    atoms: list[Atom] = []
    orders: dict[int, Sequence[int]] = {}
    for index in range(len(nodes)):
        atoms.append(_value(tree, index, scores[index]))
        if index in tree.strings:
            words, orders[index] = _words(tree, index, scores[index], matches[index])
            atoms += words
        if tree.rows[index] == index:
            atoms.append(Atom(KEYS, index, scores[index], _key_chars(tree, index)))
    atoms.sort(key=lambda atom: (atom.extends or not must[atom.node], atom.tier, -atom.score, atom.node, atom.word))
    return Ranking(atoms, sum(must), orders)


def _weight(node: Node, parent: Node, match: float, lean: float) -> float:
    """Share of its container's score, in (0, 1]."""
    if parent.opener == "[":
        return max((1 - lean) * ends_first(node.ordinal, parent.children), lean * match, 1e-3) / max(lean, 1 - lean)
    if node.ordinal < MOST_FIELDS:
        return 1.0  # an item comes with its fields, not after its siblings
    return math.sqrt(MOST_FIELDS / (node.ordinal + 1)) * (0.9 + 0.1 * match)


def _value(tree: Tree, index: int, score: float) -> Atom:
    node = tree.nodes[index]
    keyed = node.key is not None and tree.rows[node.parent] < 0
    name = node.key[1] - node.key[0] + 1 if keyed and node.key is not None else 0
    if node.is_container:
        return Atom(VALUES, index, score, name + 3, opens_gap=node.children > 0)
    if index in tree.strings:
        return Atom(VALUES, index, score, name + 3, opens_gap=True)
    return Atom(VALUES, index, score, name + node.end - node.start + 1)


def _words(tree: Tree, index: int, score: float, match: float) -> tuple[list[Atom], list[int]]:
    """Atoms of the words of a string, and the words in that order."""
    string = tree.strings[index]
    ranked, falling = string.ranked(tree.word_scores[index])
    chars, pinned = string.word_chars, string.words.pinned
    room = max(_LEAD * sum(chars), _ASKED_LEAD_CHARS if match >= _ASKED else 0)
    tiers: list[tuple[int, int, float]] = []
    for word, own in zip(ranked, falling, strict=True):
        room -= chars[word]
        tier = VALUES if room >= 0 else PINS if pinned[word] else WORDS
        tiers.append((tier, word, own if tier == WORDS else 0.9 * score))
    tiers.sort(key=lambda found: found[0])
    atoms = [
        Atom(tier, index, own, chars[word], rank, closes_gap=rank == 0) for rank, (tier, word, own) in enumerate(tiers)
    ]
    return atoms, [word for _, word, _ in tiers]


def _key_chars(tree: Tree, item: int) -> int:
    """Characters of the keys of an item and of what is in it."""
    total = 0
    for index in _inside(tree.nodes, item):
        node = tree.nodes[index]
        if node.key is not None and tree.rows[node.parent] == item:
            total += node.key[1] - node.key[0] + 1
    return total


def _inside(nodes: Sequence[Node], item: int) -> Iterator[int]:
    index = item + 1
    while index < len(nodes) and nodes[index].start < nodes[item].end:
        yield index
        index += 1


def _matches(text: str, nodes: Sequence[Node], question: str) -> list[float]:
    """Share of the question's words, rare ones first, that stand in each node's values and keys; in [0, 1]."""
    wanted = {term: 1 << bit for bit, term in enumerate(dict.fromkeys(terms(question)[:_MOST_TERMS]))}
    if not wanted:
        return [0.0] * len(nodes)
    masks = [_mask(text, node, wanted) for node in nodes]
    frequency = Tally(bit for mask in masks for bit in wanted.values() if mask & bit)
    for index in range(len(nodes) - 1, 0, -1):
        masks[nodes[index].parent] |= masks[index]
    rarest = math.log(1 + len(nodes))
    rarity = {bit: math.log(1 + len(nodes) / count) / rarest for bit, count in frequency.items()}
    return [sum(rarity[bit] for bit in rarity if mask & bit) / max(len(rarity), 1) for mask in masks]


def _mask(text: str, node: Node, wanted: dict[str, int]) -> int:
    spans = [node.key] if node.key is not None else []
    if not node.is_container:
        spans.append((node.start, node.end))
    mask = 0
    for start, end in spans:
        for term in terms(text[start:end]):
            mask |= wanted.get(term, 0)
    return mask
