"""Counters of components, which are saved by the name of the model that they count for."""

from __future__ import annotations

from ctxkit.models import resolve
from ctxkit.protocols import Counter
from ctxkit.tokens import EstimatingCounter, TemplateCounter


def counter_of(model: str | None) -> Counter:
    """model: a name of `ctxkit models list` or a folder with tokenizer and chat template; None: an upper bound."""
    return EstimatingCounter() if model is None else TemplateCounter.from_folder(resolve(model))


def saved(counter: Counter | None) -> None:
    """Raises ValueError for a component that was given a counter of its own: it cannot be written to a file."""
    if counter is not None:
        raise ValueError(f"the counter {counter.name!r} cannot be saved with the pipeline; name a `model` instead")
