"""Belief: a message that says of each position which tokens it may be, and how likely each is."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ctxkit_agents.debate.vocabulary import Vocabulary
from ctxkit_agents.errors import TokenizerMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from ctxkit.tokens import TemplateCounter
    from ctxkit_agents.debate.table import EmbeddingTable

MOST_ENTRIES = 255  # of a position: its number is one byte

_HEADER = struct.Struct("<4s8sIB")  # magic, fingerprint, positions, bytes of an id
_MAGIC = b"cxB1"
_TOP_LEVEL = 255
_ROUNDING = 1e-6  # of probabilities in float32


@dataclass(frozen=True, eq=False)
class Belief:
    """Per position the likeliest tokens and their probabilities, the likeliest first; of any engine.

    vocabulary: the fingerprint of the numbering of the tokens.
    ids: of all positions, one after the other, uint32 [entries].
    levels: how likely each is beside the first of its position, uint8 [entries]: the root of the ratio, in 255ths; the
        first has 255.
    counts: entries of each position, uint8 [positions].

    What is kept is the whole of it: `to_bytes` and back changes nothing.
    """

    vocabulary: str
    ids: np.ndarray
    levels: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(
        cls,
        positions: Iterable[tuple[np.ndarray, np.ndarray]],
        vocabulary: str,
        *,
        entries: int = 32,
        mass: float = 0.99,
    ) -> Belief:
        """Of positions given as ids [n] and probabilities [n], in any order; unlikely tokens may be missing.

        Of each position the likeliest are kept: the fewest that have a probability of `mass` together, at most
        `entries`. Raises ValueError for a position without a token that can be.
        """
        check_kept(entries, mass)
        kept = [_likeliest(np.asarray(ids), np.asarray(p, np.float64), entries, mass) for ids, p in positions]
        counts = np.array([len(ids) for ids, _ in kept], np.uint8)
        ids = np.concatenate([np.zeros(0, np.uint32), *(ids for ids, _ in kept)])
        levels = np.concatenate([np.zeros(0, np.uint8), *(levels for _, levels in kept)])
        return cls(vocabulary, ids.astype(np.uint32), levels.astype(np.uint8), counts)

    @classmethod
    def of_ids(cls, ids: Sequence[int], vocabulary: str) -> Belief:
        """Of tokens that are certain."""
        given = np.array(ids, np.uint32)
        return cls(vocabulary, given, np.full(len(given), _TOP_LEVEL, np.uint8), np.ones(len(given), np.uint8))

    @classmethod
    def joined(cls, beliefs: Sequence[Belief], vocabulary: str) -> Belief:
        """One after the other; all of this vocabulary."""
        nothing = cls.of_ids((), vocabulary)
        each = [nothing, *beliefs]
        return cls(
            vocabulary,
            np.concatenate([one.ids for one in each]),
            np.concatenate([one.levels for one in each]),
            np.concatenate([one.counts for one in each]),
        )

    def __len__(self) -> int:
        return len(self.counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Belief) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        return f"Belief({self.tokens:,} positions, {len(self.ids):,} entries, {len(self.to_bytes()):,} bytes)"

    @property
    def tokens(self) -> int:
        """Positions: what it takes of a window and of a budget."""
        return len(self)

    @cached_property
    def starts(self) -> np.ndarray:
        """The first entry of each position, int64 [positions]."""
        counts = self.counts.astype(np.int64)
        return np.cumsum(counts) - counts

    @property
    def top_ids(self) -> list[int]:
        """The likeliest token of each position."""
        return [int(token) for token in self.ids[self.starts]]

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of the entries, float32 [entries]; those of one position sum to 1."""
        if not len(self):
            return np.zeros(0, np.float32)
        weights = (self.levels.astype(np.float64) / _TOP_LEVEL) ** 2
        sums = np.add.reduceat(weights, self.starts)
        return (weights / np.repeat(sums, self.counts)).astype(np.float32)

    def positions(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Ids and probabilities of each position."""
        for start, count in zip(self.starts.tolist(), self.counts.tolist(), strict=True):
            yield self.ids[start : start + count], self.probabilities[start : start + count]

    def last(self, positions: int) -> Belief:
        """Its last positions, at most so many."""
        first = max(len(self) - positions, 0)
        entry = int(self.counts[:first].sum(dtype=np.int64))
        return Belief(self.vocabulary, self.ids[entry:], self.levels[entry:], self.counts[first:])

    # --- as vectors, tokens and text ---------------------------------------------------------------------------

    def embeddings(self, table: EmbeddingTable) -> Tensor:
        """What a model reads: of each position the average of its tokens' embeddings, float32 [positions, hidden size].

        table: of the model that reads it, which may have other weights than the one that wrote it.
        Raises TokenizerMismatch.
        """
        return table.averages(self)

    def decode(self, table: EmbeddingTable) -> list[int]:
        """Of each position the token whose embedding is nearest to the average, by cosine. Raises TokenizerMismatch."""
        return table.nearest_ids(self)

    def to_text(self, counter: TemplateCounter, *, sharp: float = 0.85, alternatives: int = 2) -> str:
        """For a model that reads text only: "six|nine (.6/.3)" where no token has a probability of `sharp`.

        counter: of the same tokenizer. alternatives: so many at most. Raises TokenizerMismatch.
        """
        tokenizer = counter.tokenizer
        self.check(Vocabulary.of(tokenizer).fingerprint, counter.name)
        text, certain = "", []
        for ids, p in self.positions():
            if p[0] >= sharp or len(ids) == 1 or alternatives < 2:
                certain.append(int(ids[0]))
                continue
            text += tokenizer.decode(certain, skip_special_tokens=True)
            certain = []
            words = [tokenizer.decode([int(token)], skip_special_tokens=True) for token in ids[:alternatives]]
            chances = "/".join(f"{chance:.1f}".removeprefix("0") for chance in p[:alternatives])
            text += f"{'|'.join([words[0], *(word.strip() for word in words[1:])])} ({chances})"
        return text + tokenizer.decode(certain, skip_special_tokens=True)

    def check(self, fingerprint: str, name: str) -> None:
        """Raises TokenizerMismatch where the reader, of this name, numbers tokens otherwise."""
        if self.vocabulary != fingerprint:
            raise TokenizerMismatch(
                f"the belief was written with the tokenizer {self.vocabulary}, and {name!r} has {fingerprint}: its ids "
                "would name other tokens. Send `to_text` of the writer's counter instead."
            )

    # --- as bytes ----------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """17 bytes, and 3 per entry; 4 where an id is beyond 65,535."""
        width = 2 if not len(self.ids) or int(self.ids.max()) < 1 << 16 else 3
        head = _HEADER.pack(_MAGIC, bytes.fromhex(self.vocabulary), len(self), width)
        ids = self.ids.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width]
        return head + self.counts.tobytes() + ids.tobytes() + self.levels[self._after_first].tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Belief:
        """What `to_bytes` wrote. Raises ValueError for anything else."""
        if len(data) < _HEADER.size or data[:4] != _MAGIC:
            raise ValueError(f"these {len(data):,} bytes are no belief: they do not begin with {_MAGIC!r}")
        _, fingerprint, positions, width = _HEADER.unpack_from(data)
        body = np.frombuffer(data, np.uint8, offset=_HEADER.size)
        counts = body[:positions]
        entries = int(counts.sum(dtype=np.int64))
        whole = entries * (width + 1)  # a count and the levels of all entries but one: together 1 per entry
        if width not in (2, 3) or len(counts) < positions or not counts.all() or len(body) != whole:
            raise ValueError(f"this belief is damaged: {len(body):,} bytes after its head, where {whole:,} should be")
        return cls._from_arrays(fingerprint.hex(), counts, body[positions:], width)

    @classmethod
    def _from_arrays(cls, fingerprint: str, counts: np.ndarray, body: np.ndarray, width: int) -> Belief:
        entries = int(counts.sum(dtype=np.int64))
        ids = np.zeros((entries, 4), np.uint8)
        ids[:, :width] = body[: entries * width].reshape(entries, width)
        belief = cls(fingerprint, ids.view("<u4")[:, 0], np.full(entries, _TOP_LEVEL, np.uint8), counts)
        belief.levels[belief._after_first] = body[entries * width :]
        return belief

    @property
    def _after_first(self) -> np.ndarray:
        """Which entries are not the first of their position, bool [entries]."""
        after = np.ones(len(self.ids), bool)
        after[self.starts] = False
        return after


def check_kept(entries: int, mass: float) -> None:
    """Raises ValueError where a belief cannot keep so much."""
    if not 1 <= entries <= MOST_ENTRIES or not 0 < mass <= 1:
        raise ValueError(f"`entries` must be in [1, {MOST_ENTRIES}] and `mass` in (0, 1], got {entries!r} and {mass!r}")


def _likeliest(ids: np.ndarray, p: np.ndarray, entries: int, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """The fewest ids that have `mass` of the probability, at most `entries`, and their levels."""
    if not len(ids) or not p.min() >= 0 < p.max() < np.inf:
        raise ValueError(f"a position needs probabilities of which one is above 0, got {p!r}")
    order = np.argsort(-p, kind="stable")[:entries]
    order = order[: int(np.searchsorted(np.cumsum(p[order]), mass - _ROUNDING)) + 1]
    ratios = p[order] / p[order[0]]
    return ids[order], np.clip(np.rint(np.sqrt(ratios) * _TOP_LEVEL), 1, _TOP_LEVEL)
