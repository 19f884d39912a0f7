"""JSON: minified, then in fewer words, then sampled. Stays valid; keys, numbers, ids and paths stay as they are.

What goes first is white space, then keys that an earlier item of the array has said, then the least important words of
long strings. Only when the facts alone do not fit, the pins of long strings and then whole items go: a sample keeps the
head and tail of arrays and the items that match the question, marks missing items and fields by {"…": "37 more items"},
and strings without a word left read "… [1,204 chars omitted]".
"""

from __future__ import annotations

from functools import cached_property

from ctxkit.compression.sources.cut import Cut, Fragment, Reader, Source, first_of
from ctxkit.compression.sources.ranked import CONCAVITY, RankedSource
from ctxkit.compression.structure.json_rank import KEYS, Ranking, Tree, ranked_atoms
from ctxkit.compression.structure.json_rows import rows_of
from ctxkit.compression.structure.json_string import JsonString
from ctxkit.compression.structure.json_tree import Node, parse, parse_lines
from ctxkit.compression.structure.json_write import JsonWriter
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.word_scores import Weigh, plain_scores
from ctxkit.context.level import LevelRequest
from ctxkit.protocols import Counter

_LOSSLESS = 0.99
_MARKER_CHARS = 24
_PINS = Pins()


def either_json_reader(
    *, lean: float, fidelity: float, weigh: Weigh = plain_scores, pins: Pins | None = _PINS
) -> Reader:
    """Reads JSON texts, and texts of a JSON value on each line; see `json_reader`."""
    whole = json_reader(lean=lean, fidelity=fidelity, weigh=weigh, pins=pins)
    return first_of((whole, json_reader(lean=lean, fidelity=fidelity, lines=True, weigh=weigh, pins=pins)))


def json_reader(
    *,
    lean: float,
    fidelity: float,
    keep_fields: bool = False,
    lines: bool = False,
    weigh: Weigh = plain_scores,
    pins: Pins | None = _PINS,
) -> Reader:
    """Reads JSON texts.

    lean: from 0 to 1, how much more the question counts than the place in an array.
    fidelity: value of a sample of everything, in [0, 1]. keep_fields: the fields of the outermost object always stay,
    and no object is written as a row. lines: reads texts of a JSON value on each line instead.
    weigh: scores the words of long strings. pins: what of them comes before their other words.
    """

    def read(text: str, request: LevelRequest) -> Source | None:
        nodes = parse_lines(text) if lines else parse(text)
        if nodes is None:
            return None
        strings = _strings(text, nodes, pins, request.question)
        found = list(strings)
        scores = weigh([strings[index].words for index in found], request.question) if found else ()
        rows = [-1] * len(nodes) if keep_fields else rows_of(text, nodes)
        tree = Tree(text, nodes, rows, strings, dict(zip(found, scores, strict=True)))
        ranking = ranked_atoms(tree, request.question, lean=lean, keep_fields=keep_fields)
        return JsonSource(tree, ranking, request.counter, fidelity=fidelity, lines=lines)

    return read


def _strings(text: str, nodes: list[Node], pins: Pins | None, question: str) -> dict[int, JsonString]:
    """The strings that may lose words, by node."""
    found = ((i, JsonString.of(text, one.start, one.end, pins, question)) for i, one in enumerate(nodes) if one.is_text)
    return {index: string for index, string in found if string is not None}


class JsonSource(RankedSource):
    """A JSON text that can be minified, thinned and sampled."""

    def __init__(self, tree: Tree, ranking: Ranking, counter: Counter, *, fidelity: float, lines: bool) -> None:
        self.kind = "json lines" if lines else "json"
        self._tree = tree
        self._ranking = ranking
        self._lines = lines
        self.counter = counter
        super().__init__(
            counter,
            self._estimates(),
            (atom.mass for atom in ranking.atoms),
            fidelity=fidelity,
            least=ranking.least,
            natural_prefix=len(ranking.atoms),
        )

    @cached_property
    def ceiling(self) -> int:
        return min(self.counter.count(self._tree.text), self.counter.count(self._minified))

    @cached_property
    def _minified(self) -> str:
        return "".join(fragment.text for fragment in self.fragments(len(self._ranking.atoms)))

    def at(self, tokens: int) -> Cut | None:
        if tokens >= self.counter.count(self._minified):
            return self.prefix(self.most)
        return super().at(tokens)

    def share(self, count: int) -> float:
        whole = count == len(self._ranking.atoms)
        return (_LOSSLESS / self.fidelity) ** (1 / CONCAVITY) if whole else super().share(count)

    def fragments(self, count: int) -> list[Fragment]:
        words: dict[int, int] = {}
        keyed: set[int] = set()
        for atom in self._ranking.atoms[:count]:
            if atom.tier == KEYS:
                keyed.add(atom.node)
            else:
                words[atom.node] = words.get(atom.node, -1) + 1
        orders = self._ranking.orders
        kept = {node: orders.get(node, ())[:some] for node, some in words.items()}
        return JsonWriter(self._tree, lines=self._lines).write(kept, keyed)

    def _estimates(self) -> list[float]:
        """Estimated tokens of each prefix, by characters."""
        chars = [0.0]
        nodes = self._tree.nodes
        missing = [node.children for node in nodes]
        for atom in self._ranking.atoms:
            node = nodes[atom.node]
            added = atom.chars + (_MARKER_CHARS if atom.opens_gap else 0) - (_MARKER_CHARS if atom.closes_gap else 0)
            if not atom.extends and node.parent >= 0:
                missing[node.parent] -= 1
                added -= _MARKER_CHARS if missing[node.parent] == 0 else 0
            chars.append(chars[-1] + added)
        rate = self.counter.count(self._minified) / max(len(self._minified), 1)
        return [max(0.0, rate * n) for n in chars]
