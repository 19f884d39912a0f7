"""Hit: one result of a search, with the reasons why it was found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ctxkit.context.labels import Label
from ctxkit.context.part import Part
from ctxkit.documents.chunk import Chunk
from ctxkit.errors import PartError
from ctxkit.protocols import Evidence, Match, Ranking

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that answered a query.

    chunk: what was found.
    rank: place in the result, from 1.
    score: what the result is ordered by; comparable within one search only.
    relevance: estimated probability that the chunk holds the answer, in [0, 1]; falls strictly with the rank.
    rankings: where each retrieval method put the chunk; a method that did not find it among its first is absent.
    evidence: byte spans of `chunk.text` (UTF-8) that match the query, best first.
    matches: which token of the text answered which token of the query, in the query's order; for indexes of one vector
        per token whose encoder says where its tokens stand.
    """

    chunk: Chunk
    rank: int
    score: float
    relevance: float
    rankings: tuple[Ranking, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    matches: tuple[Match, ...] = ()

    def as_part(self, **overrides: Any) -> Part:
        """The hit as a passage for `fit`; any field of Part can be overridden.

        Its label is what the document's metadata say under "label". Raises PartError where that is none.
        """
        fields: dict[str, Any] = {
            "id": self.chunk.id,
            "title": self.chunk.title,
            "source": self.chunk.location,
            "relevance": self.relevance,
        }
        if "label" in self.chunk.metadata and "label" not in overrides:
            fields["label"] = self._label()
        return Part("passage", **{"content": self.chunk.text, **fields, **overrides})

    def _label(self) -> Label:
        said = self.chunk.metadata["label"]
        try:
            return Label.parse(said if isinstance(said, str) else repr(said))
        except ValueError as error:
            raise PartError(
                f"the metadata of {self.chunk.location}: {error}. Correct them, or pass `label` to `as_part`"
            ) from error

    def snippets(self) -> list[str]:
        """The texts of `evidence`, best first."""
        data = self.chunk.text.encode()
        return [data[span.start : span.end].decode() for span in self.evidence]

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return {
            "chunk": {
                **{name: getattr(self.chunk, name) for name in ("id", "source", "title", "location", "text")},
                **{name: getattr(self.chunk, name) for name in ("start_line", "end_line", "start_byte", "end_byte")},
                "title_path": list(self.chunk.title_path),
                "page": self.chunk.page,
                "metadata": dict(self.chunk.metadata),
            },
            "rank": self.rank,
            "score": self.score,
            "relevance": self.relevance,
            "rankings": [asdict(ranking) for ranking in self.rankings],
            "evidence": [asdict(span) for span in self.evidence],
            "matches": [asdict(match) for match in self.matches],
        }

    def _repr_html_(self) -> str:
        """The passage as a heat map, in a notebook."""
        from ctxkit.retrieval.heat_map import HeatMap

        return HeatMap.of(self)._repr_html_()

    def __repr__(self) -> str:
        text = " ".join(self.chunk.text.split())
        shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
        numbers = f"relevance={self.relevance:.2f}, score={self.score:.4f}"
        return f"Hit({self.rank}, {self.chunk.location}, {numbers}, {shown!r})"
