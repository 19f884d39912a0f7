"""Hidden states of whole texts in one pass, and Token Prepending: early tokens that know what comes after them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ctxkit.models.local.adapter import decoder_layers, own_attention


@dataclass(frozen=True)
class TextBatch:
    """Texts that are read together, filled up at the end, where causal attention shows the filling to no token.

    ids: int64 [texts, longest]. last: int64 [texts], where each text ends. placeholder: int64 [texts], which token
    each layer is to put the text's last state into; None for none.
    """

    ids: Tensor
    last: Tensor
    placeholder: Tensor | None = None

    def prepended(self, states: Tensor) -> Tensor:
        """`states` [texts, longest, hidden size] with the last token's in the placeholder's place."""
        if self.placeholder is None:
            return states
        rows = torch.arange(len(states), device=states.device)
        changed = states.clone()
        changed[rows, self.placeholder] = states[rows, self.last]
        return changed


def hidden_states(model: PreTrainedModel, batch: TextBatch, *, layer: int, prepend_layers: int = 0) -> Tensor:
    """States [texts, longest, hidden size]: what layer `layer` is given, and after the final norm where none is left.

    layer: 0 is the first; later layers are not computed. prepend_layers: Token Prepending (arXiv 2412.11556): before
    each of the layers 1 to `prepend_layers`, the placeholder's state becomes that of the text's last token, so that
    every token in between attends to the whole text as the layer below understood it. Layer 0 is given the
    placeholder's own embedding.

    The model's weights, settings and own attention are as ever; nothing stays in memory. Raises ModelError where the
    model's layers cannot be told apart.
    """
    layers = decoder_layers(model)
    with own_attention(model), torch.inference_mode(), ExitStack() as hooks:
        for prepended in layers[1 : prepend_layers + 1]:
            hooks.enter_context(_before(prepended, batch.prepended))
        if layer < len(layers):
            hooks.enter_context(_before(layers[layer], _stop))
        try:
            return model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
        except _Reached as reached:
            return reached.states


class _Reached(Exception):
    """The layer that was wanted has been given its states; those above it need not run."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _stop(states: Tensor) -> Tensor:
    raise _Reached(states)


@contextmanager
def _before(layer: torch.nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within it the layer is given `change(states)`; in other threads, which own no pass of ours, what it is given."""
    thread = threading.get_ident()

    def hook(_: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
        if threading.get_ident() != thread:
            return None
        if args:
            return (change(args[0]), *args[1:]), given
        return args, {**given, "hidden_states": change(given["hidden_states"])}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
