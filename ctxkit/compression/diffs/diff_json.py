"""Differences of two JSON texts by their structure, as JSON that gives the second text back byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ctxkit.compression.diffs.align import changes

_INDENT = re.compile(r"\n([ \t]+)\S")
_SEPARATORS = ((", ", ": "), (",", ":"))
_INDENTED_SEPARATORS = ((",", ": "), (",", ":"), (", ", ": "))


@dataclass(frozen=True, slots=True)
class _Style:
    """How a text writes JSON: the arguments of `json.dumps`, and the white space behind it."""

    indent: str | None
    separators: tuple[str, str]
    ensure_ascii: bool
    tail: str

    def write(self, value: Any) -> str:
        separators, ascii_only = self.separators, self.ensure_ascii
        return json.dumps(value, indent=self.indent, separators=separators, ensure_ascii=ascii_only) + self.tail


def diff(base: str, text: str) -> str | None:
    """What turns `base` into `text`, as JSON; None where that would not give `text` back byte for byte.

    {"set": {path: value}, "remove": [path], "splice": {path: [[start, removed, [values]]]}}, each only where it is not
    empty. A path is a JSON pointer (RFC 6901) into the base, as are all places in arrays. Key order, number spelling
    and white space must be what one call of `json.dumps` makes of both texts, which is tried and not assumed.

    >>> diff('{"state": "wait", "left": [3, 2, 1]}', '{"state": "run", "left": [2, 1]}')
    '{"set":{"/state":"run"},"splice":{"/left":[[0,1,[]]]}}'
    """
    with suppress(ValueError, RecursionError):
        old, style = _read(base)
        new = json.loads(text)
        if style.write(new) != text:
            return None
        edits = _Edits()
        edits.compare("", old, new)
        made = json.dumps(edits.as_dict(), separators=(",", ":"), ensure_ascii=style.ensure_ascii)
        return made if apply(base, made) == text else None
    return None


def apply(base: str, diff: str) -> str:
    """The text that `diff(base, text)` was made of. Raises ValueError for a diff of another base, or no diff."""
    value, style = _read(base)
    edits = json.loads(diff)
    if not isinstance(edits, dict) or not edits.keys() <= {"set", "remove", "splice"}:
        raise ValueError("no diff: a JSON object of `set`, `remove` and `splice` is expected")
    try:
        return style.write(_edited(value, edits))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"the diff was made for another base ({error!r})") from error


def _read(text: str) -> tuple[Any, _Style]:
    """The value and the style that writes it so. Raises ValueError where no style does."""
    value = json.loads(text)
    for style in _styles(text):
        if style.write(value) == text:
            return value, style
    raise ValueError("no JSON that one call of `json.dumps` writes")


def _styles(text: str) -> Iterator[_Style]:
    """The styles that come into question, the simplest first."""
    body = text.rstrip()
    indent = _INDENT.search(body)
    for separators in _INDENTED_SEPARATORS if indent else _SEPARATORS:
        for ensure_ascii in (False, True):
            yield _Style(indent[1] if indent else None, separators, ensure_ascii, text[len(body) :])


@dataclass
class _Edits:
    """Collects what differs. All places are those of the old value."""

    sets: dict[str, Any] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    splices: dict[str, list[list[Any]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        named = {"set": self.sets, "remove": self.removed, "splice": self.splices}
        return {name: edits for name, edits in named.items() if edits}

    def compare(self, path: str, old: Any, new: Any) -> None:
        if type(old) is not type(new):
            self.sets[path] = new
        elif isinstance(new, dict):
            self._objects(path, old, new)
        elif isinstance(new, list):
            self._arrays(path, old, new)
        elif repr(old) != repr(new):  # 0.0 is -0.0, but is not written so
            self.sets[path] = new

    def _objects(self, path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        kept = [key for key in old if key in new]
        added = [key for key in new if key not in old]
        if [*kept, *added] != list(new):  # keys in another order: no edit can say that
            self.sets[path] = new
            return
        self.removed += [f"{path}/{_escaped(key)}" for key in old if key not in new]
        for key in kept:
            self.compare(f"{path}/{_escaped(key)}", old[key], new[key])
        self.sets.update({f"{path}/{_escaped(key)}": new[key] for key in added})

    def _arrays(self, path: str, old: Sequence[Any], new: Sequence[Any]) -> None:
        """Items that stand against each other are compared; what is left over comes in or goes."""
        splices = []
        for change in changes([json.dumps(item) for item in old], [json.dumps(item) for item in new]):
            paired = min(change.end - change.start, change.new_end - change.new_start)
            for step in range(paired):
                self.compare(f"{path}/{change.start + step}", old[change.start + step], new[change.new_start + step])
            start, coming = change.start + paired, new[change.new_start + paired : change.new_end]
            if change.end > start or coming:
                splices.append([start, change.end - start, coming])
        if splices:
            self.splices[path] = splices


def _edited(value: Any, edits: Mapping[str, Any]) -> Any:
    """The value with the edits, which may change it: first what keeps every place, then deep arrays before shallow."""
    for path, new in edits.get("set", {}).items():
        if not path:
            value = new
            continue
        holder, key = _found(value, path)
        holder[key] = new
    for path in edits.get("remove", ()):
        holder, key = _found(value, path)
        del holder[key]
    for path, splices in sorted(edits.get("splice", {}).items(), key=lambda one: -one[0].count("/")):
        holder, key = _found([value], "/0" + path)
        for start, removed, coming in reversed(splices):
            if start + removed > len(holder[key]):
                raise ValueError("the diff was made for another base: an array of it is shorter")
            holder[key][start : start + removed] = coming
    return value


def _found(value: Any, path: str) -> tuple[Any, Any]:
    """What holds the place, and its key or index there."""
    keys = [key.replace("~1", "/").replace("~0", "~") for key in path.split("/")[1:]]
    for key in keys[:-1]:
        value = value[int(key) if isinstance(value, list) else key]
    return value, int(keys[-1]) if isinstance(value, list) else keys[-1]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
