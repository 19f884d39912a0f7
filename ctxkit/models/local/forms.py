"""Forms: how one model marks calls and thinking, and the form that a request wants its answer in."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cached_property

from ctxkit.errors import PromptError
from ctxkit.models.local.constraint import Constraint, Grammars
from ctxkit.models.local.reading import AnswerReader, control_markers
from ctxkit.models.reasoning import OPENING, ThinkReader, opens_thinking
from ctxkit.models.tool_calls import ToolCallReader, forms_of
from ctxkit.protocols import Sampling, Tool
from ctxkit.tokens import TemplateCounter

_PROMPT_END_TOKENS = 8  # enough to see whether the template opened the thinking


class Forms:
    """Readers and constraints for the answers of one model, whose chat template says what it was trained to write."""

    def __init__(self, counter: TemplateCounter, vocabulary: int, eos_ids: Collection[int]) -> None:
        self.tokenizer = counter.tokenizer
        self.call_forms = forms_of(counter.chat_template)
        self.reasons = OPENING in counter.chat_template
        self.grammars = Grammars(self.tokenizer, vocabulary, eos_ids)

    @cached_property
    def _markers(self) -> dict[int, str]:
        return control_markers(self.tokenizer)

    def reader(
        self, ids: Sequence[int], tools: Sequence[Tool], sampling: Sampling, *, constrained: bool
    ) -> AnswerReader:
        """For an answer to the prompt `ids`. constrained: it has a form already, and cannot think."""
        calls = None
        if tools and sampling.tool_choice != "none":
            seed = json.dumps(ids).encode()
            calls = ToolCallReader(self.call_forms, {tool["function"]["name"] for tool in tools}, seed)
        return AnswerReader(self._think(ids, constrained=constrained), calls, self._markers)

    def _think(self, ids: Sequence[int], *, constrained: bool) -> ThinkReader | None:
        if not self.reasons or constrained:
            return None
        end = self.tokenizer.decode(list(ids[-_PROMPT_END_TOKENS:]), skip_special_tokens=False)
        return ThinkReader(thinking=opens_thinking(end))

    def constraint(self, tools: Sequence[Tool], sampling: Sampling) -> Constraint | None:
        """What may stand in the answer; None for anything. Raises PromptError, MissingExtra."""
        forced = _forced(tools, sampling)
        if forced:
            return self.grammars.call(forced, self.call_forms[0])
        wanted = sampling.response_format
        return None if wanted is None or wanted["type"] == "text" else self.grammars.response(wanted)


def _forced(tools: Sequence[Tool], sampling: Sampling) -> Sequence[Tool]:
    """The tools one of which must be called; none where the model may choose."""
    choice = sampling.tool_choice
    if choice is None or choice in ("auto", "none"):
        return ()
    name = None if isinstance(choice, str) else (choice.get("function") or {}).get("name")
    found = [tool for tool in tools if name is None or tool["function"]["name"] == name]
    if not found:
        known = ", ".join(repr(tool["function"]["name"]) for tool in tools) or "none"
        raise PromptError(f"`tool_choice` is {choice!r}; the request's tools: {known}")
    return found
