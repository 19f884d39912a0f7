"""Test doubles that ctxkit ships: no weights, no network.

`ScriptedModel` answers what it was told to, `WhitespaceCounter` counts words, and `tiny_model` is a real, random Llama
of a few thousand weights (it needs the extra "local").
"""

from ctxkit.testing.counter import WhitespaceCounter
from ctxkit.testing.scripted import ScriptedModel
from ctxkit.testing.tiny import TINY_TEMPLATE, tiny_counter, tiny_llama, tiny_llama_config, tiny_model, tiny_tokenizer

__all__ = [
    "TINY_TEMPLATE",
    "ScriptedModel",
    "WhitespaceCounter",
    "tiny_counter",
    "tiny_llama",
    "tiny_llama_config",
    "tiny_model",
    "tiny_tokenizer",
]
