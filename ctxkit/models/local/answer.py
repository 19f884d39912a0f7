"""One answer of a local model in the making: the decode loop."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from ctxkit.models.local.engine import Engine
from ctxkit.models.local.sampling import make_draw
from ctxkit.models.text import Detokenizer, StopGuard
from ctxkit.protocols import Reply, Sampling

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Answer:
    """A `PieceSource` over an engine.

    ids: the prompt, exactly as it is fed.
    eos_ids: tokens that end the answer; they count as completion tokens and never show as text.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        ids: Sequence[int],
        sampling: Sampling,
        *,
        eos_ids: frozenset[int],
        model: str,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.ids = ids
        self.sampling = sampling
        self.eos_ids = eos_ids
        self.model = model
        self.completion_tokens = 0

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        detokenizer = Detokenizer(self.tokenizer)
        guard = StopGuard(self.sampling.stop)
        finish = "length"
        for token in self._tokens(stopped):
            if token in self.eos_ids:
                finish = "stop"
                break
            if piece := guard.feed(detokenizer.feed(token)):
                yield piece
            if guard.hit:
                return "stop"
        if held := guard.flush():
            yield held
        return "cancelled" if stopped.is_set() else finish

    def reply(self, text: str, finish_reason: str) -> Reply:
        return Reply(text, finish_reason, len(self.ids), self.completion_tokens, self.model)

    def _tokens(self, stopped: threading.Event) -> Iterator[int]:
        """Drawn tokens; the pass for the next one runs when it is asked for."""
        draw = make_draw(self.sampling)
        context = self.engine.begin(self.ids)
        try:
            unread = self.ids[len(context) :]
            self.engine.check(context, len(unread) + self.sampling.max_tokens)
            logits = self.engine.prefill(unread, context, stopped=stopped.is_set)
            while logits is not None and not stopped.is_set():
                token = draw(logits)
                self.completion_tokens += 1
                yield token
                if self.completion_tokens == self.sampling.max_tokens:
                    return
                logits = self.engine.step([context], [token])[0]
        finally:
            self.engine.finish(context)
