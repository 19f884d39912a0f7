"""A model on this machine, through transformers and torch. Raises MissingExtra where they are not installed."""

from ctxkit.models.extras import require_local

require_local("torch", "transformers", "safetensors")

from ctxkit.models.local.batching import Scheduler  # noqa: E402
from ctxkit.models.local.draft import Draft  # noqa: E402
from ctxkit.models.local.engine import Engine  # noqa: E402
from ctxkit.models.local.model import LocalModel  # noqa: E402
from ctxkit.models.local.ngram import NGram  # noqa: E402
from ctxkit.models.local.session import LocalSession  # noqa: E402

__all__ = ["Draft", "Engine", "LocalModel", "LocalSession", "NGram", "Scheduler"]
