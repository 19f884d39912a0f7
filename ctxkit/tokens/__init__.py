"""Counting: what a prompt really costs, in the tokens of the model that reads it."""

from ctxkit.tokens.estimate import EstimatingCounter
from ctxkit.tokens.messages import messages_from_dicts
from ctxkit.tokens.template import TemplateCounter

__all__ = ["EstimatingCounter", "TemplateCounter", "messages_from_dicts"]
