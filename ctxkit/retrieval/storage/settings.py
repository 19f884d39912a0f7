"""What an index was made with: its encoder and its engine. Recorded once, checked at every opening."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

from ctxkit.errors import IndexMismatch, StoreError
from ctxkit.protocols import Encoder
from ctxkit.retrieval.multivector.options import BuildOptions

EngineName = Literal["auto", "exact", "multivector", "flat", "ivf", "hnsw"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)

_SINGLE = ("auto", "exact", "flat", "ivf", "hnsw")
_MULTI = ("auto", "exact", "multivector")


@dataclass(frozen=True, slots=True)
class EncoderIdentity:
    """Which encoder made the vectors of an index."""

    class_name: str
    name: str
    fingerprint: str
    multi_vector: bool

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderIdentity:
        """Of the encoder itself, or of the one that it wraps and gives the vectors of."""
        inner = getattr(encoder, "wrapped", encoder)
        return cls(type(inner).__name__, inner.name, inner.fingerprint, inner.multi_vector)

    def check(self, encoder: Encoder, place: str) -> None:
        """Raise IndexMismatch unless `encoder` gives the vectors that the index at `place` holds."""
        if (encoder.fingerprint, encoder.multi_vector) != (self.fingerprint, self.multi_vector):
            raise IndexMismatch(
                f"{place} was made by encoder {self.name!r} ({self.fingerprint}), not by {encoder.name!r} "
                f"({encoder.fingerprint}). Open it with the encoder that made it, "
                "or index the folder again into another path"
            )


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the vectors of an index are kept and searched.

    name: "auto" and "multivector" code token vectors once there are many, "exact" never does. For encoders of one
        vector per text: "auto", "exact" and "flat" compare with all, "ivf" and "hnsw" are approximate.
    build: how token vectors are coded.
    """

    name: EngineName = "auto"
    build: BuildOptions = field(default_factory=lambda: BuildOptions(refine=True))

    def check(self, *, multi_vector: bool) -> None:
        """Raise ValueError where such an engine cannot search such vectors."""
        possible = _MULTI if multi_vector else _SINGLE
        if self.name not in possible:
            kind = "several vectors" if multi_vector else "one vector"
            raise ValueError(f"`engine` must be one of {', '.join(possible)} for {kind} per text, got {self.name!r}")

    def check_same(self, name: str | None, build: BuildOptions | None, place: str) -> None:
        """Raise IndexMismatch where another engine is asked for than the index at `place` was made with."""
        for asked, made in ((name, self.name), (build, self.build)):
            if asked is not None and asked != made:
                raise IndexMismatch(
                    f"{place} was made for engine {made!r}, not {asked!r}. Open it without `engine` and `build`, or "
                    "index the folder again into another path"
                )

    @property
    def codes(self) -> bool:
        """Whether token vectors are coded once there are many."""
        return self.name in ("auto", "multivector")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `meta` says of an index."""

    encoder: EncoderIdentity
    engine: EngineSettings

    def to_json(self) -> dict[str, str]:
        return {"encoder": json.dumps(asdict(self.encoder)), "engine": json.dumps(asdict(self.engine))}

    @classmethod
    def from_json(cls, meta: dict[str, str], place: str) -> Settings:
        try:
            engine = json.loads(meta["engine"])
            build = BuildOptions(**engine["build"])
            return cls(EncoderIdentity(**json.loads(meta["encoder"])), EngineSettings(engine["name"], build))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{place}: the index does not say which encoder made it. Index the folder again"
            ) from error
