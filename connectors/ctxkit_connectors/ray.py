"""Ingest on a Ray cluster: files to shards, each an index of its own, made by many machines at once."""

from __future__ import annotations

import os
import sys
from collections import Counter as Multiset
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ctxkit.documents import Skipped, discover, source_name
from ctxkit.errors import CtxkitError, IndexMismatch, StoreError
from ctxkit.protocols import Encoder
from ctxkit.retrieval.storage.settings import EncoderIdentity
from ctxkit_connectors.databases.database import needed
from ctxkit_connectors.shards import Shard, ShardMaker, ShardSettings, number_of, sweep

_PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True)
class RayIngest:
    """What an ingestion made. shards: those that hold files, by number. skipped: what is in none of them, and why."""

    shards: tuple[Shard, ...]
    skipped: tuple[Skipped, ...]

    @property
    def folders(self) -> list[Path]:
        """The shards' indexes, for `ctxkit.retrieval.merge`."""
        return [shard.folder for shard in self.shards]

    def __str__(self) -> str:
        made = sum(shard.made for shard in self.shards)
        sources, chunks = sum(shard.sources for shard in self.shards), sum(shard.chunks for shard in self.shards)
        return (
            f"{len(self.shards):,} shards, {made:,} of them made now; {sources:,} sources, {chunks:,} chunks, "
            f"{len(self.skipped):,} skipped"
        )


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """The actors that make shards.

    actors: how many; None for as many as the cluster's processors or GPUs allow, and no more than there are shards.
    num_cpus, num_gpus: of each. attempts: how often a shard is begun before its workers' deaths are an error.
    """

    actors: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    attempts: int = 3

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("num_cpus", 0), ("num_gpus", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)!r}")
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"`actors` must be at least 1 or None, got {self.actors!r}")

    def count(self, shards: int) -> int:
        """How many actors."""
        return min(shards, self.actors or self._most(_ray().cluster_resources()))

    def start(self, encoder: Callable[[], Encoder]) -> Any:
        """One actor, where the cluster has room for it; until then its tasks wait."""
        remote = _ray().remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_restarts=0)(ShardMaker)
        return remote.remote(encoder)

    def _most(self, resources: Mapping[str, float]) -> int:
        asked = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        return max(1, min((int(resources.get(kind, 0) // one) for kind, one in asked.items() if one), default=1))


def ingest_with_ray(
    paths: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    encoder: Callable[[], Encoder],
    shards: int = 64,
    max_tokens: int = 200,
    root: str | os.PathLike[str] | None = None,
    address: str | None = None,
    workers: RayWorkers = RayWorkers(),  # noqa: B008 - frozen
    progress: bool = False,
) -> RayIngest:
    """Index the files below `paths` in `shards` indexes below `folder`, on a Ray cluster.

    A shard has its name only when it is whole; one whose files hold what they held is found and not made again, so that
    a call that was cut short is simply made again. Of a shard whose files have changed only new texts are encoded.
    A worker that dies is replaced, and its shard begun anew. Ids of chunks are those of `ctxkit.pipeline.ingest`.

    paths: files or folders that every machine sees under one path. A file belongs to one shard: cut very large ones.
    folder: on storage that every machine sees; for shards alone, and for one ingestion at a time.
    encoder: makes the encoder, once on each worker: a function or class that can be imported there, or a
        `functools.partial` of one with plain arguments. Models are not sent around.
    shards: a few for each worker, so that none waits for the last. With another number all are made anew.
    max_tokens: of a chunk. root: folder that sources are named from (default: the working directory).
    address: where the cluster's head is, "auto" where this machine is one of it; the cluster stays joined. None takes
        the one that `ray.init` joined.
    progress: a bar of shards on stderr.

    Raises ValueError (an encoder that cannot be imported; no cluster), StoreError (a shard whose worker died at every
    attempt, or that cannot be written), IndexMismatch (workers with different models), and MissingExtra where ray is
    not installed.
    """
    if shards < 1:
        raise ValueError(f"`shards` must be at least 1, got {shards!r}")
    check_importable(encoder)
    _join(address)
    base, place = os.path.abspath(root or Path.cwd()), Path(os.path.abspath(folder))
    found = discover(paths)
    place.mkdir(parents=True, exist_ok=True)
    files: dict[int, list[str]] = {}
    for file in found.files:
        files.setdefault(number_of(source_name(file, base), shards), []).append(str(file))
    made = _made(files, place, partial(ShardSettings, base, shards, max_tokens), encoder, workers, progress)
    sweep(place, [shard.folder for shard in made])
    skipped = [Skipped(source_name(skip.path, base), skip.reason) for skip in found.skipped]
    return RayIngest(tuple(made), (*skipped, *(skip for shard in made for skip in shard.skipped)))


def check_importable(encoder: Callable[[], Encoder]) -> None:
    """Raise ValueError unless another machine can import it and call it: no lambda, no method, nothing of a script."""
    bare: Any = encoder
    if isinstance(encoder, partial):
        bare = encoder.func
        wrong = [value for value in (*encoder.args, *encoder.keywords.values()) if not isinstance(value, _PLAIN)]
        if wrong:
            raise ValueError(
                f"`encoder` must be a partial with plain arguments, got {wrong[0]!r}. Make it in a function"
            )
    module, name = getattr(bare, "__module__", None), getattr(bare, "__qualname__", "")
    try:
        known: Any = import_module(module) if module and module != "__main__" else None
        for part in name.split("."):
            known = getattr(known, part)
    except (ImportError, AttributeError):
        known = None
    if known is not bare or known is None:
        raise ValueError(
            f"`encoder` must be a function or class that workers can import, got {encoder!r}. "
            "Put it into a module that is installed on every machine"
        )


def _join(address: str | None) -> None:
    ray = _ray()
    if ray.is_initialized():
        return
    if address is None:
        raise ValueError('no Ray cluster is joined. Pass `address` (such as "auto"), or call ray.init first')
    try:
        ray.init(address=address)
    except (ConnectionError, RuntimeError) as error:
        raise StoreError(f"the Ray cluster at {address!r} cannot be joined ({error}). Look whether it runs") from error


def _made(
    files: Mapping[int, Sequence[str]],
    place: Path,
    settings: Callable[[EncoderIdentity], ShardSettings],
    encoder: Callable[[], Encoder],
    workers: RayWorkers,
    progress: bool,
) -> list[Shard]:
    """All shards, by number, made by actors that are gone afterwards."""
    if not files:
        return []
    pool = _Pool(files, str(place), settings, encoder, workers)
    try:
        with tqdm(total=len(files), desc="indexing", unit="shard", disable=not progress, file=sys.stderr) as bar:
            shards = []
            for shard in pool.shards():
                shards.append(shard)
                bar.update()
    finally:
        pool.close()
    return sorted(shards, key=lambda shard: shard.number)


class _Pool:
    """Shards, the largest first, each given to the worker that is free next. A worker that dies is replaced.

    Ray's own retries are no help where a machine is lost: they are spent before its actors are somewhere else.
    """

    def __init__(
        self,
        files: Mapping[int, Sequence[str]],
        folder: str,
        settings: Callable[[EncoderIdentity], ShardSettings],
        encoder: Callable[[], Encoder],
        workers: RayWorkers,
    ) -> None:
        self._files, self._folder, self._make_settings = files, folder, settings
        self._encoder, self._workers = encoder, workers
        self._waiting = sorted(files, key=lambda number: (len(files[number]), number))  # taken from the end
        self._deaths: Multiset[int | None] = Multiset()
        self._identity: EncoderIdentity | None = None
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[int | None, Any]] = {}  # what for, None for starting, and by which actor
        count = workers.count(len(files))
        self._most_deaths: dict[int | None, int] = {None: workers.attempts * count}
        for _ in range(count):
            self._start()

    def shards(self) -> Iterator[Shard]:
        """Each shard when it is whole."""
        left = len(self._files)
        while left:
            self._give()
            (reference,), _ = _ray().wait(list(self._running), num_returns=1)
            number, actor = self._running.pop(reference)
            what = "the encoder" if number is None else f"shard {number}"
            try:
                result = _got(reference, what)
            except _Died as death:
                self._replace(number, actor, what, death)
                continue
            self._idle.append(actor)
            if isinstance(result, Shard):
                left -= 1
                yield result
            else:
                self._check(result)

    def close(self) -> None:
        """End all actors, at work or not."""
        for actor in [*self._idle, *(actor for _, actor in self._running.values())]:
            _ray().kill(actor)

    def _start(self) -> None:
        actor = self._workers.start(self._encoder)
        self._running[actor.identity.remote()] = None, actor

    def _give(self) -> None:
        while self._waiting and self._idle and self._identity is not None:
            number, actor = self._waiting.pop(), self._idle.pop()
            settings = self._make_settings(self._identity)
            self._running[actor.make.remote(number, self._files[number], self._folder, settings)] = number, actor

    def _replace(self, number: int | None, actor: Any, what: str, death: _Died) -> None:
        self._deaths[number] += 1
        if self._deaths[number] >= self._most_deaths.get(number, self._workers.attempts):
            raise StoreError(
                f"{what} could not be made on the cluster: its worker died each time ({death}). What is whole stays: "
                "look at the worker's log, often for memory, and call again"
            )
        _ray().kill(actor)  # it may live, where only the way to it is lost
        if number is not None:
            self._waiting.append(number)
        self._start()

    def _check(self, identity: EncoderIdentity) -> None:
        """Workers with different models would make shards that are not one index."""
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise IndexMismatch(
                f"one worker's encoder is {self._identity.name!r} ({self._identity.fingerprint}), another's "
                f"{identity.name!r} ({identity.fingerprint}). Install the same model on all machines"
            )


class _Died(Exception):
    """The worker is gone, or cannot be reached."""


def _got(reference: Any, what: str) -> Any:
    """The result of a task; a CtxkitError or ValueError that it raised comes through. Raises _Died, StoreError."""
    ray = _ray()
    try:
        return ray.get(reference)
    except (CtxkitError, ValueError):
        raise
    except ray.exceptions.RayActorError as error:
        raise _Died(_shortened(error)) from error
    except ray.exceptions.RayError as error:
        raise StoreError(f"{what} could not be made on the cluster ({_shortened(error)})") from error


def _shortened(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}"


def _ray() -> Any:
    return needed("ray", "ray", "ray")
