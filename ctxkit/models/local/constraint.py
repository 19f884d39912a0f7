"""Structured output: what may stand in an answer, as a grammar over the model's tokens, through xgrammar."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ctxkit.errors import MissingExtra, ModelError, PromptError
from ctxkit.models.tool_calls import CallForm
from ctxkit.protocols import Tool

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTROL = re.compile(rb"[\x00-\x09\x0b\x0c\x0e-\x1f]")  # but for line ends, which may stand between tokens of JSON
_MOST_WHITESPACE = 16  # between two tokens of JSON: small models would go on forever


class Constraint(Protocol):
    """What one answer may still become."""

    @property
    def done(self) -> bool:
        """Whether the answer has ended."""
        ...

    def masked(self, logits: Tensor) -> Tensor:
        """-inf for the tokens that cannot follow, float32 [vocabulary]."""
        ...

    def accept(self, token: int) -> None:
        """The next token of the answer, one of those that could follow."""
        ...


class Grammars:
    """Makes constraints over the tokens of one model.

    vocabulary: logits per token, which may be more than the tokenizer knows. eos_ids: end an answer that is whole.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, eos_ids: Collection[int]) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.eos_ids = sorted(eos_ids)

    def response(self, form: Mapping[str, Any]) -> Constraint:
        """From `Sampling.response_format`. Raises PromptError where it cannot be understood, MissingExtra."""
        kind = form["type"]
        if kind == "json_object":
            return self._matching(lambda: self._json({"type": "object"}, strict=False), self._not_json)
        if kind == "json_schema":
            given = form["json_schema"]
            return self._matching(
                lambda: self._json(given["schema"], strict=given.get("strict") is not False), self._not_json
            )
        if kind == "regex":
            return self._matching(lambda: self._library.Grammar.from_regex(form["regex"]), self._silent)
        return self._matching(lambda: self._library.Grammar.from_ebnf(form["grammar"]), self._silent)

    def call(self, tools: Sequence[Tool], form: CallForm) -> Constraint:
        """One call of one of `tools`, as the model was trained to write it. Raises PromptError, MissingExtra."""
        calls = [_call_schema(tool, form) for tool in tools]

        def grammar() -> Any:
            whole = self._json(calls[0] if len(calls) == 1 else {"anyOf": calls}, strict=True)
            return self._library.Grammar.concat(self._text(form.before), whole, self._text(form.after))

        return self._matching(grammar, self._not_json)

    @cached_property
    def _library(self) -> Any:
        try:
            return import_module("xgrammar")
        except ModuleNotFoundError as error:
            raise MissingExtra("xgrammar", "structured") from error

    @cached_property
    def _tokens(self) -> Any:
        if not self.eos_ids:
            raise ModelError(
                "an answer of a given form ends with an end token, and this model has none; pass `eos_ids`"
            )
        fast = PreTrainedTokenizerFast(tokenizer_object=self.tokenizer)
        made = self._library.TokenizerInfo.from_huggingface
        return made(fast, vocab_size=self.vocabulary, stop_token_ids=self.eos_ids)

    @cached_property
    def _compiler(self) -> Any:
        return self._library.GrammarCompiler(self._tokens)

    @cached_property
    def _silent(self) -> Tensor:
        """int64, tokens that show no text; to the grammar they are the text of their names."""
        added = self.tokenizer.get_added_tokens_decoder()
        hidden = [number for number, token in added.items() if token.special and number not in self.eos_ids]
        return torch.tensor([number for number in hidden if number < self.vocabulary], dtype=torch.long)

    @cached_property
    def _not_json(self) -> Tensor:
        """int64, `_silent` and tokens with a control character, which JSON must escape.

        xgrammar 0.2.8 lets some of them into a string that the schema gives a length.
        """
        raw = [number for number, token in enumerate(self._tokens.decoded_vocab) if _CONTROL.search(token)]
        return torch.cat([self._silent, torch.tensor(raw, dtype=torch.long)])

    def _matching(self, grammar: Callable[[], Any], hidden: Tensor) -> Constraint:
        """hidden: int64, tokens that may not be used at all."""
        compiler = self._compiler
        try:
            compiled = compiler.compile_grammar(grammar())
        except (RuntimeError, ValueError, TypeError) as error:
            raise PromptError(f"the form of the answer cannot be made a grammar: {error}") from error
        return _Matching(self._library, compiled, self.vocabulary, hidden)

    def _json(self, schema: Any, *, strict: bool) -> Any:
        return self._library.Grammar.from_json_schema(
            json.dumps(schema), strict_mode=strict, max_whitespace_cnt=_MOST_WHITESPACE
        )

    def _text(self, text: str) -> Any:
        return self._library.Grammar.from_ebnf(f"root ::= {json.dumps(text)}")


class _Matching:
    """A Constraint over a compiled grammar."""

    def __init__(self, library: Any, compiled: Any, vocabulary: int, hidden: Tensor) -> None:
        self._matcher = library.GrammarMatcher(compiled)
        self._bits: Tensor = library.allocate_token_bitmask(1, vocabulary)  # int32 [1, vocabulary / 32]
        self._hidden = hidden

    @property
    def done(self) -> bool:
        return bool(self._matcher.is_terminated())

    def masked(self, logits: Tensor) -> Tensor:
        self._matcher.fill_next_token_bitmask(self._bits)
        allowed = ((self._bits[0, :, None] >> torch.arange(32)) & 1).flatten()[: len(logits)].bool()
        allowed[self._hidden] = False
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        self._matcher.accept_token(token)


def _call_schema(tool: Tool, form: CallForm) -> dict[str, Any]:
    function = tool["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    properties = {"name": {"const": function["name"]}, form.arguments: parameters}
    return {"type": "object", "properties": properties, "required": ["name", form.arguments]}
