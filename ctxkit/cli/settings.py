"""Defaults of the command line, from CTXKIT_* variables. The library itself never reads the environment."""

from __future__ import annotations

from pathlib import Path

import typer
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "CTXKIT_"


class Settings(BaseSettings):
    """CTXKIT_INDEX, CTXKIT_MODEL, CTXKIT_CACHE_DIR, CTXKIT_BUDGET, CTXKIT_RESERVE, CTXKIT_API_KEY (sent to a server),
    CTXKIT_SERVE_API_KEYS (taken by `ctxkit serve`), CTXKIT_STORE."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore")

    index: Path = Path(".ctxkit")
    model: str = "smollm2-135m-instruct"
    cache_dir: Path | None = None
    budget: int = Field(default=2000, ge=1)
    reserve: int | None = Field(default=None, ge=1)
    api_key: str | None = None
    serve_api_keys: str = ""
    store: str | None = None

    @property
    def serve_keys(self) -> list[str]:
        """The keys of CTXKIT_SERVE_API_KEYS, which are separated by commas."""
        return [key.strip() for key in self.serve_api_keys.split(",") if key.strip()]

    @property
    def names_a_model(self) -> bool:
        """Whether CTXKIT_MODEL is set."""
        return "model" in self.model_fields_set


def settings() -> Settings:
    """What the environment says. A value that makes no sense is a wrong usage, as with a flag."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{_PREFIX}{str(one['loc'][0]).upper()}={one['input']!r}: {one['msg']}" for one in error.errors()
        )
        raise typer.BadParameter(wrong) from error
