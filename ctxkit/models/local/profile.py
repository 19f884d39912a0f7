"""HeadProfile: which heads of a model retrieve and which rest on its first tokens, found without any data."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctxkit.errors import ModelError, PolicyError
from ctxkit.models.local.adapter import ModelShape
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.evidence import Watched
from ctxkit.models.local.policies.base import Policy
from ctxkit.models.prepare import default_cache_dir

SINKS = 4
"""First tokens whose attention counts as resting."""

_BLOCK_QUERIES = 128
_SEED = 0


@dataclass(frozen=True, eq=False)
class HeadProfile:
    """What each head does with random tokens that come again and again. Arrays are float32 [layers, heads].

    echo: attention to where the same token stood before. induction: attention to the token behind it, which is what
    comes next. sink: attention to the first `SINKS` tokens. tokens: how many were read. Each is a mean over queries,
    0 to 1; the first two are the scores of RazorAttention (Tang et al. 2024, arXiv 2407.15891).
    """

    echo: np.ndarray
    induction: np.ndarray
    sink: np.ndarray
    tokens: int

    @property
    def layers(self) -> int:
        return len(self.echo)

    @property
    def heads(self) -> int:
        return self.echo.shape[1]

    def checked(self, shape: ModelShape) -> HeadProfile:
        """Itself. Raises PolicyError where it is not the profile of a model of that shape."""
        wanted = (len(shape.layers), shape.layers[0].heads)
        if (self.layers, self.heads) != wanted:
            raise PolicyError(
                f"the profile is of {self.layers} layers of {self.heads} heads, and the model has {wanted[0]} of "
                f"{wanted[1]}; measure the model's own with `head_profile`"
            )
        return self

    def retrieval_heads(self, kv_heads: int, echo_share: float = 0.01, induction_share: float = 0.14) -> np.ndarray:
        """bool [layers, KV heads]: those with a head among the best of either score; a share of all heads each.

        At least one head of each score. Raises ValueError for shares outside 0 to 1.
        """
        if not (0 <= echo_share <= 1 and 0 <= induction_share <= 1):
            raise ValueError(f"shares must be in [0, 1], got {echo_share!r} and {induction_share!r}")
        chosen = _best(self.echo, echo_share) | _best(self.induction, induction_share)
        return np.any(chosen.reshape(self.layers, kv_heads, -1), axis=-1, keepdims=True)[..., 0]

    def save(self, path: str | Path) -> None:
        """Writes an .npz file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, work = tempfile.mkstemp(suffix=".npz", prefix=f".{path.stem}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **asdict(self))
            os.replace(work, path)
        finally:
            Path(work).unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> HeadProfile:
        """Reads what `save` wrote. Raises ModelError where the file holds no profile."""
        try:
            with np.load(path, allow_pickle=False) as found:
                scores = {name: found[name] for name in ("echo", "induction", "sink")}
                tokens = int(found["tokens"])
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(
                f"{str(path)!r} holds no head profile ({error}); delete it, and measure it anew"
            ) from error
        if any(score.ndim != 2 or score.shape != scores["echo"].shape for score in scores.values()):
            raise ModelError(f"the scores in {str(path)!r} are not of one model; delete it and measure anew")
        return cls(**scores, tokens=tokens)


def head_profile(engine: Engine, *, tokens: int = 800, copies: int = 4) -> HeadProfile:
    """Reads `copies` copies of the same random tokens, `tokens` in all, with full attention, and watches every head.

    Raises ValueError where a copy would have fewer than two tokens.
    """
    period = tokens // copies
    if copies < 2 or period < 2:
        raise ValueError(f"give at least 2 `copies` of 2 tokens, got {copies!r} in {tokens!r} `tokens`")
    size = int(engine.model.config.get_text_config().vocab_size)
    ids = np.tile(np.random.default_rng(_SEED).integers(0, size, period), copies).tolist()
    watch = _Scores(len(engine.shape.layers), engine.shape.layers[0].heads, period, copies)
    context = engine.new_context(Policy())
    try:
        for start in range(0, len(ids), engine.prefill_tokens):
            engine.forward(ids[start : start + engine.prefill_tokens], context, watch=watch)
    finally:
        engine.close(context)
    echo, induction, sink = watch.sums / (period * (copies - 1))
    return HeadProfile(echo, induction, sink, len(ids))


def cached_head_profile(engine: Engine, folder: str | Path | None = None) -> HeadProfile:
    """The model's profile, measured once and kept in `folder`, by default `profiles` in the user's cache folder."""
    path = Path(folder or default_cache_dir() / "profiles") / f"{fingerprint(engine)}.npz"
    if path.is_file():
        try:
            return HeadProfile.load(path)
        except ModelError:
            pass  # a file that somebody damaged is written anew
    profile = head_profile(engine)
    profile.save(path)
    return profile


def fingerprint(engine: Engine) -> str:
    """Names a model by its configuration and a few numbers of each of its weights; 32 hexadecimal digits."""
    digest = hashlib.sha256(type(engine.model).__name__.encode())
    digest.update(engine.model.config.to_json_string(use_diff=False).encode())
    for name, weight in engine.model.named_parameters():
        some = weight.detach().flatten()[:: max(1, weight.numel() // 16)][:16].float().cpu().numpy()
        digest.update(f"{name} {tuple(weight.shape)}".encode() + some.tobytes())
    return digest.hexdigest()[:32]


class _Scores:
    """A watch: sums of attention over the queries of all copies but the first. sums: [3, layers, heads]."""

    def __init__(self, layers: int, heads: int, period: int, copies: int) -> None:
        self.period = period
        self.copies = copies
        self.sums = np.zeros((3, layers, heads), np.float32)

    def __call__(self, watched: Watched) -> None:
        queries = watched.q.shape[2]
        for start in range(0, queries, _BLOCK_QUERIES):
            end = min(queries, start + _BLOCK_QUERIES)
            places = watched.first_query + np.arange(start, end)
            if places[-1] >= self.period:
                self._add(watched, watched.probabilities(start, end), places)

    def _add(self, watched: Watched, probabilities: Tensor, places: np.ndarray) -> None:
        """probabilities: [rows, heads in a group, queries, tokens]."""
        later = torch.from_numpy(places >= self.period).to(probabilities)
        positions = watched.positions
        groups = probabilities.shape[1]
        heads = (watched.heads[:, None] * groups + np.arange(groups)).ravel()
        for back in range(1, self.copies):
            for score, target in enumerate((places - back * self.period, places - back * self.period + 1)):
                wanted = torch.from_numpy((target[:, None] == positions) & (places >= back * self.period)[:, None])
                mass = (probabilities * wanted.to(probabilities)).sum((-1, -2))
                self.sums[score, watched.layer, heads] += mass.flatten().cpu().numpy()
        first = torch.from_numpy(positions < SINKS).to(probabilities)
        resting = (probabilities @ first * later).sum(-1)
        self.sums[2, watched.layer, heads] += resting.flatten().cpu().numpy()


def _best(scores: np.ndarray, share: float) -> np.ndarray:
    """bool, as scores: the highest `share` of them, at least one."""
    count = max(1, math.ceil(share * scores.size))
    chosen = np.zeros(scores.size, bool)
    chosen[np.argsort(-scores, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(scores.shape)
