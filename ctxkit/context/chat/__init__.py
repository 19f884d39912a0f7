"""Chat messages as parts, repaired where no provider would take them; the two providers' grammars, and the way between.

`conversation` is the way in: OpenAI-form messages to parts, with what must stay pinned and what belongs together
grouped. `from_anthropic` and `to_anthropic` stand before and behind it for callers who speak Anthropic's form.
"""

from ctxkit.context.chat.anthropic import from_anthropic, to_anthropic
from ctxkit.context.chat.conversation import Conversation, Repair, conversation
from ctxkit.context.chat.grammar import anthropic_problems, openai_problems, starts_with_user

__all__ = [
    "Conversation",
    "Repair",
    "anthropic_problems",
    "conversation",
    "from_anthropic",
    "openai_problems",
    "starts_with_user",
    "to_anthropic",
]
