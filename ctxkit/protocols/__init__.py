"""The few types that cross layers: messages, renderings, vectors, and the protocols of the replaceable parts.

Nothing here computes. An implementation lives in the layer that its name belongs to; callers depend on this only.
"""

from ctxkit.protocols.models import (
    AsyncTextStream,
    Located,
    Model,
    Reply,
    Sampling,
    SoFar,
    Telling,
    TextStream,
    TokenLogprob,
    WindowAttention,
)
from ctxkit.protocols.prompts import (
    TEMPLATE,
    TOOLS,
    ChatMessage,
    Counter,
    Prompt,
    PromptMessage,
    Rendering,
    Segment,
    Tool,
)
from ctxkit.protocols.vectors import Encoder, Evidence, Match, Ranking, Spanned, TokenVectors, Vectors

__all__ = [
    "AsyncTextStream",
    "ChatMessage",
    "Counter",
    "Encoder",
    "Evidence",
    "Located",
    "Match",
    "Model",
    "Prompt",
    "PromptMessage",
    "Ranking",
    "Rendering",
    "Reply",
    "Sampling",
    "Segment",
    "SoFar",
    "Spanned",
    "TEMPLATE",
    "TOOLS",
    "Telling",
    "TextStream",
    "TokenLogprob",
    "TokenVectors",
    "Tool",
    "Vectors",
    "WindowAttention",
]
