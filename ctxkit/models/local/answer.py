"""One answer of a local model in the making."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from ctxkit.models.local.choosing import Chooser, Chosen
from ctxkit.models.local.constraint import Constraint
from ctxkit.models.local.decoding import decode
from ctxkit.models.local.reading import AnswerReader
from ctxkit.models.local.sampling import SeededDice
from ctxkit.models.streams import CANCELLED
from ctxkit.models.text import Detokenizer, StopGuard
from ctxkit.protocols import Reply, Sampling, SoFar, TokenLogprob

if TYPE_CHECKING:
    from ctxkit.models.local.model import LocalModel
    from ctxkit.models.local.policies.base import Policy
    from ctxkit.models.local.session import LocalSession


class Answer:
    """A `PieceSource` over a local model.

    ids: the prompt, exactly as it is fed. reader: tells the answer's text from calls and thinking. constraint: what may
    stand in it. policy: the model's by default. session: has read the prompt already, and has the answer afterwards.
    The model's end tokens count as completion tokens and never show as text.
    """

    def __init__(
        self,
        model: LocalModel,
        ids: Sequence[int],
        sampling: Sampling,
        reader: AnswerReader,
        constraint: Constraint | None = None,
        *,
        policy: Policy | None = None,
        session: LocalSession | None = None,
    ) -> None:
        self.model = model
        self.ids = ids
        self.sampling = sampling
        self.reader = reader
        self.constraint = constraint
        self.policy = policy
        self.session = session
        self.completion_tokens = self.cached_tokens = 0
        self.logprobs: list[TokenLogprob] = []

    def pieces(self, stopped: threading.Event) -> Generator[str, None, str]:
        finish, guard = "length", StopGuard(self.sampling.stop)
        detokenizer = Detokenizer(self.model.counter.tokenizer)
        with closing(self._tokens(stopped)) as tokens:
            for chosen in tokens:
                self.completion_tokens += 1
                if chosen.token in self.model.eos_ids:
                    finish = "stop"
                    break
                self._note(chosen)
                text = self.reader.markers.get(chosen.token) or detokenizer.feed(chosen.token)
                if piece := self.reader.feed(guard.feed(text)):
                    yield piece
                if guard.hit:
                    finish = "stop"
                    break
        if held := self.reader.feed(guard.flush()) + self.reader.flush():
            yield held
        return CANCELLED if stopped.is_set() and not guard.hit else self.reader.finish_reason(finish)

    def reply(self, text: str, finish_reason: str) -> Reply:
        return Reply(
            text,
            finish_reason,
            len(self.ids),
            self.completion_tokens,
            self.model.name,
            self.reader.tool_calls,
            tuple(self.logprobs),
            self.reader.reasoning,
            cached_tokens=self.cached_tokens,
        )

    def so_far(self) -> SoFar:
        """A call counts once it is whole, and so does the thinking."""
        return SoFar(self.logprobs, self.reader.tool_calls, self.reader.reasoning)

    def _tokens(self, stopped: threading.Event) -> Generator[Chosen, None, None]:
        """Its tokens; the pass for the next one runs when it is asked for."""
        scheduler, most = self.model.scheduler, self.sampling.max_tokens
        dice = SeededDice(self.sampling.seed)
        with ExitStack() as stack:
            if self.session is None:
                context, logits = stack.enter_context(scheduler.admitted(self.ids, most, self.policy)), None
            else:
                context, logits = stack.enter_context(self.session.answering(most))
            self.cached_tokens = min(len(context), len(self.ids))
            how = self.model.speculates(context.policy)
            drafting = None if how is None else how.drafting(self.sampling, dice, len(self.ids) + most)
            drafter = None if drafting is None else stack.enter_context(drafting)
            if logits is None:
                logits = scheduler.prefill(self.ids[len(context) :], context, stopped.is_set)
            if logits is None or stopped.is_set():
                return
            chooser = Chooser(self.sampling, dice, self.constraint)
            yield from decode(
                scheduler, context, logits, chooser, max_tokens=most, drafter=drafter, stopped=stopped.is_set
            )

    def _note(self, chosen: Chosen) -> None:
        if chosen.logprob is not None:
            top = tuple(self._named(token, logprob) for token, logprob in chosen.top)
            self.logprobs.append(self._named(chosen.token, chosen.logprob, top))

    def _named(self, token: int, logprob: float, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        text = self.model.counter.tokenizer.decode([token], skip_special_tokens=False)
        return TokenLogprob(text, logprob, token, top)
