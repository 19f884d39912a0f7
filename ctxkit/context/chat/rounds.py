"""Tool rounds: a call with all its results directly behind it, and repairs of what cannot be one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ctxkit.context.chat.entry import Entry, Repair
from ctxkit.context.chat.reading import call_type
from ctxkit.protocols import ChatMessage

NO_RESULT = "[no result was recorded for this call]"


@dataclass(slots=True, eq=False)
class Round:
    """An assistant message with calls, the reasoning directly before it, and the results found for it.

    answered: places of the calls that have a result.
    """

    call: Entry
    thoughts: list[Entry] = field(default_factory=list)
    results: list[Entry] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)

    @property
    def open(self) -> list[int]:
        return [place for place in range(len(self.call.calls)) if place not in self.answered]

    @property
    def entries(self) -> list[Entry]:
        return [*self.thoughts, self.call, *self.results]


def in_rounds(entries: list[Entry], repairs: list[Repair]) -> list[Entry]:
    """The entries in the order in which they can be sent: every call answered, every result behind its call."""
    if not any(entry.calls or entry.role == "tool" for entry in entries):
        return entries
    rounds = _paired(entries, repairs)
    pending = _pending(entries, rounds)
    gone: set[Entry] = set()
    for single in rounds:
        if single in pending:
            gone.update(_dropped(single, repairs, "the last calls were never answered"))
        elif single.open:
            gone.update(_repaired(single, repairs))
    live = [single for single in rounds if single.call not in gone and single.call.calls]
    ordered = _ordered(entries, live, gone)
    return _ending_in_round(entries, ordered, live, repairs)


def _paired(entries: Sequence[Entry], repairs: list[Repair]) -> list[Round]:
    """The rounds in order; a result belongs to the latest open call of its id, and is folded where there is none."""
    rounds: list[Round] = []
    waiting: dict[str, list[tuple[Round, int]]] = {}
    speaker: Entry | None = None  # the latest entry that is no result
    for place, entry in enumerate(entries):
        if entry.role == "tool":
            calls = waiting.get(entry.answers or "")
            if calls:
                single, call_place = calls.pop()
                single.results.append(entry)
                single.answered.add(call_place)
                if speaker is not single.call:
                    problem = f"the result of call {entry.answers!r} does not stand behind its call"
                    repairs.append(Repair(entry.index, problem, f"moved to behind message {single.call.index}"))
            else:
                _fold_result(entry, repairs, _why_orphan(entry, calls))
            continue
        speaker = entry
        if entry.calls:
            rounds.append(Round(entry, _thoughts_before(entries, place)))
            for call_id, call_place in _first_places(entry.calls).items():
                waiting.setdefault(call_id, []).append((rounds[-1], call_place))
    return rounds


def _first_places(calls: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Call id -> place of the first call that has it. A call without id, or with another's, cannot be answered."""
    places: dict[str, int] = {}
    for place, call in enumerate(calls):
        call_id = call.get("id")
        if isinstance(call_id, str) and call_id:
            places.setdefault(call_id, place)
    return places


def _why_orphan(entry: Entry, calls: Sequence[object] | None) -> str:
    if not entry.answers:
        return "a tool result that names no call"
    if calls is None:
        return f"no earlier call has the id {entry.answers!r}"
    return f"call {entry.answers!r} has a result already"


def _thoughts_before(entries: Sequence[Entry], place: int) -> list[Entry]:
    start = place
    while start > 0 and entries[start - 1].thought:
        start -= 1
    return list(entries[start:place])


def _pending(entries: Sequence[Entry], rounds: Sequence[Round]) -> set[Round]:
    """Rounds without any result that nothing but results follows: the agent stopped there."""
    round_of = {entry: single for single in rounds for entry in (*single.thoughts, single.call)}
    pending: set[Round] = set()
    for entry in reversed(entries):
        if entry.role == "tool" or entry.folded:
            continue
        single = round_of.get(entry)
        if single is None or single.answered:
            break
        pending.add(single)
    return pending


def _repaired(single: Round, repairs: list[Repair]) -> list[Entry]:
    """Give each open call of the round an answer, or take it away. Returns the entries to drop."""
    call = single.call
    ids = _first_places(call.calls)
    if call.verbatim:
        if len(ids) < len(call.calls):
            results = single.results
            single.results = []
            for result in results:
                _fold_result(result, repairs, f"its call {result.answers!r} cannot be sent")
            return _dropped(single, repairs, "a call has no id of its own, and the message must not be edited")
        _stand_in(single, repairs)
    elif single.answered:
        _drop_calls(single, repairs)
    else:
        _fold_calls(single, repairs)
    return []


