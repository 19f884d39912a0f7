"""What the commands open: the index, the model, the counter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctxkit.cli.output import note
from ctxkit.cli.settings import Settings

if TYPE_CHECKING:
    from ctxkit.models import LocalModel, RemoteModel
    from ctxkit.retrieval import Index
    from ctxkit.tokens import EstimatingCounter, TemplateCounter


def open_index(folder: Path | None) -> Index:
    from ctxkit.retrieval import Index

    return Index.open(folder or Settings().index)


def open_counter(model: str | None) -> TemplateCounter | EstimatingCounter:
    """The model's own tokenizer, without its weights. Where no model is named and the default is not prepared here,
    the upper-bound estimator, which is said."""
    from ctxkit.errors import ModelNotPrepared
    from ctxkit.models import resolve
    from ctxkit.tokens import EstimatingCounter, TemplateCounter

    settings = Settings()
    try:
        return TemplateCounter.from_folder(resolve(model or settings.model, settings.cache_dir))
    except ModelNotPrepared:
        if model:
            raise
        note(f"{settings.model} is not prepared: tokens are an upper bound (ctxkit models prepare {settings.model})")
        return EstimatingCounter()


def open_model(model: str | None, base_url: str | None, window_tokens: int) -> LocalModel | RemoteModel:
    """The model behind `base_url`, or the local one."""
    settings = Settings()
    if base_url:
        from ctxkit.models import RemoteModel

        name = model or settings.model
        return RemoteModel(base_url, name, api_key=settings.api_key, window_tokens=window_tokens)
    from ctxkit.models import LocalModel

    return LocalModel.load(model or settings.model, cache_dir=settings.cache_dir)
