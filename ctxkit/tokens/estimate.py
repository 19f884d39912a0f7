"""EstimatingCounter: counts that are never too low, for models whose tokenizer is not at hand.

The bound itself, and why it holds, is in `ctxkit/tokens/bpe_bound.py`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Rendering, Tool
from ctxkit.tokens.blocks import is_media, opaque_text
from ctxkit.tokens.bpe_bound import (
    FAMILIES,
    Costs,
    byte_costs,
    chunks,
    cost_of,
    family_bounds,
    nfc_excess,
    piece_cost,
    pieces_of,
    plain_costs,
)
from ctxkit.tokens.least import at_least
from ctxkit.tokens.media import MediaRule, block_tokens
from ctxkit.tokens.messages import further_fields

DEFAULT_FAMILIES = ("cl100k", "qwen", "o200k", "smollm2")
"""The families that models of today use. GPT-2's is left out: it spends a token on each space of an indentation."""


class _Ledger:
    """Costs per owner, kept for each family until the dearest one is known."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = {TEMPLATE: [0] * len(FAMILIES)}

    def charge(self, owner: str | None, costs: Iterable[int]) -> None:
        row = self._rows.setdefault(TEMPLATE if owner is None else owner, [0] * len(FAMILIES))
        for i, cost in enumerate(costs):
            row[i] += cost

    def close(self, families: Iterable[str]) -> Rendering:
        totals = [sum(row[i] for row in self._rows.values()) for i in range(len(FAMILIES))]
        dearest = max((FAMILIES.index(family) for family in families), key=totals.__getitem__)
        by_owner = {owner: row[dearest] for owner, row in self._rows.items()}
        return Rendering(tokens=totals[dearest], ids=None, by_owner=by_owner)


class _Owners:
    """Who owns which character of a message's joined text."""

    def __init__(self, message: PromptMessage) -> None:
        texts = [segment for segment in message.segments if segment.text]
        self._owners = [segment.owner for segment in texts]
        self._ends = list(accumulate(len(segment.text) for segment in texts))

    def at(self, offset: int) -> str | None:
        return self._owners[bisect_right(self._ends, offset)]

    def shared(self, start: int, stop: int) -> bool:
        """Whether characters `start` to `stop` come from more than one segment."""
        return self._ends[bisect_right(self._ends, start)] < stop


def _charge_content(ledger: _Ledger, message: PromptMessage) -> None:
    """Charge each pre-token of the joined text to the owner of its first character."""
    owners, content = _Owners(message), message.content
    if len({segment.owner for segment in message.segments if segment.text}) == 1:
        ledger.charge(owners.at(0), family_bounds(content))
        return
    start = 0
    for chunk, sure in chunks(content):
        if sure and owners.shared(start, start + len(chunk)):
            _charge_pieces(ledger, owners, chunk, start)
        else:
            ledger.charge(owners.at(start), cost_of(chunk) if sure else byte_costs(chunk))
        start += len(chunk)
    ledger.charge(TEMPLATE, nfc_excess(content, plain_costs(content)))


def _charge_pieces(ledger: _Ledger, owners: _Owners, chunk: str, start: int) -> None:
    for i, family in enumerate(FAMILIES):
        at = start
        for piece in pieces_of(family, chunk):
            ledger.charge(owners.at(at), [0] * i + [piece_cost(family, piece)])
            at += len(piece)


def _json_bounds(value: object) -> Costs:
    """Compact or with blanks behind the separators, as the template likes it: the dearer of the two."""
    forms = (json.dumps(value, ensure_ascii=False, separators=pair, default=str) for pair in ((",", ":"), (", ", ": ")))
    return tuple(map(max, zip(*map(family_bounds, forms), strict=True)))


