"""OpenAIChatCounter: OpenAI's chat models, counted by OpenAI's published rule with their own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from ctxkit.protocols import TEMPLATE, TOOLS, PromptMessage, Rendering, Tool
from ctxkit.tokens.cache import TextCache
from ctxkit.tokens.media import MediaRule, with_blocks
from ctxkit.tokens.namespace import namespace_text
from ctxkit.tokens.ranks import Pattern, RankTokenizer

_MESSAGE_TOKENS = 3  # <|im_start|>, <|im_sep|>, <|im_end|>
_NAME_TOKENS = 1
_REPLY_TOKENS = 3  # <|im_start|>assistant<|im_sep|>
_CALL_TOKENS = 8  # "functions.", the channel's and the call's own markers
_TOOLS_TOKENS = 16  # the system message that tools stand in, and the blank lines around them


class Encoding(Protocol):
    """What a text is cut with: a `tiktoken.Encoding`, or a `RankTokenizer`."""

    def encode_ordinary(self, text: str) -> Sequence[int]: ...


class OpenAIChatCounter:
    """A Counter for OpenAI's chat models, and for servers that count as they do.

    Text is exact: its own tokens, 3 per message, 1 per name, the role's, and 3 for the beginning of the answer. Tool
    calls are charged their names and arguments, tools their schemas in the TypeScript form that the models are shown;
    both with a few tokens to spare, so that they are upper bounds. There are no ids: the server makes them.

    count_text: counts one text, special tokens in it as ordinary characters; `from_ranks` and `from_encoding` make one.
    media: what images and files cost, such as OpenAITiles(); None refuses them.

    Source: the OpenAI cookbook, "How to count tokens with tiktoken" (sections 6 and 7)
    """

    exact = True

    def __init__(
        self, count_text: Callable[[str], int], *, name: str = "openai", media: MediaRule | None = None
    ) -> None:
        self.name = name
        self.media = media
        self._counts = TextCache(lambda texts: [count_text(text) for text in texts])

    def __repr__(self) -> str:
        return f"OpenAIChatCounter({self.name!r})"

    @classmethod
    def from_ranks(
        cls, path: str | Path, pattern: Pattern = "o200k", *, name: str = "", media: MediaRule | None = None
    ) -> OpenAIChatCounter:
        """From a `.tiktoken` file of ranks (a base64 token and its rank per line), without tiktoken.

        pattern: "o200k" for gpt-4o, gpt-4.1, gpt-5 and the o-series; "cl100k" for gpt-4 and gpt-3.5-turbo.
        Raises ModelNotFound where there is no such file and ModelError where it holds something else.
        """
        return cls(RankTokenizer.from_file(path, pattern).count, name=name or f"openai {pattern}", media=media)

    @classmethod
    def from_encoding(cls, encoding: Encoding, *, name: str = "", media: MediaRule | None = None) -> OpenAIChatCounter:
        """From a `tiktoken.Encoding`: the same counts, three times as fast, where tiktoken is installed and its data
        is at hand (it downloads them at first use)."""
        shown = name or f"openai {getattr(encoding, 'name', 'encoding')}"
        return cls(lambda text: len(encoding.encode_ordinary(text)), name=shown, media=media)

    def count(self, text: str) -> int:
        return self._counts([text])[0]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self._counts(texts)

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        """Content is charged to the segments it begins in, tool calls to their message's owner, tools to TOOLS."""
        by_owner = {TEMPLATE: _REPLY_TOKENS} if messages or tools else {}
        for message in messages:
            for owner, tokens in self._message(message):
                by_owner[owner] = by_owner.get(owner, 0) + tokens
        if tools:
            by_owner[TOOLS] = self.count(namespace_text(tools)) + _TOOLS_TOKENS
        rendering = Rendering(sum(by_owner.values()), None, by_owner)
        return with_blocks(rendering, messages, self.media, self.count)

    def _message(self, message: PromptMessage) -> Iterator[tuple[str, int]]:
        """(owner, tokens) of all in a message but its blocks."""
        yield TEMPLATE, _MESSAGE_TOKENS + self.count(message.role)
        yield from self._content(message)
        owner = message.owner or TEMPLATE
        for call in message.tool_calls:
            yield owner, self._call(call)
        if message.tool_call_id is not None:
            yield owner, self.count(message.tool_call_id)
        if message.name is not None:
            yield owner, self.count(message.name) + _NAME_TOKENS

    def _content(self, message: PromptMessage) -> Iterator[tuple[str, int]]:
        """Text between two blocks is one text to the server, however many segments it has."""
        for is_block, run in groupby(message.segments, lambda segment: segment.block is not None):
            segments = [] if is_block else [segment for segment in run if segment.text]
            if segments:
                whole = self.count("".join(segment.text for segment in segments))
                shares = _shares(self.count_batch([segment.text for segment in segments]), whole)
                yield from zip([segment.owner or TEMPLATE for segment in segments], shares, strict=True)

    def _call(self, call: Mapping[str, Any]) -> int:
        function = call.get("function") or {}
        arguments = function.get("arguments") or ""
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return _CALL_TOKENS + self.count(str(function.get("name", ""))) + self.count(text)


def _shares(counts: Sequence[int], whole: int) -> list[int]:
    """What each piece is charged, so that all add up to `whole`. A join saves its later piece a token at a time."""
    shares = list(counts)
    shares[-1] += max(whole - sum(counts), 0)
    while (excess := sum(shares) - whole) > 0:
        for i in [i for i in range(len(shares) - 1, -1, -1) if shares[i] > 0][:excess]:
            shares[i] -= 1
    return shares
