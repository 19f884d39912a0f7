"""Where a model's files are: prepare a known model once, find it again, or get one from the Hugging Face hub.

A prepared model is a folder `<cache>/models/<name>/`. It is written under another name beside it and renamed when it
is whole, so a folder of that name is always complete; several processes may prepare the same model at once.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ctxkit.errors import ModelError, ModelNotFound, ModelNotPrepared
from ctxkit.models.catalog import CATALOG, CatalogEntry
from ctxkit.models.gguf import convert_gguf

Converter = Callable[[Path, Path], None]
"""Writes a model folder from a source file: (source, folder)."""

FORMAT = 1
_MARKER = "ctxkit.json"
_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
_STALE_SECONDS = 24 * 3600
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One line of `ctxkit models list`. `where` and `size_bytes` describe the prepared folder, if there is one."""

    name: str
    prepared: bool
    where: Path | None
    size_bytes: int
    window_tokens: int
    licence: str


def prepare(
    name: str,
    cache_dir: str | Path | None = None,
    progress: bool = False,
    *,
    convert: Converter = convert_gguf,
    catalog: Mapping[str, CatalogEntry] = CATALOG,
) -> Path:
    """Makes the model folder of a known model, once; later calls return it at once.

    cache_dir: where models are kept; the user's cache folder by default.
    progress: show a line while converting.
    Raises ModelNotFound for an unknown name, MissingExtra without the packages it needs, ModelError if it fails.
    """
    entry = _entry(name, catalog)
    target = model_folder(name, cache_dir)
    if is_prepared(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        _convert(entry, work, convert, progress)
        _publish(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def resolve(
    name_or_path: str | Path, cache_dir: str | Path | None = None, *, catalog: Mapping[str, CatalogEntry] = CATALOG
) -> Path:
    """The folder of a model: a known name, a local folder, or an id on the Hugging Face hub (downloaded if need be).

    Raises ModelNotPrepared for a known model that is not in the cache yet, else ModelNotFound.
    """
    name = str(name_or_path)
    if name in catalog:
        return _prepared_or_raise(name, cache_dir)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"the folder {name!r} has no `config.json`; give the folder of a transformers model")
        return path
    if isinstance(name_or_path, Path) or name.startswith((".", "~")) or path.is_absolute():
        raise ModelNotFound(f"there is no folder {name!r}")
    return _from_hub(name, catalog)


def available(cache_dir: str | Path | None = None, *, catalog: Mapping[str, CatalogEntry] = CATALOG) -> list[ModelInfo]:
    """The known models, prepared or not, in the catalogue's order."""
    return [_info(entry, model_folder(entry.name, cache_dir)) for entry in catalog.values()]


def model_folder(name: str, cache_dir: str | Path | None = None) -> Path:
    """Where a known model is, or will be, kept."""
    return Path(cache_dir if cache_dir is not None else default_cache_dir()).expanduser() / "models" / name


def default_cache_dir() -> Path:
    """The user's cache folder for ctxkit."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("ctxkit"))


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds a whole model of the current format."""
    if not all((folder / name).is_file() for name in (*_NEEDED, _MARKER)):
        return False
    return json.loads((folder / _MARKER).read_text(encoding="utf-8")).get("format") == FORMAT


def _entry(name: str, catalog: Mapping[str, CatalogEntry]) -> CatalogEntry:
    if name not in catalog:
        raise ModelNotFound(f"no known model {name!r}; known: {', '.join(sorted(catalog))}")
    return catalog[name]


def _prepared_or_raise(name: str, cache_dir: str | Path | None) -> Path:
    folder = model_folder(name, cache_dir)
    if not is_prepared(folder):
        raise ModelNotPrepared(f"the model {name!r} is not prepared yet. Run once: ctxkit models prepare {name}")
    return folder


def _convert(entry: CatalogEntry, work: Path, convert: Converter, progress: bool) -> None:
    from tqdm.auto import tqdm

    source = entry.source
    with tqdm(total=1, desc=f"Preparing {entry.name}", unit="model", disable=not progress) as bar:
        convert(source, work)
        bar.update()
    missing = [name for name in _NEEDED if not (work / name).is_file()]
    if missing:
        raise ModelError(f"converting {source.name!r} did not write {', '.join(missing)}")
    marker = {"format": FORMAT, "name": entry.name, "source": source.name, "licence": entry.licence}
    (work / _MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _publish(work: Path, target: Path) -> None:
    """Renames `work` to `target`. Whoever comes second keeps the first one's folder."""
    work.chmod(0o755)
    for _ in range(3):
        try:
            os.rename(work, target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            if is_prepared(target):
                return
            _set_aside(target)
        else:
            return
    raise ModelError(f"cannot replace the incomplete folder {str(target)!r}; delete it and prepare again")


def _set_aside(target: Path) -> None:
    """Takes an incomplete or outdated folder away in one step, then deletes it."""
    trash = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        os.rename(target, trash / "old")
    except FileNotFoundError:
        return  # another process did it first
    finally:
        shutil.rmtree(trash, ignore_errors=True)


def _remove_stale(models: Path) -> None:
    """Deletes what processes killed in the middle of a conversion left behind."""
    for folder in models.glob(".*-*"):
        if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _info(entry: CatalogEntry, folder: Path) -> ModelInfo:
    prepared = is_prepared(folder)
    size_bytes = sum(file.stat().st_size for file in folder.iterdir()) if prepared else 0
    return ModelInfo(
        name=entry.name,
        prepared=prepared,
        where=folder if prepared else None,
        size_bytes=size_bytes,
        window_tokens=entry.window_tokens,
        licence=entry.licence,
    )


def _from_hub(name: str, catalog: Mapping[str, CatalogEntry]) -> Path:
    from ctxkit.models.extras import require_local

    require_local("huggingface_hub")
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError, httpx.HTTPError) as error:  # not found, gated, offline, or not a hub id at all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFound(
            f"no model {name!r}: it is not one of {', '.join(sorted(catalog))}, not a folder, "
            f"and the Hugging Face hub did not give it ({reason})"
        ) from error
