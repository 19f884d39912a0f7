"""TemplateCounter: exact counts with a model's own tokenizer and chat template.

The ids it returns are the ids a local model is fed. Text inside a message can never act as a control token: where a
content spells `<|im_start|>` or any other control token, those characters are tokenised as ordinary text.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxkit.errors import ModelNotFound, PromptError
from ctxkit.protocols import TEMPLATE, TOOLS, Located, PromptMessage, Rendering, Segment, Tool
from ctxkit.tokens.attribution import charge, header_starts, locate_contents, owner_breaks
from ctxkit.tokens.cache import TextCache
from ctxkit.tokens.chunks import ChunkEncoder
from ctxkit.tokens.control import Brackets, ControlTokens, strings_in
from ctxkit.tokens.jinja import CONCATENATE, render_chat
from ctxkit.tokens.media import MediaRule, with_blocks
from ctxkit.tokens.messages import template_dict

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TemplateCounter:
    """Exact `Counter` over a `tokenizers.Tokenizer` and a Jinja chat template.

    tokenizer: the model's tokenizer; never changed.
    chat_template: Jinja source; `CONCATENATE` counts plain text that is not sent as a chat.
    variables: what the template may read besides the messages (bos_token, eos_token, date_string, ...).
    media: what images and files cost; None refuses them. The template sees the text alone, and a prompt with content
        blocks that are not text has no ids.
    """

    exact = True

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: str = CONCATENATE,
        *,
        name: str = "tokenizer",
        variables: Mapping[str, Any] | None = None,
        media: MediaRule | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.name = name
        self.variables = dict(variables or {})
        self.media = media
        self._counts = TextCache(self._count_all)

    def __repr__(self) -> str:
        return f"TemplateCounter({self.name!r}, vocabulary={self.tokenizer.get_vocab_size()})"

    @classmethod
    def from_folder(
        cls, folder: str | Path, *, name: str | None = None, media: MediaRule | None = None
    ) -> TemplateCounter:
        """From a model folder's tokenizer.json, tokenizer_config.json and chat_template.jinja, without transformers."""
        from tokenizers import Tokenizer

        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise ModelNotFound(
                f"no `tokenizer.json` in {str(folder)!r}; give the folder of a model with a fast tokenizer"
            )
        config = _read_json(folder / "tokenizer_config.json")
        template = _chat_template(folder, config)
        if template is None:
            raise PromptError(
                f"the model in {str(folder)!r} has no chat template; it can continue text but not hold a chat"
            )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(tokenizer, template, name=name or folder.name, variables=_special_tokens(config), media=media)

    def as_text(self) -> TemplateCounter:
        """The same tokenizer for text that is not sent as a chat: contents only, no role markers."""
        return TemplateCounter(self.tokenizer, CONCATENATE, name=f"{self.name} (text)", media=self.media)

    def count(self, text: str) -> int:
        return self._counts([text])[0]

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self._counts(texts)

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        ids, starts, text = self._encode(messages, tools)
        spans = locate_contents(text, messages)
        by_owner = charge(starts, owner_breaks(messages, spans))
        if tools:
            without = len(self._encode(messages, ())[0])
            schemas = min(max(len(ids) - without, 0), by_owner.get(TEMPLATE, 0))
            by_owner = {**by_owner, TEMPLATE: by_owner.get(TEMPLATE, 0) - schemas, TOOLS: schemas}
        rendering = Rendering(tokens=len(ids), ids=tuple(ids), by_owner=by_owner)
        return with_blocks(rendering, messages, self.media, self.count)

    def locate(self, prompt: str) -> Located:
        """The ids of one user message, and where each begins in it. Raises PromptError where a template rewrites it."""
        message = PromptMessage("user", (Segment(prompt),))
        ids, starts, text = self._encode([message], ())
        span = locate_contents(text, [message])[0]
        if span is None and prompt.strip():
            raise PromptError(f"the chat template of {self.name!r} rewrites messages; no token can be placed in them")
        first, last = span or (len(text), len(text))
        trimmed = len(prompt) - len(prompt.lstrip()) if last - first < len(prompt) else 0
        places = (-1 if at < first else len(prompt) if at >= last else at - first + trimmed for at in starts)
        return Located(tuple(ids), tuple(places))

    def message_starts(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> list[int]:
        """The number of the token with which each message begins, its header included, in the ids that `render` gives.

        A message that the template rewrites begins where the one before it ends.
        """
        _, starts, text = self._encode(messages, tools)
        return [bisect_left(starts, at) for at in header_starts(text, messages, self._control.starts_in(text))]

    def _encode(self, messages: Sequence[PromptMessage], tools: Sequence[Tool]) -> tuple[list[int], list[int], str]:
        """Ids, the first character of each in the text, and the rendered text."""
        if not messages and not tools:
            return [], [], ""
        chat = [template_dict(message) for message in messages]
        texts = list(strings_in([*chat, *tools]))
        if self._control.spelled_in(texts):
            return self._encode_spelled(chat, tools, Brackets.absent_from(texts))
        rendered = render_chat(self.chat_template, chat, tools=tools, variables=self.variables)
        return *self._chunks.encode(rendered), rendered

    def _encode_spelled(
        self, chat: Sequence[dict[str, Any]], tools: Sequence[Tool], brackets: Brackets
    ) -> tuple[list[int], list[int], str]:
        """As `_encode`, where a content spells a control token: only the template's own become control ids."""
        chat = [self._control.bracket(message, brackets, message["role"]) for message in chat]
        tools = [self._control.bracket(tool, brackets, "tool") for tool in tools]
        rendered = render_chat(self.chat_template, chat, tools=tools, variables=self.variables)
        ids: list[int] = []
        starts: list[int] = []
        text = ""
        for is_control, run in self._control.runs(rendered, brackets):
            run_ids, run_starts = self._encode_run(run, is_control, first=not text)
            ids.extend(run_ids)
            starts.extend(len(text) + start for start in run_starts)
            text += run
        return ids, starts, text

    def _encode_run(self, text: str, is_control: bool, *, first: bool) -> tuple[list[int], list[int]]:
        if is_control:
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
            return encoding.ids, [start for start, _ in encoding.offsets]
        lead = "" if first else self._lead
        encoding = self._plain.encode(lead + text, add_special_tokens=False)
        skip = len(self._plain.encode(lead, add_special_tokens=False).ids) if lead else 0
        return encoding.ids[skip:], [start - len(lead) for start, _ in encoding.offsets[skip:]]

    def _count_all(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def _plain(self) -> Tokenizer:
        """The tokenizer without its added tokens: nothing in a text is special to it."""
        from tokenizers import Tokenizer

        spec = json.loads(self.tokenizer.to_str())
        return Tokenizer.from_str(json.dumps({**spec, "added_tokens": [], "truncation": None, "padding": None}))

    @cached_property
    def _lead(self) -> str:
        # SentencePiece-style tokenizers put a space before the first text they see: show them a line break first.
        with_lead = self._plain.encode("\nx", add_special_tokens=False).ids
        alone = self._plain.encode("\n", add_special_tokens=False).ids
        prefixed = self._plain.encode("x", add_special_tokens=False).ids
        return "\n" if with_lead[: len(alone)] == alone and with_lead[len(alone) :] != prefixed else ""

    @cached_property
    def _chunks(self) -> ChunkEncoder:
        return ChunkEncoder(self.tokenizer)

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self.tokenizer, self.chat_template)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """chat_template.jinja where there is one, else the config's (a string, or a list with one named "default")."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        return next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    return template


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token, ... as the strings that templates read."""
    named = {key: value for key, value in config.items() if key.endswith("_token") and value is not None}
    return {
        key: value["content"] if isinstance(value, Mapping) else value
        for key, value in named.items()
        if isinstance(value, str | Mapping)
    }
