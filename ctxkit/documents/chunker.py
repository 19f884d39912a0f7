"""Cuts documents into chunks of at most so many tokens, along their structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice, pairwise

from ctxkit.documents.chunk import Chunk
from ctxkit.documents.document import Block, Document, Kind
from ctxkit.documents.merge import Atom, Packer, Tally
from ctxkit.documents.split import LADDERS, even_cuts, trim
from ctxkit.tokens.graphemes import cluster_interiors

_WHOLE_KINDS = frozenset({"code", "table"})
_BATCH_DOCUMENTS = 256


@dataclass(frozen=True, slots=True)
class _Span:
    """A piece of a section on its way to fitting. No cut may fall before `body`, so that a heading keeps its text."""

    start: int
    end: int
    body: int
    kind: Kind
    section: int
    path: tuple[str, ...]
    rung: int = 0


@dataclass(frozen=True)
class Chunker:
    """Greedy chunks of at most `max_tokens`, without overlap.

    Neighbouring blocks under one heading share a chunk while they fit. A block that does not fit alone is cut at the
    best places its kind has (blank lines, sentences, list items, rows, lines, then words). A heading stays with the
    text below it; it is a chunk of its own only where its section is empty, where a table or a fence fits but not with
    its heading, or where the heading takes more than half of a chunk.
    Chunks cover every char of the blocks that is not white space exactly once, and no cut falls inside a grapheme
    cluster: a single cluster longer than `max_tokens` is the one thing that comes out too long.

    count: tokens of each text, as the encoder or model counts them; equal texts of a document are asked for once.
    max_tokens: tokens of the longest chunk.

    Raises ValueError when `max_tokens` is below 1.
    """

    count: Callable[[Sequence[str]], list[int]]
    max_tokens: int = 200

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"`max_tokens` must be at least 1, got {self.max_tokens!r}")

    def chunks(self, document: Document) -> list[Chunk]:
        """The chunks of one document, in order."""
        return list(self.chunk_all([document]))

    def chunk_all(self, documents: Iterable[Document]) -> Iterator[Chunk]:
        """The chunks of many documents, counted in batches over documents: much faster for many small ones."""
        remaining = iter(documents)
        while batch := list(islice(remaining, _BATCH_DOCUMENTS)):
            tally = Tally(self.count)
            drafts = [_Draft(document) for document in batch]
            tally([text for draft in drafts for text in draft.texts()])
            for draft in drafts:
                atoms = self._atoms(draft, tally)
                groups = Packer(draft.document.text, tally, self.max_tokens).pack(atoms)
                yield from (_chunk(draft.document, group) for group in groups)

    def _atoms(self, draft: _Draft, tally: Tally) -> list[Atom]:
        """The spans cut until each fits, one batch of counts per rung of the ladders."""
        text, spans = draft.document.text, draft.spans
        atoms: list[Atom] = []
        while spans:
            counts = tally([text[span.start : span.end] for span in spans])
            over = [span for span, tokens in zip(spans, counts, strict=True) if tokens > self.max_tokens]
            tally([text[span.start : span.body] for span in over if span.start < span.body])
            deeper: list[_Span] = []
            for span, tokens in zip(spans, counts, strict=True):
                pieces = self._cut(draft, span, tokens, tally) if tokens > self.max_tokens else []
                deeper.extend(pieces)
                if not pieces:
                    atoms.append(Atom(span.start, span.end, tokens, span.section, span.path))
            spans = deeper
        return sorted(atoms, key=lambda atom: atom.start)

    def _cut(self, draft: _Draft, span: _Span, tokens: int, tally: Tally) -> list[_Span]:
        """The pieces of a span that is too long; none where it is a single grapheme cluster."""
        text = draft.document.text
        if span.start < span.body:
            (heading,) = tally([text[span.start : span.body]])
            if span.kind in _WHOLE_KINDS or 2 * heading > self.max_tokens:
                return draft.pieces(span, [span.body], span.rung)
        ladder = LADDERS[span.kind]
        for rung in range(span.rung, len(ladder)):
            pieces = draft.pieces(span, ladder[rung](text, span.body, span.end), rung + 1)
            if pieces:
                return pieces
        cuts = even_cuts(span.body, span.end, tokens // self.max_tokens + 1, draft.inside)
        return draft.pieces(span, cuts or [span.body], len(ladder))


class _Draft:
    """A document on its way to chunks: its spans, one per block with the headings before it, and where not to cut."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.inside = cluster_interiors(document.text)
        self.spans = list(self._spans())

    def texts(self) -> list[str]:
        """The text of each span."""
        return [self.document.text[span.start : span.end] for span in self.spans]

    def pieces(self, span: _Span, cuts: Iterable[int], rung: int) -> list[_Span]:
        """The span cut at `cuts`, white space trimmed; none where that changes nothing."""
        allowed = (cut for cut in cuts if span.start < cut < span.end and cut not in self.inside)
        edges = [span.start, *allowed, span.end]
        trimmed = (trim(self.document.text, start, end, self.inside) for start, end in pairwise(edges))
        filled = [(start, end) for start, end in trimmed if start < end]
        if filled == [(span.start, span.end)]:
            return []
        return [
            replace(span, start=start, end=end, body=span.body if start <= span.body < end else start, rung=rung)
            for start, end in filled
        ]

    def _spans(self) -> Iterator[_Span]:
        heads: list[Block] = []
        section, here = 0, None
        for block in self.document.blocks:
            if block.kind == "heading":
                if heads and not _is_below(block.path, heads[-1].path):
                    yield from self._span(heads[0], heads[-1], section)
                    heads = []
                section += not heads
                here = (block.path, block.page)
                heads.append(block)
                continue
            if (block.path, block.page) != here:
                section, here = section + 1, (block.path, block.page)
            yield from self._span(heads[0] if heads else block, block, section)
            heads = []
        if heads:
            yield from self._span(heads[0], heads[-1], section)

    def _span(self, first: Block, body: Block, section: int) -> Iterator[_Span]:
        """One span over `first` to `body`, nothing where that is white space; a lone heading is its own body."""
        start, end = trim(self.document.text, first.start, body.end, self.inside)
        if start < end:
            at = start if first is body else max(start, body.start)
            yield _Span(start, end, at, body.kind, section, body.path)


def _is_below(path: tuple[str, ...], ancestor: tuple[str, ...]) -> bool:
    return len(path) > len(ancestor) and path[: len(ancestor)] == ancestor


def _chunk(document: Document, group: Sequence[Atom]) -> Chunk:
    start, end = group[0].start, group[-1].end
    text, place = document.text[start:end], document.origin.locate(start, end)
    return Chunk(
        id=f"{document.source}#{_digest(document.source, place.start_byte, start, text)}",
        source=document.source,
        text=text,
        title_path=group[0].path,
        start_line=place.start_line,
        end_line=place.end_line,
        start_byte=place.start_byte,
        end_byte=place.end_byte,
        page=place.page,
        metadata=document.metadata,
    )


def _digest(source: str, start_byte: int, start: int, text: str) -> str:
    """16 hex digits; the byte tells records of one file apart, the char offset pieces of one record."""
    written = f"{source}\0{start_byte}\0{start}\0{text}".encode("utf-8", "surrogatepass")
    return blake2b(written, digest_size=8).hexdigest()