def _dropped(single: Round, repairs: list[Repair], problem: str) -> list[Entry]:
    repairs.extend(Repair(entry.index, problem, "dropped") for entry in (*single.thoughts, single.call))
    return [*single.thoughts, single.call]


def _stand_in(single: Round, repairs: list[Repair]) -> None:
    """Results that say that there is none, behind a message that must not be edited."""
    for place in single.open:
        call_id = str(single.call.calls[place]["id"])
        message = {"role": "tool", "tool_call_id": call_id, "content": NO_RESULT}
        result = Entry(single.call.index, message, "tool", NO_RESULT)
        result.answers, result.suffix = call_id, f".{place}"
        single.results.append(result)
        problem = f"call {call_id!r} has no result, and the message must not be edited"
        repairs.append(Repair(single.call.index, problem, "a result was added that says so"))


def _drop_calls(single: Round, repairs: list[Repair]) -> None:
    entry, lost = single.call, [single.call.calls[place] for place in single.open]
    repairs.extend(Repair(entry.index, _why_unanswered(call), "the call was left out") for call in lost)
    entry.calls = tuple(entry.calls[place] for place in sorted(single.answered))
    entry.message = {**entry.message, "tool_calls": list(entry.calls)}  # a message with hosted calls is never edited


def _why_unanswered(call: Mapping[str, Any]) -> str:
    return f"call {call.get('id')!r} of tool {_body(call)['name']!r} has no result"


def _body(call: Mapping[str, Any]) -> Mapping[str, Any]:
    return call[call_type(call)]


def _fold_calls(single: Round, repairs: list[Repair]) -> None:
    """The calls as text of the assistant."""
    entry = single.call
    repairs.extend(Repair(entry.index, _why_unanswered(call), "sent as assistant text") for call in entry.calls)
    lines = [_call_text(_body(call)) for call in entry.calls]
    note = ("\n" if entry.text else "") + "\n".join(lines)
    rest = {key: value for key, value in entry.message.items() if key != "tool_calls"}
    entry.message = {**rest, "content": _with_text(rest.get("content"), note)}
    entry.text += note
    entry.calls = ()


def _call_text(body: Mapping[str, Any]) -> str:
    arguments = body.get("arguments", body.get("input", ""))
    return f"[called tool `{body['name']}` with {arguments}; no result was recorded]"


def _with_text(content: Any, note: str) -> Any:
    if content is None or isinstance(content, str):
        return (content or "") + note
    return [*content, {"type": "text", "text": note}]


def _fold_result(entry: Entry, repairs: list[Repair], problem: str) -> None:
    """The result as text in the user's role: valid wherever it stands, in every grammar."""
    name = entry.message.get("name")
    heading = "[result of an earlier tool call" + (f" of `{name}`]\n" if name else "]\n")
    repairs.append(Repair(entry.index, problem, "its text was sent in the user's role"))
    entry.message = _user_message(entry.message, heading)
    entry.text = heading + (entry.text or ("" if entry.attachments else "(empty)"))
    entry.attachments = tuple(replace(one, offset=one.offset + len(heading)) for one in entry.attachments)
    entry.role, entry.answers, entry.folded = "user", None, True


def _user_message(message: ChatMessage, heading: str) -> ChatMessage:
    content = message["content"]
    if isinstance(content, str):
        return {"role": "user", "content": heading + (content or "(empty)")}
    return {"role": "user", "content": [{"type": "text", "text": heading}, *content]}


def _ordered(entries: Sequence[Entry], live: Sequence[Round], gone: Collection[Entry]) -> list[Entry]:
    """Everything in order, each round as one run where its call stands."""
    behind = {entry for single in live for entry in (*single.thoughts, *single.results)}
    round_of = {single.call: single for single in live}
    ordered: list[Entry] = []
    for entry in entries:
        if entry in gone or entry in behind:
            continue
        single = round_of.get(entry)
        if single is None:
            ordered.append(entry)
            continue
        run = single.entries
        for member in run:
            member.group = f"round-m{entry.index}"
        ordered += run
    return ordered


def _ending_in_round(
    given: Sequence[Entry], ordered: list[Entry], live: Sequence[Round], repairs: list[Repair]
) -> list[Entry]:
    """What was given with a result at its end still ends so: the round of that result goes to the end."""
    last = ordered[-1] if ordered else None
    if last is None or given[-1].role != "tool" or last.role in ("tool", "user"):
        return ordered
    single = next(one for one in live if given[-1] in one.results)
    problem = "the prompt ended with a result of these calls and would not any more"
    repairs.append(Repair(single.call.index, problem, "moved to the end with its results"))
    members = set(single.entries)
    return [*(entry for entry in ordered if entry not in members), *single.entries]
