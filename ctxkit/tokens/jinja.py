"""Chat templates, rendered the way transformers renders them, without transformers.

A template comes from a model's files and is untrusted: it runs in Jinja's immutable sandbox and sees only plain JSON
values. `tests/tokens/test_template.py` compares the result with transformers' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ctxkit.errors import PromptError

CONCATENATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""No chat format at all: the contents, one after the other. For text that is not sent as a chat."""


class _Generation(Extension):
    """`{% generation %}` marks the assistant's tokens for training; for rendering it is its body."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters, which no model was trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, LoopControlExtension]
    )


def _invalid(error: jinja2.TemplateSyntaxError) -> PromptError:
    return PromptError(f"the chat template is not valid Jinja (line {error.lineno}): {error.message}")


@lru_cache(maxsize=64)
def compile_template(source: str) -> Callable[..., str]:
    """The template's render function. Raises PromptError where the source is not valid Jinja."""
    environment = _environment()
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_refuse, strftime_now=_now)
    try:
        return environment.from_string(source).render
    except jinja2.TemplateSyntaxError as error:
        raise _invalid(error) from error


def literal_text(source: str) -> str:
    """Every text that the template itself can write, joined by NUL: what makes an added token a control token."""
    try:
        tree = _environment().parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise _invalid(error) from error
    data = {node.data for node in tree.find_all(jinja2.nodes.TemplateData)}
    constants = {node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)}
    return "\0".join(sorted(data | constants))


def render_chat(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
) -> str:
    """The chat as text, generation prompt included. Raises PromptError with the template's own reason."""
    render = compile_template(source)
    try:
        return render(messages=messages, tools=list(tools) or None, add_generation_prompt=True, **variables)
    except jinja2.TemplateError as error:
        raise PromptError(f"the model's chat template refuses these messages: {error}") from error
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        # A template is a program: an index into an empty list surfaces as a Python error of ours.
        raise PromptError(f"the model's chat template fails on these messages: {error!r}") from error
