"""Obliging: a model that does what test suites of frameworks ask for, whatever words they use."""

from __future__ import annotations

import json
import re
from typing import Any

from ctxkit.models.requests import GREEDY, Promptable, Request
from ctxkit.models.streams import PieceStream
from ctxkit.protocols import Sampling
from ctxkit.testing import ScriptedModel
from ctxkit.testing.scripted import Line


class TextAlone:
    """Of LangChain's suites: what a model of random weights can do. It neither calls tools nor writes JSON."""

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False


class Obliging(ScriptedModel):
    """Does what the suite's prompts ask for: calls the tool that is named or fits, fills the form that is asked for."""

    def __init__(self) -> None:
        super().__init__(self._obliged, name="obliging")
        self._sampling = GREEDY

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        self._sampling = sampling
        return super().stream(prompt, sampling)

    def _obliged(self, request: Request) -> Line:
        form = self._sampling.response_format
        if form is not None:
            schema = form["json_schema"]["schema"] if "json_schema" in form else _JOKE
            return json.dumps(_filled(schema))
        answered = request.messages[-1].role == "tool"
        if request.tools and (not answered or self._sampling.tool_choice == "required"):
            return [_call(_chosen(request, self._sampling.tool_choice), request)]
        return "Hello to you, and here is some more to stream."


_JOKE = {"properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}}}
_WORTH: dict[str, Any] = {"integer": 3, "number": 3.0, "array": [], "object": {}, "boolean": True}
_QUOTED = re.compile("'(.+?)'")


def _filled(schema: dict[str, Any], asked: str = "") -> dict[str, Any]:
    """Any values of the right types; texts are what the question puts in quotes."""
    text = quoted[1] if (quoted := _QUOTED.search(asked)) else "a text"
    return {key: _WORTH.get(one.get("type"), text) for key, one in schema.get("properties", {}).items()}


def _chosen(request: Request, choice: Any) -> dict[str, Any]:
    functions = [tool["function"] for tool in request.tools]
    wanted = choice["function"]["name"] if isinstance(choice, dict) else functions[0]["name"]
    return next(function for function in functions if function["name"] == wanted)


def _call(function: dict[str, Any], request: Request) -> dict[str, Any]:
    filled = _filled(function.get("parameters", {}), request.messages[-1].content)
    arguments = json.dumps(filled, ensure_ascii=False)
    return {
        "id": f"call_{len(request.messages)}",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }
