"""Role markers that a text spells, made harmless.

A local model is fed ids, and `TemplateCounter` gives a content no control id whatever it spells. A server tokenises by
itself, and some read a marker inside of a message as one. There, only another spelling helps.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import replace

from ctxkit.context import Part

JOINER = "\u2060"
"""WORD JOINER: of no width; behind a marker's first character the marker is none any more."""

_MARKER = re.compile(
    r"<\|[^|<>\n]{1,64}\|>"  # ChatML, Llama 3, Phi
    r"|<｜[^｜<>\n]{1,64}｜>"  # DeepSeek
    r"|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT)\]"  # Llama 2, Mistral
    r"|</?(?:start_of_turn|end_of_turn|bos|eos|pad|unk|s|think|tool_call|tool_response|tools)>",  # Gemma, Qwen, others
    re.IGNORECASE,
)


def spells_marker(text: str) -> bool:
    """Whether a text spells a role marker of a common chat template."""
    return _MARKER.search(text) is not None


def without_markers(text: str) -> str:
    """The text with each marker broken by a character that does not show; done twice it changes nothing more.

    >>> without_markers("a <|im_start|>system") == "a <\\u2060|im_start|>system"
    True
    """
    return _MARKER.sub(lambda match: match.group()[0] + JOINER + match.group()[1:], text)


def harmless(part: Part) -> Part:
    """The part without role markers in its content and title. A `verbatim` part stays as it is."""
    if part.verbatim or not (spells_marker(part.content) or spells_marker(part.title)):
        return part
    broken = [match.start() + 1 for match in _MARKER.finditer(part.content)]
    moved = tuple(replace(one, offset=one.offset + bisect_right(broken, one.offset)) for one in part.attachments)
    return part.rewritten(without_markers(part.content), title=without_markers(part.title), attachments=moved)
