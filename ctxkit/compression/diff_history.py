"""Diff history: later looks at one source, each sent as what changed since an earlier one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ctxkit.compression.diffs import diff_json, diff_text
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.sources.slots import arguments_of
from ctxkit.context.group import Group
from ctxkit.context.labels import Label, joined
from ctxkit.context.level import Handle, Level, LevelRequest, Need
from ctxkit.context.part import Part
from ctxkit.protocols import Counter

_HEADING = re.compile(r"\[(no changes|changes|JSON changes) since (.+)\](?:\n|\Z)")
_WHOLE = "[whole]\n"
_LAST = "the last one"
_KINDS = ("tool_result", "passage", "turn", "memory")


def encoded(text: str, base: str, base_name: str) -> Iterator[str]:
    """The ways to write the text as its changes since the base, under a heading that names it."""
    if text == base:
        yield f"[no changes since {base_name}]"
        return
    yield f"[changes since {base_name}]\n{diff_text.diff(base, text)}"
    if text[:1] in ("{", "[") and base[:1] == text[:1]:
        made = diff_json.diff(base, text)
        if made is not None:
            yield f"[JSON changes since {base_name}]\n{made}"


def decoded(content: str, bases: Mapping[str, str]) -> str:
    """The text that a content was made of by `encoded`; a content without such a heading is the text.

    bases: name -> text. Raises ValueError for a base that is not among them, or says something else.
    """
    heading = _HEADING.match(content)
    if heading is None:
        return content
    how, name = heading.groups()
    if name not in bases:
        raise ValueError(f"the changes are those since {name!r}, which is not known")
    if how == "no changes":
        return bases[name]
    apply = diff_text.apply if how == "changes" else diff_json.apply
    return apply(bases[name], content[heading.end() :])


def restored(contents: Mapping[str, str]) -> dict[str, str]:
    """What each part said, from the contents that a prompt shows, by id and in its order.

    Raises ValueError where a content is the changes since a part that does not stand before it.
    """
    texts: dict[str, str] = {}
    for part_id, content in contents.items():
        texts[part_id] = decoded(content, texts)
    return texts


@dataclass
class DiffHistory:
    """Observations of one source to messages, each whole or as what changed since the one before; and back.

        sender, reader = DiffHistory(), DiffHistory()
        message = sender.encode(page)
        assert reader.decode(message) == page

    One object for each direction: both remember the last observation. A message is never longer than its observation,
    but for the line "[whole]" above one that itself begins like such a message.

    rekey_every: one of so many observations is whole, at least. length: of a text, such as a counter's `count`.
    """

    rekey_every: int = 8
    length: Callable[[str], int] = len
    _last: str | None = field(default=None, init=False, repr=False)
    _since_whole: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_rekeying(self.rekey_every)

    def encode(self, observation: str) -> str:
        """The message of the next observation."""
        last, self._last = self._last, observation
        self._since_whole += 1
        if last is not None and self._since_whole < self.rekey_every:
            shortest = min(encoded(observation, last, _LAST), key=self.length)
            if self.length(shortest) < self.length(observation):
                return shortest
        self._since_whole = 0
        return _WHOLE + observation if _is_taken(observation) else observation

    def decode(self, message: str) -> str:
        """The observation of the next message. Raises ValueError where messages before it are missing."""
        if message.startswith(_WHOLE):
            self._last = message.removeprefix(_WHOLE)
        else:
            self._last = decoded(message, {} if self._last is None else {_LAST: self._last})
        return self._last


@dataclass(frozen=True)
class DiffHistoryCompressor:
    """Sends an observation as what changed since an earlier one of its source: a file read again, a page, a status.

    Piterbarg, Pinto and Fergus, "diff History for Neural Language Agents" (arXiv 2312.07540). There a model is tuned on
    such histories; here they are a lossless encoding, used only where it is the shorter one.

    Observations of one source are the parts (tool results, passages, turns, memories) with the same `source`, and tool
    results without one that answer the same function with the same arguments. A later one gets levels `diff`: a line
    that names the base, and a unified diff of the lines or the differences of the two JSON texts, whichever is shorter.
    A plan never holds one without its base (`Level.needs`).

    rekey_every: of so many observations of a source the first is never a difference, so no chain is longer.
    bases: how many earlier observations are offered as a base: the one before, the one before that, and the first of
        the chain. With several, a plan can leave out a base and go on.
    utility: of such a level, in (0, 1). It loses nothing, but a model has to put it together.
    """

    rekey_every: int = 8
    bases: int = 3
    utility: float = 0.99

    def __post_init__(self) -> None:
        _check_rekeying(self.rekey_every)
        if not 1 <= self.bases <= 3:
            raise ValueError(f"`bases` must be 1, 2 or 3, got {self.bases!r}")
        if not 0 < self.utility < 1:
            raise ValueError(f"`utility` must be in (0, 1), got {self.utility!r}")

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        yield from self.joint_levels([group], request)[0]

    def joint_levels(self, groups: Sequence[Group], request: LevelRequest) -> Sequence[Iterator[Level]]:
        """The levels of each group, made when they are looked at; bases come from all groups of the prompt."""
        bases = self._bases(request.groups or groups)
        return [self._levels(group, bases, TotalCounter(request.counter)) for group in groups]

    def proposed(self, request: LevelRequest) -> Sequence[Group]:
        """The groups with a later observation of something."""
        bases = self._bases(request.groups)
        return [group for group in request.groups if any(part.id in bases for part in group.parts)]

    def _bases(self, groups: Sequence[Group]) -> dict[str, list[Part]]:
        """For each observation that may be a difference the parts that it may be one to, the nearest first."""
        seen: dict[tuple[str, ...], list[Part]] = {}
        bases: dict[str, list[Part]] = {}
        for _, part, source in sorted(_observations(groups), key=lambda one: one[0]):
            chain = seen.setdefault(source, [])
            start = len(chain) - len(chain) % self.rekey_every
            if len(chain) > start and not part.verbatim:
                tried = [len(chain) - 1, len(chain) - 2, start][: self.bases]
                bases[part.id] = [chain[at] for at in dict.fromkeys(tried) if at >= start]
            chain.append(part)
        return bases

    def _levels(self, group: Group, bases: Mapping[str, Sequence[Part]], counter: Counter) -> Iterator[Level]:
        made: set[tuple[Need, ...]] = set()
        for depth in range(max((len(bases.get(part.id, ())) for part in group.parts), default=0)):
            level = self._level(group, bases, depth, counter)
            if level is not None and level.needs not in made:
                made.add(level.needs)
                yield level

    def _level(self, group: Group, bases: Mapping[str, Sequence[Part]], depth: int, counter: Counter) -> Level | None:
        """The group with each observation written against its base of this depth, where that is shorter."""
        parts = list(group.parts)
        needs: list[Need] = []
        for place, part in enumerate(group.parts):
            known = bases.get(part.id, ())
            base = known[min(depth, len(known) - 1)] if known else None
            shorter = _shorter(part, base, counter) if base else None
            if base and shorter is not None:
                parts[place] = part.rewritten(shorter, label=_label(part, base))
                needs.append(Need(part.id, base.id, base.content))
        if not needs:
            return None
        named = {need.part_id for need in needs}
        handles = tuple(Handle.of_whole(part) for part in group.parts if part.id in named)
        return Level("diff", tuple(parts), self.utility, "diff history", handles, needs=tuple(needs))


def _observations(groups: Sequence[Group]) -> Iterator[tuple[int, Part, tuple[str, ...]]]:
    """(position, part, what it is an observation of) of every part that can be one."""
    for group in groups:
        calls: dict[str, Mapping[str, object]] = {}
        for position, part in zip(group.positions, group.parts, strict=True):
            calls.update({str(call.get("id")): call for call in part.tool_calls})
            if part.kind not in _KINDS or part.attachments or not part.content or _is_taken(part.content):
                continue
            if "\n" in part.id:
                continue  # a heading is one line
            if part.source:
                yield position, part, ("source", part.source)
            elif part.kind == "tool_result" and str(part.tool_call_id) in calls:
                yield position, part, _called(calls[str(part.tool_call_id)])


def _called(call: Mapping[str, object]) -> tuple[str, ...]:
    """Function and arguments of a call, however its JSON is written."""
    function = call.get("function")
    name = str(function.get("name")) if isinstance(function, Mapping) else ""
    arguments = arguments_of(call) or ""
    with suppress(ValueError, RecursionError):
        arguments = json.dumps(json.loads(arguments), sort_keys=True)
    return "call", name, arguments


def _shorter(part: Part, base: Part, counter: Counter) -> str | None:
    """The part's text as its changes since the base, None where that takes as many tokens."""
    ways = list(encoded(part.content, base.content, base.id))
    *tokens, whole = counter.count_batch([*ways, part.content])
    best = min(range(len(ways)), key=tokens.__getitem__)
    return ways[best] if tokens[best] < whole else None


def _label(part: Part, base: Part) -> Label | None:
    """Of a difference: it shows what the base says, too."""
    return part.label if base.label is None else joined([part.label, base.label])


def _is_taken(text: str) -> bool:
    """Whether a text by itself looks like what this module writes."""
    return text.startswith(_WHOLE) or _HEADING.match(text) is not None


def _check_rekeying(rekey_every: int) -> None:
    if rekey_every < 1:
        raise ValueError(f"`rekey_every` must be at least 1, got {rekey_every!r}")
