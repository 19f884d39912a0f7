"""SavedPages: the keys and values of a stretch of text, outside the pool: to file, and into any context at any place.

Keys are stored rotated by their position from some origin, and queries are turned by where that origin stands. So a
stretch can be put anywhere: moving its origins moves it, and no number in it changes. What it does carry along is what
its tokens saw when they were read; capture it behind the beginning (sinks, system prompt) that it will stand behind.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ctxkit.errors import PolicyError, StoreError
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.runs import Runs
from ctxkit.models.local.paging.track import Track

_FORMAT = "ctxkit-pages-1"
_PARTS = ("keys", "values", "key_scales", "value_scales")


@dataclass(frozen=True)
class SavedPages:
    """A stretch of text as some model read it.

    ids: int64 [tokens]. origins: int64 [tokens], from where each token's key was rotated, counted from the first token.
    parts: keys and values [layers * KV heads, tokens, dims] as they were stored, and for int8 their scales
    [layers * KV heads, tokens]. model: whose they are.
    """

    ids: Tensor
    origins: Tensor
    parts: dict[str, Tensor]
    model: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bytes(self) -> int:
        return sum(part.element_size() * part.numel() for part in self.parts.values())

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"ids": self.ids, "origins": self.origins, **{k: v.contiguous() for k, v in self.parts.items()}}
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        os.close(handle)
        try:
            save_file(tensors, made, metadata={"format": _FORMAT, "model": self.model})
            os.replace(made, path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> SavedPages:
        """Raises StoreError where the file is none of these."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{str(path)!r} cannot be read as saved pages: {error}") from error
        if metadata.get("format") != _FORMAT or not {"ids", "origins", "keys", "values"} <= set(tensors):
            raise StoreError(f"{str(path)!r} holds no saved pages of format {_FORMAT}; save them again")
        parts = {name: tensors[name] for name in _PARTS if name in tensors}
        return cls(tensors["ids"], tensors["origins"], parts, metadata["model"])


def capture(context: KVContext, start: int, end: int, model: str) -> SavedPages:
    """Tokens start .. end - 1 of a context. Raises PolicyError where some head has dropped one of them."""
    rows: dict[tuple[int, int], tuple[list[Tensor], Runs]] = {}
    for track in context.tracks:
        runs = track.runs.since(start).before(end)
        if runs.tokens != end - start:
            raise PolicyError(
                f"not all of tokens {start:,} to {end:,} are in memory any more; capture before they leave"
            )
        slots, offsets = runs.token_places()
        read = [part.cpu() for part in context.pool.read(track.pages[:, slots], offsets)]
        for row, member in enumerate(track.members):
            rows[member] = [part[row] for part in read], runs
    ordered = [rows[member] for member in sorted(rows)]
    parts = {
        name: torch.stack([tensors[n] for tensors, _ in ordered]) for n, name in enumerate(_PARTS[: len(ordered[0][0])])
    }
    runs = ordered[0][1]
    origins = torch.from_numpy(np.repeat(runs.origin, runs.count) - start)
    return SavedPages(torch.tensor(context.ids[start:end]), origins, parts, model)


def attach(context: KVContext, saved: SavedPages, model: str) -> None:
    """Appends a saved stretch to a context, as if it had been read there. Raises PolicyError, MemoryInsufficient."""
    pool, shape = context.pool, context.shape
    stored = {name: (part.dtype, *part.shape[2:]) for name, part in saved.parts.items()}
    wanted = {name: (part.dtype, *part.shape[2:]) for name, part in zip(_PARTS, pool.pages, strict=False)}
    if saved.model != model or stored != wanted:
        raise PolicyError(
            f"the pages are of {saved.model!r} and {stored}, this memory is of {model!r} and {wanted}; "
            "read the text anew"
        )
    if not shape.turnable:
        raise PolicyError(f"the rotation of {model!r} is not understood; its pages cannot be moved")
    start = len(context)
    origins = saved.origins.numpy() + start
    pool.ensure(context.pages_needed(len(saved)) + sum(track.pages_to_own() for track in context.tracks))
    members = sorted(member for track in context.tracks for member in track.members)
    number = {member: row for row, member in enumerate(members)}
    for track in context.tracks:
        rows = [number[member] for member in track.members]
        _append(track, start, origins, [saved.parts[name][rows] for name in wanted])
    context.commit(saved.ids.tolist())
    context.settle("step")


def _append(track: Track, start: int, origins: np.ndarray, parts: list[Tensor]) -> None:
    """Tokens of one origin at a time, so that each run has its own."""
    cuts = [0, *(np.flatnonzero(np.diff(origins)) + 1).tolist(), len(origins)]
    for begin, end in zip(cuts[:-1], cuts[1:], strict=True):
        place = track.extend(start + begin, end - begin, int(origins[begin]))
        track.pool.put(track.pages[:, place.slots], place.offsets, [part[:, begin:end] for part in parts])
