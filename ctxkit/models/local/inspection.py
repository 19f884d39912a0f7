"""Inspection: what a local model is to the paged store, and what its heads do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.errors import MissingExtra
from ctxkit.models.local.model import LocalModel
from ctxkit.models.local.paging.memory import token_bytes
from ctxkit.models.local.profile import HeadProfile, cached_head_profile

_DIGITS = 4  # of scores as JSON


@dataclass(frozen=True)
class Inspection:
    """Facts of one model.

    heads, kv_heads: of one layer. token_bytes: what one more token of a long text takes in keys and values; layers that
    slide take nothing more. turnable: whether tokens may be seen from elsewhere than where they stand. sliding: the
    window of each layer that slides by itself.
    """

    name: str
    architecture: str
    layers: int
    heads: int
    kv_heads: int
    dims: int
    dtype: str
    token_bytes: int
    window_tokens: int
    turnable: bool
    sliding: dict[int, int]
    profile: HeadProfile

    @property
    def retrieves(self) -> np.ndarray:
        """float32 [layers, heads], the larger of a head's echo and induction."""
        return np.maximum(self.profile.echo, self.profile.induction)

    def retrieval_heads(self) -> list[tuple[int, int]]:
        """(layer, KV head) of RazorAttention's retrieval heads, the one that retrieves most first."""
        chosen = self.profile.retrieval_heads(self.kv_heads)
        best = self.retrieves.reshape(self.layers, self.kv_heads, -1).max(-1)
        found = [(int(layer), int(head)) for layer, head in np.argwhere(chosen)]
        return sorted(found, key=lambda pair: -best[pair])

    def as_json(self) -> dict[str, Any]:
        """Everything, with scores as lists [layers][heads]."""
        scores = {name: np.round(value.astype(float), _DIGITS).tolist() for name, value in self._scores().items()}
        facts = {name: value for name, value in asdict(self).items() if name != "profile"}
        return {**facts, "retrieval_heads": self.retrieval_heads(), "profile_tokens": self.profile.tokens, **scores}

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure, a heat map per score; also written to `path` where given. Raises MissingExtra."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingExtra("matplotlib", "plot") from error
        scores = self._scores()
        size = (1.5 + 0.22 * self.heads * len(scores) + 1.2 * len(scores), 1.6 + 0.2 * self.layers)
        figure = Figure(figsize=size, layout="constrained")
        image: Any = None
        for axes, (name, score) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
            image = axes.imshow(score, vmin=0, vmax=1, cmap="magma", aspect="auto", interpolation="nearest")
            axes.set(title=name, xlabel="head", ylabel="layer")
        figure.colorbar(image, ax=figure.axes, label="share of attention")
        figure.suptitle(self.name)
        if path is not None:
            figure.savefig(path, dpi=150)
        return figure

    def _scores(self) -> dict[str, np.ndarray]:
        return {"sink": self.profile.sink, "induction": self.profile.induction, "echo": self.profile.echo}


def inspect_model(model: LocalModel, profiles: str | Path | None = None) -> Inspection:
    """Reads the facts off a model, and its head profile from the cache `profiles`, where it is kept once measured."""
    shape = model.engine.shape
    one = shape.layers[0]
    slides = {layer: of.sliding for layer, of in enumerate(shape.layers) if of.sliding is not None}
    return Inspection(
        name=model.name,
        architecture=type(model.model).__name__,
        layers=len(shape.layers),
        heads=one.heads,
        kv_heads=one.kv_heads,
        dims=one.dims,
        dtype=str(shape.dtype).removeprefix("torch."),
        token_bytes=sum(token_bytes(shape, layer) for layer in range(len(shape.layers)) if layer not in slides),
        window_tokens=model.window_tokens,
        turnable=shape.turnable,
        sliding=slides,
        profile=cached_head_profile(model.engine, profiles),
    )
