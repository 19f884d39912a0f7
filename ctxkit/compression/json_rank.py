"""What of a JSON text to keep first: the ranking of its values and of the lengths of its strings."""

from __future__ import annotations

import json
import math
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit.compression.json_tree import Node
from ctxkit.compression.score import ends_first, terms
from ctxkit.compression.segment import divided

LONG_STRING_CHARS = 120
"""Strings up to this length are never clipped."""

WHOLE = 1 << 62
"""The clip of a value that is not clipped."""

_LONGEST_NAME_CHARS = 512  # a string without white space up to this length is an id, a path or a URL: never clipped
_CHUNK_CHARS = 60
_MANY_FIELDS = 24
_MOST_TERMS = 64


@dataclass(frozen=True, slots=True)
class Atom:
    """A node, or a longer piece of a string that is in already.

    clip: chars of the string that are kept, WHOLE for all of the value. chars: what it adds to the output, about.
    extends: the node is in already. opens_gap, closes_gap: a marker comes, or goes, with it.
    """

    node: int
    score: float
    chars: int
    clip: int = WHOLE
    extends: bool = False
    opens_gap: bool = False
    closes_gap: bool = False


def ranked_atoms(
    text: str, nodes: Sequence[Node], question: str, *, lean: float, keep_fields: bool
) -> tuple[list[Atom], int]:
    """Atoms, best first and parents before children, and how many of them must stay."""
    matches = _matches(text, nodes, question)
    scores: list[float] = []
    must: list[bool] = []
    for index, node in enumerate(nodes):
        outer = node.parent <= 0 and (node.parent < 0 or nodes[0].opener == "{" and keep_fields)
        weight = 1.0 if node.parent < 0 else _weight(node, nodes[node.parent], matches[index], lean)
        scores.append(weight if node.parent < 0 else scores[node.parent] * weight)
        must.append(outer)
    atoms = [atom for index in range(len(nodes)) for atom in _atoms(text, nodes[index], index, scores[index])]
    atoms.sort(key=lambda atom: (atom.extends or not must[atom.node], -atom.score, atom.node, atom.clip))
    return atoms, sum(must)


def _weight(node: Node, parent: Node, match: float, lean: float) -> float:
    """Share of its container's score, in (0, 1]."""
    if parent.opener == "[":
        return max((1 - lean) * ends_first(node.ordinal, parent.children), lean * match, 1e-3) / max(lean, 1 - lean)
    if node.ordinal < _MANY_FIELDS:
        return 1.0  # an item comes with its fields, not after its siblings
    return math.sqrt(_MANY_FIELDS / (node.ordinal + 1)) * (0.9 + 0.1 * match)


def _atoms(text: str, node: Node, index: int, score: float) -> list[Atom]:
    name = 0 if node.key is None else node.key[1] - node.key[0] + 1
    if node.is_container:
        return [Atom(index, score, name + 3, opens_gap=node.children > 0)]
    value = _long_value(text, node)
    if value is None:
        return [Atom(index, score, name + node.end - node.start + 1)]
    bounds, _ = divided(value, [0, len(value)], longest=_CHUNK_CHARS)
    atoms = [Atom(index, score, name + 3, clip=0, opens_gap=True)]
    for rank, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        whole = end == len(value)
        chunk_score = 0.9 * score * float((1 + rank) ** -0.5)
        atoms.append(Atom(index, chunk_score, end - start, WHOLE if whole else end, True, closes_gap=whole))
    return atoms


def _long_value(text: str, node: Node) -> str | None:
    """The value of a string that may be clipped."""
    if node.opener != '"' or node.end - node.start - 2 <= LONG_STRING_CHARS:
        return None
    value: str = json.loads(text[node.start : node.end])
    named = len(value) <= _LONGEST_NAME_CHARS and not any(char.isspace() for char in value)
    return None if named or len(value) <= LONG_STRING_CHARS else value


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
