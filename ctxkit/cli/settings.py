"""Settings of the command line: flags, then CTXKIT_* variables, then ctxkit.toml, then the defaults.

The library itself reads none of these.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer
from pydantic import BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

Origin = Literal["flag", "environment", "file", "default"]

_PREFIX = "CTXKIT_"
_FILE = "ctxkit.toml"
_SERVE = "serve"
_SECRETS = frozenset({"api_key", "serve_api_keys"})


def _listed(value: Any) -> Any:
    """A variable holds several values separated by commas; a file holds a list."""
    return [one.strip() for one in value.split(",") if one.strip()] if isinstance(value, str) else value


_Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Several = Annotated[tuple[_Word, ...], NoDecode, BeforeValidator(_listed)]


class Settings(BaseSettings):
    """A field is the variable CTXKIT_ with its name in capitals.

    In the file, those of `ctxkit serve` stand in the table [serve], without `serve_`; so does `store`.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    index: Path = Path(".ctxkit")
    model: str = "smollm2-135m-instruct"
    cache_dir: Path | None = None
    budget: int = Field(default=2000, ge=1)
    reserve: int | None = Field(default=None, ge=1)
    api_key: str | None = None
    store: str | None = None

    serve_model: str | None = None
    serve_index: Path | None = None
    serve_indexes: Path | None = None
    serve_upstream: Several = ()
    serve_host: str = "127.0.0.1"
    serve_port: int = Field(default=8000, ge=0, le=65535)
    serve_api_keys: Several = ()
    serve_api_key_file: Path | None = None
    serve_keep_days: float | None = Field(default=None, ge=0.01)
    serve_served_model_name: str | None = None
    serve_window: int | None = Field(default=None, ge=1)
    serve_answer_tokens: int = Field(default=512, ge=1)
    serve_max_running: int = Field(default=16, ge=1)
    serve_max_waiting: int = Field(default=256, ge=0)
    serve_workers: int = Field(default=1, ge=1)
    serve_timeout: float = Field(default=600.0, ge=0.1)
    serve_cors_origin: Several = ()
    serve_metrics: bool = True
    serve_requests_per_minute: int | None = Field(default=None, ge=1)
    serve_tokens_per_minute: int | None = Field(default=None, ge=1)
    serve_untrusted: Literal["allow", "flag", "refuse_tools"] = "flag"
    serve_index_label: str = "untrusted"
    serve_log_format: Literal["text", "json"] = "text"

    @property
    def names_a_model(self) -> bool:
        """Whether anything but the default says which model."""
        return "model" in self.model_fields_set

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, _of_file())


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as it is shown: secrets are "set" or "not set", and addresses are without user and password."""

    name: str
    value: Any
    origin: Origin
    variable: str


def settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """What holds now. flags: values that were given on the command line, by field; None is not given.

    Raises BadParameter: a value that makes no sense is wrong usage, wherever it stands, and so is an unknown key.
    """
    given = _given(flags)
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = "; ".join(_told(str(one["loc"][0]), one["input"], one["msg"], given) for one in error.errors())
        raise typer.BadParameter(wrong) from error


def shown(flags: Mapping[str, Any] | None = None) -> list[Setting]:
    """Every setting, its value and where it comes from, in the order of `Settings`. Raises BadParameter."""
    found, given = settings(flags), _given(flags)
    return [
        Setting(_key(name), _public(name, getattr(found, name)), _origin(name, given), f"{_PREFIX}{name.upper()}")
        for name in Settings.model_fields
    ]


def file_in_use() -> Path | None:
    """The file that is read: CTXKIT_CONFIG, else ctxkit.toml in the working directory, where there is one."""
    named = os.environ.get(f"{_PREFIX}CONFIG")
    if named:
        return Path(named)
    return Path(_FILE) if Path(_FILE).is_file() else None


def _of_file() -> dict[str, Any]:
    """The file's values by field. Raises BadParameter for a file that cannot be read, and for a key that is none."""
    path = file_in_use()
    if path is None:
        return {}
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise typer.BadParameter(f"{path}: not TOML: {error}") from error
    table = held.pop(_SERVE, {})
    if not isinstance(table, dict):
        raise typer.BadParameter(f"{path}: `{_SERVE}` must be a table: [{_SERVE}]")
    values = {**held, **{f"{_SERVE}.{key}": value for key, value in table.items()}}
    fields = {_key(name): name for name in Settings.model_fields}
    if unknown := [key for key in values if key not in fields]:
        named = ", ".join(f"`{key}`" for key in unknown)
        raise typer.BadParameter(f"{path}: unknown {named}; `ctxkit config show` lists every key")
    return {fields[key]: value for key, value in values.items()}


def _key(name: str) -> str:
    """A field as the file names it."""
    if name == "store":
        return f"{_SERVE}.{name}"
    return f"{_SERVE}.{name.removeprefix(f'{_SERVE}_')}" if name.startswith(f"{_SERVE}_") else name


def _given(flags: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (flags or {}).items() if value not in (None, [], ())}


def _origin(name: str, given: Mapping[str, Any]) -> Origin:
    if name in given:
        return "flag"
    if name in EnvSettingsSource(Settings)():
        return "environment"
    return "file" if name in _of_file() else "default"


def _told(name: str, value: Any, why: str, given: Mapping[str, Any]) -> str:
    held = "(a secret)" if name in _SECRETS else repr(value)
    match _origin(name, given):
        case "environment":
            return f"{_PREFIX}{name.upper()}={held}: {why}"
        case "file":
            return f"{file_in_use()}: `{_key(name)}` = {held}: {why}"
    return f"{_key(name)} {held}: {why}"


def _public(name: str, value: Any) -> Any:
    if name in _SECRETS:
        return "set" if value else "not set"
    if isinstance(value, str) and "://" in value:
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if isinstance(value, tuple):
        return [_public(name, one) for one in value]
    return str(value) if isinstance(value, Path) else value
