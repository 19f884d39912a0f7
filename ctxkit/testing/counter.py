"""WhitespaceCounter: tokens one can count by eye."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter as Tally
from collections.abc import Iterator, Sequence

from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Rendering, Tool
from ctxkit.tokens.media import MediaRule, with_blocks

_WORD = re.compile(r"\S+")


class WhitespaceCounter:
    """An exact `Counter` whose tokens are words.

    overhead_per_message: template tokens around every message.
    prompt_overhead: template tokens of the generation prompt.
    media: what images and files cost; None refuses them.

    Pieces that meet without white space become one word, so counts of pieces do not add up, as with real tokenizers.

    >>> counter = WhitespaceCounter()
    >>> counter.count("two words"), counter.count("two") + counter.count("words"), counter.count("two" + "words")
    (2, 2, 1)
    """

    exact = True

    def __init__(
        self,
        *,
        overhead_per_message: int = 3,
        prompt_overhead: int = 2,
        name: str = "whitespace",
        media: MediaRule | None = None,
    ) -> None:
        self.overhead_per_message = overhead_per_message
        self.prompt_overhead = prompt_overhead
        self.name = name
        self.media = media

    def __repr__(self) -> str:
        return f"WhitespaceCounter(overhead_per_message={self.overhead_per_message})"

    def count(self, text: str) -> int:
        return len(_WORD.findall(text))

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        tokens = list(self._tokens(messages, tools))
        by_owner = Tally(owner for owner, _ in tokens)
        rendering = Rendering(len(tokens), tuple(_id(word) for _, word in tokens), dict(by_owner))
        return with_blocks(rendering, messages, self.media, self.count)

    def _tokens(self, messages: Sequence[PromptMessage], tools: Sequence[Tool]) -> Iterator[tuple[str, str]]:
        """(owner, word) of each token."""
        for tool in tools:
            yield from ((TOOLS, word) for word in _WORD.findall(json.dumps(tool)))
        for message in messages:
            yield from ((TEMPLATE, f"<{message.role} {n}>") for n in range(self.overhead_per_message))
            yield from _words(message)
            for call in message.tool_calls:
                yield from ((message.owner or TEMPLATE, word) for word in _WORD.findall(json.dumps(dict(call))))
        yield from ((TEMPLATE, f"<answer {n}>") for n in range(self.prompt_overhead))


def _words(message: PromptMessage) -> Iterator[tuple[str, str]]:
    """Words of the content, each charged to the owner of its first character."""
    owners = [segment.owner or TEMPLATE for segment in message.segments for _ in segment.text]
    for match in _WORD.finditer(message.content):
        yield owners[match.start()], match.group()


def _id(word: str) -> int:
    return zlib.crc32(word.encode("utf-8", errors="surrogatepass"))