@dataclass(frozen=True)
class EstimatingCounter:
    """A Counter that never counts too low, for models whose tokenizer is not at hand.

    name: what reports call it.
    message_tokens: added per message for role markers and separators.
    prompt_tokens: added once, for what a template puts around the messages.
    tool_tokens: added once when there are tools, for the instructions that templates put around the schemas.
    families: the tokenizer families that the bound must hold for, of "cl100k" (GPT-4, Llama 3), "o200k" (GPT-4o,
        gpt-oss), "qwen" (Qwen 2 and 3), "smollm2" and "gpt2". All but the last by default; fewer are tighter.
    media: what images and files cost; None refuses them.

    Not covered: tokenizers that are not byte-level BPE of these families (SentencePiece, WordPiece, Tekken, DeepSeek).

    >>> EstimatingCounter().count("Hello world")
    2
    """

    name: str = "estimate"
    message_tokens: int = 8
    prompt_tokens: int = 32
    tool_tokens: int = 256
    families: tuple[str, ...] = DEFAULT_FAMILIES
    media: MediaRule | None = None

    def __post_init__(self) -> None:
        for field in ("message_tokens", "prompt_tokens", "tool_tokens"):
            if getattr(self, field) < 0:
                raise ValueError(f"`{field}` must be 0 or more, got {getattr(self, field)!r}")
        if not self.families or not set(self.families) <= set(FAMILIES):
            raise ValueError(f"`families` must name some of {', '.join(FAMILIES)}, got {self.families!r}")

    @property
    def exact(self) -> bool:
        return False

    def as_text(self) -> EstimatingCounter:
        """The same bound for text that is not sent as a chat: no overheads."""
        return replace(self, name=f"{self.name} (text)", message_tokens=0, prompt_tokens=0, tool_tokens=0)

    def count(self, text: str) -> int:
        """At least as many tokens as any of the families makes of `text`; special tokens are ordinary characters."""
        costs = family_bounds(text)
        return max(costs[FAMILIES.index(family)] for family in self.families)

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        """`count` of each text; equal texts are counted once."""
        counts = {text: self.count(text) for text in dict.fromkeys(texts)}
        return [counts[text] for text in texts]

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        """Tokens of the whole prompt, at most, in the family that it is dearest in.

        A pre-token is charged to the owner of the segment that it begins in; tool calls, ids and names to their
        message's owner, tool schemas to TOOLS, markers and separators to TEMPLATE.
        """
        ledger = _Ledger()
        ledger.charge(TEMPLATE, self._constant(self.prompt_tokens + self.message_tokens * len(messages)))
        for message in messages:
            self._charge_message(ledger, message)
        if tools:
            ledger.charge(TOOLS, self._constant(self.tool_tokens))
        for tool in tools:
            ledger.charge(TOOLS, _json_bounds(dict(tool)))
        return ledger.close(self.families)

    @staticmethod
    def _constant(tokens: int) -> Costs:
        return (tokens,) * len(FAMILIES)

    @staticmethod
    def at_least(messages: Sequence[PromptMessage]) -> int:
        """A lower bound on the tokens of the messages' text; `ctxkit/tokens/least.py` says what it assumes.

        >>> from ctxkit.tokens import messages_from_dicts
        >>> EstimatingCounter.at_least(messages_from_dicts([{"role": "user", "content": "The quick brown fox"}]))
        4
        """
        return at_least(messages)

    def _charge_message(self, ledger: _Ledger, message: PromptMessage) -> None:
        if message.content:
            _charge_content(ledger, message)
        for segment in message.segments:
            if segment.block is not None:
                ledger.charge(segment.owner, self._block_costs(segment.block))
        if further := further_fields(message):
            ledger.charge(message.owner, _json_bounds(further))
        for call in message.tool_calls:
            ledger.charge(message.owner, _json_bounds(dict(call)))
        for extra in (message.tool_call_id, message.name):
            if extra:
                ledger.charge(message.owner, family_bounds(extra))

    def _block_costs(self, block: Mapping[str, Any]) -> Costs:
        if is_media(block):
            return self._constant(block_tokens(block, self.media, self.count))
        return family_bounds(opaque_text(block))
