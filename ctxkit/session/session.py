"""Session: a conversation that grows, and a prompt that stays the same at its beginning for as long as it can."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any
from uuid import uuid4

from ctxkit.compression import standard
from ctxkit.context import Budget, Compressor, Label, Part, Plan, Utility
from ctxkit.context.chat import conversation
from ctxkit.context.expand import EXPAND_NAME, lines_of, parse_ref, refs_in
from ctxkit.context.fit import prepared
from ctxkit.context.labels import joined
from ctxkit.context.level import source_text
from ctxkit.errors import PartError
from ctxkit.protocols import ChatMessage, Counter, Tool
from ctxkit.session.cache import CacheReport
from ctxkit.session.prices import CachePrices
from ctxkit.session.store import MemoryOriginals, Originals, Shelf
from ctxkit.session.turn import Settled, Turn

_NAMED = 8  # refs named in an error, at most


class Session:
    """A conversation under a budget, planned turn by turn.

        session = Session(budget=Budget(8_192, 512), counter=model.counter)
        session.add({"role": "user", "content": "Why does the build fail?"})
        reply = model.generate(session.plan())

    While everything said still fits, a prompt is the one before with the new messages behind it, so a prompt cache
    finds all of it. When it does not, the session compacts: it plans anew within `target` of the limit, which leaves
    room for the next turns. What was reduced or dropped by then stays so until the next compaction.

    budget, counter, tools, compressors, utility: as of `fit_messages`. A session may be given another `budget` later.
    prices: of the prompt cache, for `cache.pays_after_turns`.
    target: share of the limit that a compaction aims at, in (0, 1].
    expected_turns: how many more turns are expected. Given, the session compacts above the target also where it need
        not, as soon as that pays within so many turns. None: only where it must.
    result_tokens: a tool result that has more is reduced before it is sent for the first time, which costs a prompt
        cache nothing; what `expand` gave back is sent whole. None: results are reduced in compactions only.
    keep_results: every tool result stays in the prompt, at least as a line that says how to get it back; the oldest go
        where there is no room even for that. False: those that matter least are dropped.
    expandable: offer the `expand` tool wherever the prompt shows a handle; `answer_expand` answers it.
    store: where the originals of what is reduced or dropped are kept; None: in memory.
    session_id: names the session in the store. With it a later session finds its originals; None: a new one.

    It is deterministic, but for the session's id. Not to be used by several threads at once.
    Raises ValueError for a target out of range, for negative turns, for `result_tokens` below 1, and for a session id
    that is empty or has a "/".
    """

    def __init__(
        self,
        *,
        budget: Budget,
        counter: Counter,
        tools: Sequence[Tool] = (),
        compressors: Sequence[Compressor] | None = None,
        utility: Utility | None = None,
        prices: CachePrices | None = None,
        target: float = 0.8,
        expected_turns: float | None = None,
        result_tokens: int | None = None,
        keep_results: bool = False,
        expandable: bool = True,
        store: Originals | None = None,
        session_id: str | None = None,
    ) -> None:
        self.session_id = uuid4().hex if session_id is None else session_id
        _check(target, expected_turns, result_tokens, self.session_id)
        self.budget = budget
        self.counter = counter
        self.tools = tuple(tools)
        self.compressors = standard() if compressors is None else tuple(compressors)
        self.utility = utility
        self.prices = prices or CachePrices()
        self.target = target
        self.expected_turns = expected_turns
        self.result_tokens = result_tokens
        self.keep_results = keep_results
        self.expandable = expandable
        self._shelf = Shelf(MemoryOriginals() if store is None else store, self.session_id)
        self._messages: list[ChatMessage] = []
        self._labels: dict[int, Label] = {}  # of messages, by position
        self._expanded: dict[str, Label] = {}  # of answers to calls of `expand`, by the call's id
        self._pinned: set[int] = set()
        self._latest: Settled | None = None

    def __repr__(self) -> str:
        return f"Session({self.session_id!r}, {len(self._messages):,} messages, {self.cache})"

    def __copy__(self) -> Session:
        """The same conversation twice, for different ways on; originals are kept in one place."""
        other = object.__new__(type(self))
        other.__dict__ = {
            name: copy(value) if isinstance(value, dict | set) else value for name, value in vars(self).items()
        }
        return other

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """All messages as they were added, the oldest first; copies."""
        return tuple(deepcopy(self._messages))

    @property
    def cache(self) -> CacheReport:
        """What a prompt cache can make of the latest plan."""
        return self._latest.cache if self._latest else CacheReport()

    def add(self, *messages: ChatMessage, label: Label | None = None, pinned: bool = False) -> None:
        """Append messages in OpenAI's form, copied. Raises PartError for what is no message, and adds none then.

        label: of these messages; None: trusted and public. An answer to `expand` has the label of what it shows, too.
        pinned: those of the user stay in every prompt, verbatim, also when others follow.
        """
        start, grown = len(self._messages), [*self._messages, *deepcopy(messages)]
        conversation(grown)
        self._pinned.update(range(start, len(grown)) if pinned else ())
        self._messages = grown
        for position, message in enumerate(messages, start):
            own = joined([label, self._expanded.get(str(message.get("tool_call_id")))])
            if not own.is_default:
                self._labels[position] = own

    def plan(self) -> Plan:
        """The prompt for what was said so far. `cache` then says how much of the one before it begins with.

        Raises PartError where nothing was said, and what `fit` and the store raise. After an error the session is as
        it was.
        """
        made = conversation(self._messages, labels=self._labels, pinned=self._pinned)
        fitting = prepared(
            self._insisting(made.parts),
            budget=self.budget,
            counter=self.counter,
            tools=self.tools,
            compressors=self.compressors,
            utility=self.utility,
            expandable=self.expandable,
        )
        going_on = frozenset(part.id for part in made.parts if part.required)
        turn = Turn(
            fitting, self._latest, self.prices, self.target, self.expected_turns, self.result_tokens, going_on
        ).run()
        turn = replace(turn, plan=replace(turn.plan, repairs=tuple(map(str, made.repairs))))
        for part_id, sent in turn.sent.items():
            if sent.became != "whole":
                self._shelf.keep(part_id, source_text(sent.part), sent.part.label)
        self._latest = turn
        return turn.plan

    def expand(self, ref: str) -> str:
        """The original behind a ref that a prompt of this session showed: a part's id, or `id:first-last` for lines.

        Raises PartError for an unknown ref, naming the known ones, and StoreError where the store is damaged.
        """
        part_id, span = parse_ref(ref)
        text = self._shelf.original(part_id)
        if text is None:
            raise PartError(f"no ref {ref!r} in this session; {self._known()}")
        return lines_of(text, span)

    def answer_expand(self, tool_calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One tool message for each call of `expand` among an assistant's calls; `add` them behind its message.

        A mistake of the model is answered by a text that says what is wrong. Raises StoreError where the store is
        damaged.
        """
        return [
            {"role": "tool", "tool_call_id": call.get("id"), "content": self._answer(call)}
            for call in tool_calls
            if _is_expand(call)
        ]

    def _insisting(self, parts: Sequence[Part]) -> Sequence[Part]:
        """The parts, with the tool results that are to be kept as required, but for those that had to go."""
        if not self.keep_results:
            return parts
        sent = self._latest.sent if self._latest else {}
        gone = {part_id for part_id, one in sent.items() if one.became == "dropped"}
        return [
            replace(part, required=True) if part.kind == "tool_result" and part.id not in gone else part
            for part in parts
        ]

    def _answer(self, call: Mapping[str, Any]) -> str:
        ref = refs_in(call)
        if not ref:
            return f'Error: `{EXPAND_NAME}` takes a JSON object with a "ref"; {self._known()}'
        try:
            text = self.expand(ref)
        except PartError as error:
            return f"Error: {error}"
        if label := self._shelf.label(parse_ref(ref)[0]):
            self._expanded[str(call.get("id"))] = label
        return text or f"(nothing stands at {ref!r})"

    def _known(self) -> str:
        refs = self._shelf.known()
        if not refs:
            return "nothing was left out of its prompts so far"
        named = ", ".join(map(json.dumps, refs[-_NAMED:]))
        return f"known refs are {named}" + (f" and {len(refs) - _NAMED:,} earlier ones" if len(refs) > _NAMED else "")


def _check(target: float, expected_turns: float | None, result_tokens: int | None, session_id: str) -> None:
    if not 0 < target <= 1:
        raise ValueError(f"`target` must be in (0, 1], got {target!r}")
    if expected_turns is not None and not expected_turns >= 0:
        raise ValueError(f"`expected_turns` must be 0 or more, or None, got {expected_turns!r}")
    if result_tokens is not None and result_tokens < 1:
        raise ValueError(f"`result_tokens` must be 1 or more, or None, got {result_tokens!r}")
    if not session_id or "/" in session_id:
        raise ValueError(f"`session_id` must be a text without '/', got {session_id!r}")


def _is_expand(call: Mapping[str, Any]) -> bool:
    function = call.get("function")
    return isinstance(function, Mapping) and function.get("name") == EXPAND_NAME
