"""The loop of all token-level collaboration: one model writes, a router says when it asks another, and how is the rest.

Nudging is this loop with a threshold and `Words`; FS-GEN with a router and a rule that mixes logits; a cascade inside
an answer with a threshold and `FromHereOn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit_agents.collaboration.combine import HELPER, Combine, Piece, Turn
from ctxkit_agents.collaboration.routers import Router, Seen
from ctxkit_agents.collaboration.script import Script, Step, without_repeated_end
from ctxkit_agents.collaboration.side import AllowanceSpent, Look, Sides

_BLOCK_TOKENS = 16
_REPEATED_WORDS = 5
_SAME_NUDGES = 3


@dataclass(frozen=True)
class Rules:
    """When an answer ends besides by its end token.

    stop: strings that end it and are not part of it. guarded: it ends where it goes round in circles: three times the
    same text by the helper in a row, or a block of 16 tokens of the writer, more than five words, that stands there
    already (and is left out then); an end of 30 characters or more that stands there twice in a row is kept once.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    guarded: bool = True


class Loop:
    """One answer in the making. names: of writer and helper, in the steps.

    finish_reason: "stop", "length" or "repetition". short_of: what ran out where an allowance did.
    """

    def __init__(self, sides: Sides, router: Router, combine: Combine, rules: Rules, names: tuple[str, str]) -> None:
        self.sides = sides
        self.router = router
        self.combine = combine
        self.rules = rules
        self.names = names
        self.script = Script(sides.writer.tokens)
        self.seen: list[Seen] = []
        self.finish_reason = ""
        self.short_of = ""
        self._asked = False
        self._block = (0, 0)  # characters before the writer's block, and its tokens so far
        self._nudges: list[str] = []  # the latest, as long as they are the same

    def run(self) -> None:
        """Writes the answer."""
        try:
            while not self.finish_reason:
                self._turn()
        except AllowanceSpent as spent:
            self.finish_reason, self.short_of = "length", str(spent)
        once = without_repeated_end(self.script.text) if self.rules.guarded else self.script.text
        if once != self.script.text:
            self.script.cut(len(once))
            self.finish_reason = "repetition"

    @property
    def room(self) -> int:
        return self.rules.max_tokens - len(self.sides.writer.output_ids)

    def _turn(self) -> None:
        if self.room <= 0:
            self._cut_to_length()
            return
        lasting = self._asked and self.combine.lasting
        look = None if lasting or not self.router.looks else self.sides.writer.look(self.router.looks)
        if lasting or self.router.consults(look.top if look else ()):
            self._ask(look)
        else:
            self._write(look or self.sides.writer.look())

    def _write(self, look: Look) -> None:
        """The writer goes on by itself."""
        writer = self.sides.writer
        if self.router.looks > 1:
            self.seen.append(Seen(look.top))
        if look.ends:
            writer.meter.write()
            self.finish_reason = "stop"
            return
        before = len(self.script.text)
        self.script.go_on(self.names[0], writer.take(look.token), look.top[0])
        start, tokens = self._block if self._block[1] else (before, 0)
        self._block = (start, tokens + 1)
        if tokens + 1 >= _BLOCK_TOKENS:
            self._end_block()
        self._stop_at_string(before)

    def _ask(self, look: Look | None) -> None:
        self._end_block()
        if self.finish_reason:
            return
        if not self.combine.same_tokens:
            self.sides.writer.sync(self.script.text)  # nobody goes on inside a character
        self._asked = True
        pieces = self.combine.write(Turn(self.sides, self.router, look, self.room))
        before = len(self.script.text)
        why = "" if look is None else self.router.why(look.top)
        for piece in pieces:
            self._add(piece, look, why)
        self._guard_nudge(pieces)
        if pieces[-1].ends:
            self.finish_reason = "stop"
        if self.room < 0:
            self._cut_to_length()
        self._stop_at_string(before)

    def _add(self, piece: Piece, look: Look | None, why: str) -> None:
        if self.router.looks > 1 and look is not None:
            self.seen.append(Seen(look.top, piece.differs))
        said = "; ".join(filter(None, [why, piece.why]))
        probability = None if look is None else look.top[0]
        self.script.add(Step(self.names[piece.author], piece.text, piece.tokens, probability, said))

    # --- ends --------------------------------------------------------------------------------------------------

    def _end_block(self) -> None:
        """Judges the writer's last block; one that was there before is taken back, and ends the answer."""
        (start, tokens), self._block = self._block, (0, 0)
        text = self.script.text
        block = text[start:]
        if self.rules.guarded and tokens and len(block.split()) > _REPEATED_WORDS and block in text[:start]:
            self.script.cut(start)
            self.finish_reason = "repetition"

    def _guard_nudge(self, pieces: Sequence[Piece]) -> None:
        nudge = "".join(piece.text for piece in pieces if piece.author == HELPER)
        grew = any(piece.tokens or piece.text for piece in pieces)
        self._nudges = [*self._nudges, nudge] if self._nudges[-1:] == [nudge] else [nudge]
        if not grew or (self.rules.guarded and len(self._nudges) >= _SAME_NUDGES):
            self.finish_reason = "repetition"

    def _stop_at_string(self, before: int) -> None:
        """Cuts at the first stop string, which may have begun before the last `before` characters."""
        text, longest = self.script.text, max(map(len, self.rules.stop), default=0)
        start = max(0, before - longest + 1)
        found = [place for one in self.rules.stop if (place := text.find(one, start)) >= 0]
        if found:
            self.script.cut(min(found))
            self.finish_reason = "stop"

    def _cut_to_length(self) -> None:
        writer = self.sides.writer
        if self.room < 0:
            writer.keep(self.rules.max_tokens)
            self.script.cut(len(writer.output))
        self.finish_reason = "length"
