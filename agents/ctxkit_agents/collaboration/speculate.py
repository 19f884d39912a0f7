"""Speculate: the writer drafts several tokens, the helper judges all of them in one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from ctxkit_agents.collaboration.combine import HELPER, WRITER, Combine, Piece, Turn


class Acceptance(ABC):
    """Whether a drafted token may stand, by the helper's logits in its place, float32 [vocabulary]."""

    @abstractmethod
    def accepts(self, logits: np.ndarray, token: int) -> bool: ...


@dataclass(frozen=True)
class Exact(Acceptance):
    """Only the helper's own choice: the answer is what the helper writes alone (arXiv 2211.17192, greedy)."""

    def accepts(self, logits: np.ndarray, token: int) -> bool:
        return int(logits.argmax()) == token


@dataclass(frozen=True)
class Lenient(Acceptance):
    """Also what is nearly as good: a token of at least `ratio` of the highest probability, among the `top_k` likeliest.

    In the spirit of judge decoding (arXiv 2501.19309), whose judge is learned; this rule is not. Nothing is promised
    about the answer but that each token passed it.
    """

    ratio: float = 0.3
    top_k: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1 or self.top_k < 1:
            raise ValueError(f"`ratio` must be in [0, 1] and `top_k` at least 1, got {self.ratio!r} and {self.top_k!r}")

    def accepts(self, logits: np.ndarray, token: int) -> bool:
        near = float(np.exp(logits[token] - logits.max())) >= self.ratio
        return near and int((logits > logits[token]).sum()) < self.top_k


@dataclass(frozen=True)
class Speculate(Combine):
    """Speculative decoding as FS-GEN has it: the writer drafts greedily, the helper keeps the beginning that it
    accepts and adds one token of its own.

    draft: tokens per round. For draws at a temperature, and without a loop of its own, see `LocalModel.speculation`.
    """

    draft: int = 5
    accept: Acceptance = field(default_factory=Exact)

    same_tokens = True

    def __post_init__(self) -> None:
        if self.draft < 1:
            raise ValueError(f"`draft` must be at least 1, got {self.draft!r}")

    def most_written(self, max_tokens: int) -> tuple[int, int]:
        return self.draft * max_tokens, max_tokens

    def write(self, turn: Turn) -> list[Piece]:
        writer, helper = turn.sides.writer, turn.sides.helper
        had = len(writer.output_ids)
        helper.follow(writer.output_ids)
        ends = self._draft(turn)
        drafted = writer.output_ids[had:]
        for token in drafted:
            helper.take(token, written=False)
        rows = helper.rows(len(drafted) + 1)
        held = next((n for n, token in enumerate(drafted) if not self.accept.accepts(rows[n], token)), len(drafted))
        return self._settled(turn, had, drafted, held, rows, ends)

    def _draft(self, turn: Turn) -> int | None:
        """Drafts; the token that ends the answer, where it comes to it."""
        writer = turn.sides.writer
        for _ in range(min(self.draft, turn.room - 1)):
            look = writer.look()
            if look.ends:
                return look.token
            writer.take(look.token)
        return None

    def _settled(
        self, turn: Turn, had: int, drafted: list[int], held: int, rows: np.ndarray, ends: int | None
    ) -> list[Piece]:
        writer, helper = turn.sides.writer, turn.sides.helper
        logits = rows[held]
        writer.keep(had + held)
        helper.follow(writer.output_ids)
        pieces = [Piece(WRITER, writer.text_of(had), held, f"accepted of {len(drafted)}")] if held else []
        if ends is not None and held == len(drafted) and self.accept.accepts(logits, ends):
            writer.meter.write()
            return [*pieces, Piece(WRITER, "", 0, "accepted", True)]
        own = int(logits.argmax())
        if own in helper.eos_ids:
            helper.meter.write()
            return [*pieces, Piece(HELPER, "", 0, "ends", True)]
        helper.take(own)
        return [*pieces, Piece(HELPER, writer.take(own, written=False), 1, "its own")]
