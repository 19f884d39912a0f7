"""Planning costs: what a part adds to a prompt, about. Only what may get in is tokenised, and each text once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property

from ctxkit.context.compose import SEPARATOR, opens_message, part_text
from ctxkit.context.group import Group
from ctxkit.context.level import Level
from ctxkit.context.part import Kind, Part
from ctxkit.errors import PromptError
from ctxkit.protocols import Counter, PromptMessage, Segment

SEAM_TOKENS = 16  # more than a planning cost is off where pieces meet
_MESSAGE_TOKENS = 8  # per message, where the template refuses to render the probe
_SAMPLE = 64  # texts counted to learn how many tokens a byte makes
_TWO_DIGITS = 10  # stands for a passage's number, which is known only at the end


class Costs:
    """Counts of texts by one counter, kept for as long as a problem is solved again and again."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self._tokens: dict[str, int] = {}
        self._blocks: dict[str, int] = {}

    def count(self, parts: Iterable[Part]) -> None:
        """Count the texts of these parts, those that are new, in one batch."""
        new = {text: None for part in parts for text in _texts(part) if text not in self._tokens}
        if new:
            self._tokens.update(zip(new, self.counter.count_batch(list(new)), strict=True))

    def part(self, part: Part) -> int:
        """Tokens that the part adds, its message's role markers included."""
        tokens = self.message_tokens if opens_message(part) else 0
        for text in _texts(part):
            if text not in self._tokens:
                self.count([part])
            tokens += self._tokens[text]
        return tokens + (self._attached(part) if part.attachments else 0)

    def parts(self, parts: Iterable[Part]) -> int:
        return sum(map(self.part, parts))

    def contents(self, level: Level) -> int:
        """Tokens of the contents and call arguments alone, which is what `Level.resize` takes."""
        return sum(map(self.texts, level.parts))

    def texts(self, part: Part) -> int:
        """Tokens of its content and call arguments alone."""
        return sum(self.counter.count_batch([part.content, *arguments(part)]))

    def by_kind(self, parts: Sequence[Part], kinds: Sequence[Kind]) -> tuple[int, ...]:
        return tuple(sum(self.part(part) for part in parts if part.kind == kind) for kind in kinds)

    def estimates(self, groups: Sequence[Group]) -> list[int]:
        """About what each group costs whole, from its bytes and a sample. Never 0."""
        plain, other = self._rates(groups)
        overhead = self.message_tokens
        estimated = []
        for group in groups:
            tokens = 1.0
            for part in group.parts:
                text = part.content
                # A part costs what its text does; calls are rare enough to be spelled out.
                size = len(text) * plain if text.isascii() else len(text.encode("utf-8", "surrogatepass")) * other
                tokens += size + overhead + (sum(map(len, arguments(part))) * plain if part.tool_calls else 0)
            estimated.append(int(tokens))
        return estimated

    def _rates(self, groups: Sequence[Group]) -> tuple[float, float]:
        """Tokens per byte of texts in ASCII and of others, from a sample."""
        every = max(len(groups) // _SAMPLE, 1)
        sample = [part for group in groups[::every] for part in group.parts[:1]]
        self.count(sample)
        rates = []
        for ascii_only in (True, False):
            texts = [part.content for part in sample if part.content.isascii() == ascii_only]
            size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
            tokens = sum(self.part(part) for part in sample if part.content.isascii() == ascii_only)
            overhead = self.message_tokens * len(texts)
            rates.append(max(tokens - overhead, 1) / size if size else 0.3)
        return rates[0], rates[1]

    def _attached(self, part: Part) -> int:
        """Tokens of the attachments, by the difference that they make to a message."""
        if part.id not in self._blocks:
            text = Segment("a")
            blocks = tuple(Segment("", None, one.block) for one in part.attachments)
            with_them = self.counter.render([PromptMessage("user", (text, *blocks))])
            without = self.counter.render([PromptMessage("user", (text,))])
            self._blocks[part.id] = max(with_them.tokens - without.tokens, 0)
        return self._blocks[part.id]

    @cached_property
    def message_tokens(self) -> int:
        """What the template adds per message, measured on a probe."""
        user = PromptMessage("user", (Segment("a"),))
        answer = PromptMessage("assistant", (Segment("a"),))
        try:
            two, four = self.counter.render([user, answer]), self.counter.render([user, answer, user, answer])
        except PromptError:
            return _MESSAGE_TOKENS
        return max((four.tokens - two.tokens - 2 * self.counter.count("a") + 1) // 2, 0)


def arguments(part: Part) -> tuple[str, ...]:
    """The arguments of the part's calls, as the model wrote them."""
    return tuple(str((call.get("function") or {}).get("arguments") or "") for call in part.tool_calls)


def _texts(part: Part) -> tuple[str, ...]:
    """Texts whose counts add up to about what the part costs, wherever it ends up."""
    if part.tool_calls:
        return (part.content, *(json.dumps(dict(call), ensure_ascii=False) for call in part.tool_calls))
    if opens_message(part):
        return (part.content,)
    return (SEPARATOR + part_text(part, _TWO_DIGITS),)
