"""Conversations: sessions of the store, planned turn by turn so that a prompt keeps its beginning."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ctxkit.context import Budget, Plan
from ctxkit.protocols import ChatMessage, Counter, Tool
from ctxkit.server.labels import unmarked
from ctxkit.server.sessions.store import SessionStore
from ctxkit.session import CacheReport, Session
from ctxkit.session.cache import broke_at, reused_tokens

_HELD = 256  # sessions whose latest plan is remembered; the others begin their prompts anew


@dataclass(frozen=True)
class Turn:
    """A turn that was planned and not said yet. length: of the session before it.

    session: None where the prompt was not made by it, but anew.
    """

    session: Session | None
    length: int
    said: tuple[ChatMessage, ...]
    plan: Plan
    cache: CacheReport


class Conversations:
    """The sessions of a store, for several threads.

    A session that another process wrote to is read anew. Where two answer one session at the same time, the second to
    end is refused: SessionConflict.
    """

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self._held: OrderedDict[tuple[str, str], tuple[int, Session]] = OrderedDict()
        self._plans: OrderedDict[tuple[str, str], tuple[int, Plan]] = OrderedDict()  # of turns that were made anew
        self._lock = threading.Lock()

    def plan(
        self,
        owner: str,
        name: str,
        messages: Sequence[ChatMessage],
        *,
        budget: Budget,
        counter: Counter,
        tools: Sequence[Tool] = (),
        dry: bool = False,
    ) -> Turn:
        """The prompt of the session with these messages behind it. Nothing is stored before `commit`.

        dry: the turn is only looked at; the session's next plan is as if it had not been.

        Raises SessionNotFound, PartError, BudgetInfeasible, StoreError.
        """
        length = self.store.get(owner, name).length
        session = self._take(owner, name, length, counter, leave=dry)
        if session is None:
            originals = self.store.originals(owner, name)
            session = Session(budget=budget, counter=counter, expandable=False, store=originals, session_id=name)
            _add(session, self.store.messages(owner, name))
        session.budget, session.tools = budget, tuple(tools)
        _add(session, messages)
        return Turn(session, length, tuple(messages), session.plan(), session.cache)

    def anew(
        self, owner: str, name: str, length: int, messages: Sequence[ChatMessage], plan: Plan, counter: Counter
    ) -> Turn:
        """A turn whose prompt was not made by the session: passages stand in it, chosen anew for each question.

        length: of the session before it. Its report says what it has in common with the prompt of the turn before.
        """
        with self._lock:
            held = self._plans.get((owner, name))
        before = held[1] if held is not None and held[0] == length else None
        return Turn(None, length, tuple(messages), plan, _report(before, plan, counter))

    def history(self, owner: str, name: str) -> list[dict[str, Any]]:
        """What was said. Raises SessionNotFound, StoreError."""
        return self.store.messages(owner, name)

    def commit(self, owner: str, name: str, turn: Turn, answer: ChatMessage) -> None:
        """The turn was answered: its messages and the answer are in the store, all or none.

        Raises SessionConflict where somebody else wrote to the session, SessionNotFound, StoreError.
        """
        said = [*turn.said, answer]
        row = self.store.append(owner, name, said, length=turn.length)
        if turn.session is not None:
            _add(turn.session, [answer])
        with self._lock:
            if turn.session is None:
                self._plans[owner, name] = (row.length, turn.plan)
            else:
                self._held[owner, name] = (row.length, turn.session)
            for held in (self._held, self._plans):
                while len(held) > _HELD:
                    held.popitem(last=False)

    def expand(self, owner: str, name: str, ref: str, counter: Counter) -> str:
        """The original of what a prompt of the session showed reduced. Raises PartError for an unknown ref."""
        self.store.get(owner, name)
        originals = self.store.originals(owner, name)
        return Session(budget=Budget(1 << 20), counter=counter, store=originals, session_id=name).expand(ref)

    def forget(self, owner: str, name: str) -> None:
        """Deletes the session and all that was kept of it. Raises SessionNotFound."""
        with self._lock:
            self._held.pop((owner, name), None)
            self._plans.pop((owner, name), None)
        self.store.delete(owner, name)

    def _take(self, owner: str, name: str, length: int, counter: Counter, *, leave: bool) -> Session | None:
        """The remembered session where it is as long as the stored one. A turn has it to itself, or a copy of it."""
        with self._lock:
            held = self._held.get((owner, name)) if leave else self._held.pop((owner, name), None)
        if held is None or held[0] != length or held[1].counter is not counter:
            return None
        return copy(held[1]) if leave else held[1]


def _add(session: Session, messages: Sequence[ChatMessage]) -> None:
    """Each message with the label that it says."""
    bare, labels = unmarked(messages)
    for label, run in groupby(range(len(bare)), key=labels.get):
        session.add(*(bare[at] for at in run), label=label)


def _report(before: Plan | None, plan: Plan, counter: Counter) -> CacheReport:
    reused = reused_tokens(before, plan, counter)
    return CacheReport(
        reused,
        plan.prompt_tokens - reused,
        reused / before.prompt_tokens if before is not None else 0.0,
        broke_at(before, plan),
        "passages are chosen anew for each question; what stands before them may be reused",
    )
