"""Tool calls in a model's text: found while it is written, and put into OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ctxkit.models.text import partial_end

_decoder = json.JSONDecoder()


@dataclass(frozen=True)
class CallForm:
    """How a family of models writes a call: JSON between two markers.

    opening, closing: the markers; "" opening: a call can only begin the answer; "" closing: it goes on to the end.
    arguments: what the arguments are called. before, after: what stands around the JSON of a call that is forced.
    """

    opening: str
    closing: str
    arguments: str
    before: str
    after: str


HERMES = CallForm("<tool_call>", "</tool_call>", "arguments", "<tool_call>\n", "\n</tool_call>")
"""Hermes, Qwen and most of ChatML."""

MISTRAL = CallForm("[TOOL_CALLS]", "", "arguments", "[", "]")
"""A list of calls behind a control token."""

LLAMA = CallForm("<|python_tag|>", "", "parameters", "", "")
"""Llama 3: one JSON object, with or without a control token before it."""

BARE = CallForm("", "", "arguments", "", "")
"""The answer is a call, and nothing marks it."""

MARKERS = (HERMES.opening, HERMES.closing, MISTRAL.opening, LLAMA.opening)


def forms_of(chat_template: str) -> tuple[CallForm, ...]:
    """The forms that a template hints at, the likeliest first; all of them where it says nothing."""
    if HERMES.opening in chat_template:
        return (HERMES,)
    if MISTRAL.opening in chat_template:
        return (MISTRAL, BARE)
    if LLAMA.opening in chat_template or '"parameters": ' in chat_template:
        return (LLAMA, BARE)
    return (HERMES, MISTRAL, LLAMA, BARE)


class ToolCallReader:
    """Takes the calls out of a text that comes in pieces; what is no call stays text.

    A call that has begun is held back until it is whole. One that is no JSON, or has no name, is given back as the text
    that it is. Unmarked JSON is a call only where it names one of the tools.

    names: of the request's tools. seed: makes the ids; another one for every answer.

    >>> reader = ToolCallReader((HERMES,), {"add"}, b"7")
    >>> reader.feed('Wait. <tool_'), reader.feed('call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    ('Wait. ', '')
    >>> [call["function"]["arguments"] for call in reader.calls]
    ['{"a": 1}']
    """

    def __init__(self, forms: tuple[CallForm, ...], names: Collection[str], seed: bytes) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self._forms = {form.opening: form for form in forms if form.opening}
        self._bare = BARE in forms
        self._names = frozenset(names)
        self._seed = seed
        self._held = ""
        self._blank = True  # nothing but white space since the beginning, or since the last call
        self._form: CallForm | None = None  # of the call that has begun
        self._before = ""  # white space that is not shown where it really is a call

    def feed(self, text: str) -> str:
        """The text that may be shown now."""
        self._held += text
        shown = ""
        while True:
            shown += self._outside() if self._form is None else ""
            form = self._form
            end = self._held.find(form.closing) if form is not None and form.closing else -1
            if form is None or end < 0:
                return shown
            shown += self._close(form, end)

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        if self._form is not None:
            return self._close(self._form, len(self._held))
        held, self._held = self._held, ""
        return "" if self.calls and self._blank and not held.strip() else held

    def _outside(self) -> str:
        """The text before the next call, as far as it is certain. A call that begins is noted."""
        at, self._form = self._next_call()
        text = self._held[:at]
        self._before = ""
        if self._blank and not text.strip():  # white space around calls belongs to them
            if self._form is None:
                return ""
            self._before, text = text, ""
        self._held = self._held[at:]
        self._blank = self._blank and not text
        return text

    def _next_call(self) -> tuple[int, CallForm | None]:
        """Where in what is held a call begins, or may."""
        begin = self._held.lstrip()
        marked = any(opening.startswith(begin[: len(opening)]) for opening in self._forms)
        if self._bare and self._blank and not self.calls and begin[:1] in ("{", "[") and not marked:
            return len(self._held) - len(begin), BARE
        found = [(at, form) for opening, form in self._forms.items() if (at := self._held.find(opening)) >= 0]
        if found:
            return min(found, key=lambda one: one[0])
        return len(self._held) - partial_end(self._held, tuple(self._forms)), None

    def _close(self, form: CallForm, end: int) -> str:
        """Ends the call that has begun, with what stands before `end`; the text that turned out to be none."""
        body = self._held[len(form.opening) : end]
        whole = self._held[: end + len(form.closing)]
        self._held, self._form = self._held[len(whole) :], None
        calls, rest = calls_in(body, self._names if form is BARE else None)
        if not calls or (form.closing and rest):
            self._blank = False
            return self._before + whole
        for name, arguments in calls:
            self.calls.append(self._openai(name, arguments))
        self._blank = not rest
        return rest

    def _openai(self, name: str, arguments: str) -> Mapping[str, Any]:
        said = f"{len(self.calls)} {name} {arguments}".encode()
        number = blake2b(self._seed + said, digest_size=12).hexdigest()
        return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def calls_in(text: str, names: Collection[str] | None = None) -> tuple[list[tuple[str, str]], str]:
    """(name, arguments as JSON) of the calls that `text` begins with, and what stands behind them.

    names: the only ones that count; None for any. No calls where one of the objects is none.

    >>> calls_in('{"name": "add", "parameters": {"a": 1}}; {"name": "now"} Done.')
    ([('add', '{"a": 1}'), ('now', '{}')], 'Done.')
    >>> calls_in('{"a": 1}')
    ([], '{"a": 1}')
    """
    calls: list[tuple[str, str]] = []
    rest = text.strip()
    while rest[:1] in ("{", "["):
        try:
            found, end = _decoder.raw_decode(rest)
        except (ValueError, RecursionError):
            break
        own = [_call(entry) for entry in (found if isinstance(found, list) else [found])]
        known = [call for call in own if call is not None and (names is None or call[0] in names)]
        if not known or len(known) < len(own):
            return [], text
        calls += known
        rest = rest[end:].lstrip().removeprefix(";").lstrip()
    return (calls, rest) if calls else ([], text)


def _call(entry: Any) -> tuple[str, str] | None:
    """(name, arguments) of one call as models write it, None where it is none."""
    entry = entry.get("function", entry) if isinstance(entry, Mapping) else entry
    if isinstance(entry, str) or not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        return None
    arguments = entry.get("arguments", entry.get("parameters", {}))
    if isinstance(arguments, str):
        return (entry["name"], arguments) if _is_object(arguments) else None
    return (entry["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, Mapping) else None


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
