"""Defaults of the command line, from CTXKIT_* variables. The library itself never reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """CTXKIT_INDEX, CTXKIT_MODEL, CTXKIT_CACHE_DIR, CTXKIT_BUDGET, CTXKIT_RESERVE, CTXKIT_API_KEY."""

    model_config = SettingsConfigDict(env_prefix="CTXKIT_", extra="ignore")

    index: Path = Path(".ctxkit")
    model: str = "smollm2-135m-instruct"
    cache_dir: Path | None = None
    budget: int = 2000
    reserve: int = 256
    api_key: str | None = None
