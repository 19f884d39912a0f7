"""Speaker: a local model that reads beliefs between tokens, and answers in a belief (CIPHER, arXiv 2310.06272)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ctxkit.models.streams import CANCELLED
from ctxkit.models.text import Detokenizer
from ctxkit_agents.debate.belief import Belief
from ctxkit_agents.debate.mixing import Mixing
from ctxkit_agents.debate.table import EmbeddingTable

if TYPE_CHECKING:
    from ctxkit.models.local import LocalModel
    from ctxkit.models.local.session import LocalSession

_MOST_TOKENS_OF_A_CHAR = 4  # a token holds a byte at least

Piece = tuple[int, ...] | Belief
"""Of a prompt: tokens, or what is read as their average."""


@dataclass(frozen=True)
class Spoken:
    """An answer in a belief. text: nearest tokens, decoded. tokens: computed, that which ended it included.

    finish_reason: "stop", "length" or "cancelled".
    """

    belief: Belief
    text: str
    tokens: int
    finish_reason: str


class Speaker:
    """model: with logits and embeddings. Its table is looked at once. entries, mass: of beliefs, as `Belief.of`."""

    def __init__(self, model: LocalModel, *, entries: int, mass: float) -> None:
        self.model = model
        self.table = EmbeddingTable.of(model)
        self.entries = entries
        self.mass = mass

    def speak(self, prompt: Sequence[Piece], mixing: Mixing, *, max_tokens: int, stopped: Callable[[], bool]) -> Spoken:
        """Answers. `stopped` is asked before each pass; what was said until then is returned.

        Raises PromptError, MemoryInsufficient.
        """
        answer = _Answer(self, mixing.sampling.stop)
        with self.model.session() as session:
            logits = self._read(session, prompt, stopped)
            while logits is not None and not answer.finish_reason:
                if int(logits.argmax()) in self.model.eos_ids:
                    answer.end()
                    break
                p = mixing(logits)
                answer.add(p, last=answer.tokens + 1 == max_tokens)
                if not answer.finish_reason:
                    logits = self._pass(session, self.table.average(p)[None], stopped)
        return answer.spoken()

    def _read(self, session: LocalSession, prompt: Sequence[Piece], stopped: Callable[[], bool]) -> Tensor | None:
        """Logits after the prompt; None where it was stopped. Tokens are read as their embeddings: the same."""
        parts = [one.embeddings(self.table) if isinstance(one, Belief) else self.table.rows(one) for one in prompt]
        logits = None
        for chunk in torch.cat(parts).split(self.model.engine.prefill_tokens):
            logits = self._pass(session, chunk, stopped)
            if logits is None:
                break
        return logits

    def _pass(self, session: LocalSession, vectors: Tensor, stopped: Callable[[], bool]) -> Tensor | None:
        if stopped():
            return None
        return torch.from_numpy(session.step_embeddings(vectors))[: self.table.vocabulary.size]


class _Answer:
    """What was said so far."""

    def __init__(self, speaker: Speaker, stop: Sequence[str]) -> None:
        self.speaker = speaker
        self.stop = stop
        self.tokens = 0
        self.finish_reason = ""
        self._positions: list[Belief] = []
        self._nearest: list[int] = []

    def add(self, p: Tensor, *, last: bool) -> None:
        """One more position; `last` ends it, and so does a stop string in the nearest tokens."""
        self.tokens += 1
        self._positions.append(self._kept(p))
        self._nearest += self._positions[-1].decode(self.speaker.table)
        if self.stop and any(one in self._tail() for one in self.stop):
            self._cut()
            self.finish_reason = "stop"
        elif last:
            self.finish_reason = "length"

    def end(self) -> None:
        """The model has ended its answer, by a token that is no part of it."""
        self.tokens += 1
        self.finish_reason = "stop"

    def spoken(self) -> Spoken:
        belief = Belief.joined(self._positions, self.speaker.table.vocabulary.fingerprint)
        detokenizer = Detokenizer(self.speaker.model.counter.tokenizer)
        text = "".join(detokenizer.feed(token) for token in self._nearest)
        return Spoken(belief, text, self.tokens, self.finish_reason or CANCELLED)

    def _kept(self, p: Tensor) -> Belief:
        entries, mass = self.speaker.entries, self.speaker.mass
        likeliest, ids = p.topk(min(entries, len(p)))
        position = (ids.numpy(), likeliest.numpy())
        return Belief.of([position], self.speaker.table.vocabulary.fingerprint, entries=entries, mass=mass)

    def _cut(self) -> None:
        """Back to the last position that ends before the stop string begins."""
        text = self._decode(self._nearest)
        end = min(text.index(one) for one in self.stop if one in text)
        while len(self._decode(self._nearest)) > end:
            self._positions.pop()
            self._nearest.pop()

    def _tail(self) -> str:
        """The end of the text: all that a stop string which ends now can stand in."""
        return self._decode(self._nearest[-_MOST_TOKENS_OF_A_CHAR * max(map(len, self.stop)) - 1 :])

    def _decode(self, ids: Sequence[int]) -> str:
        return self.speaker.model.counter.tokenizer.decode(list(ids), skip_special_tokens=True)
