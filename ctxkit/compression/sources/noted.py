"""NotedSource: a cut that says how to get the rest, for prompts that come with the `expand` tool."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property

from ctxkit.compression.sources.cut import Cut, Fragment, Source
from ctxkit.context.expand import expand_call
from ctxkit.protocols import Counter

_LOSSLESS = 0.99
"""A cut worth as much left nothing out."""


@dataclass(frozen=True)
class NotedSource:
    """`inner`, with a note in each cut that leaves something out. A note in JSON is JSON.

    part_id: what the note tells the model to ask for.
    """

    inner: Source
    part_id: str
    counter: Counter

    @property
    def kind(self) -> str:
        return self.inner.kind

    @property
    def ceiling(self) -> int:
        return self.inner.ceiling

    @cached_property
    def natural(self) -> int | None:
        natural = self.inner.natural
        cut = None if natural is None else self.inner.at(natural)
        return None if cut is None else self._noted(cut).tokens

    @cached_property
    def smallest(self) -> Cut | None:
        cut = self.inner.smallest
        return None if cut is None else self._noted(cut)

    def at(self, tokens: int) -> Cut | None:
        whole = self.inner.at(tokens)
        if whole is None or whole.value >= _LOSSLESS:
            return whole
        room = tokens - self._note_tokens
        for _ in range(3):
            cut = self.inner.at(room) if room > 0 else None
            if cut is None:
                return None
            noted = self._noted(cut)
            if noted.tokens <= tokens:
                return noted
            room -= noted.tokens - tokens
        return None

    @cached_property
    def _note_tokens(self) -> int:
        return self.counter.count("\n" + self._note) + 2

    @property
    def _note(self) -> str:
        return f"[shortened; {expand_call(self.part_id)}]"

    def _noted(self, cut: Cut) -> Cut:
        if cut.value >= _LOSSLESS:
            return cut
        fragments = self._with_note(cut)
        text = "".join(fragment.text for fragment in fragments)
        return replace(cut, text=text, tokens=self.counter.count(text), fragments=tuple(fragments))

    def _with_note(self, cut: Cut) -> list[Fragment]:
        fragments = list(cut.fragments)
        if self.kind == "json":
            return _inside(cut.text, fragments, json.dumps(self._note, ensure_ascii=False))
        note = json.dumps({"…": self._note}, ensure_ascii=False) if self.kind == "json lines" else self._note
        return [*fragments, Fragment("" if cut.text.endswith("\n") else "\n", None), Fragment(note, None)]


def _inside(text: str, fragments: list[Fragment], note: str) -> list[Fragment]:
    """The note as the last field of an object or the last item of an array; a lone string has no room for one."""
    if not text or text[-1] not in "]}":
        return fragments
    last = fragments[-1]
    separator = "," if text[:-1].rstrip()[-1:] not in ("{", "[") else ""
    key = f"{json.dumps(_free_key(text), ensure_ascii=False)}:" if text[-1] == "}" else ""
    start = None if last.start is None else last.start + len(last.text) - 1
    head = [Fragment(last.text[:-1], last.start)] if len(last.text) > 1 else []
    return [*fragments[:-1], *head, Fragment(f"{separator}{key}{note}", None), Fragment(text[-1], start)]


def _free_key(text: str) -> str:
    """A key that no object in the text has."""
    key = "…rest"
    while key in text:
        key += "…"
    return key
