"""TokenClassifier: a checkpoint that says of each token whether to keep it, from a folder or a hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ctxkit.compression.encoder.loading import needed, no_loading_bar
from ctxkit.errors import ModelNotFound

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS = ("float32", "bfloat16", "int8")

_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
_KEEP = 1  # the label of what stays
_LONGEST_WINDOW = 512
_POSITIONS_BEHIND_PADDING = frozenset({"camembert", "roberta", "xlm-roberta", "xlm-roberta-xl"})


class TokenClassifier:
    """A transformers token classifier with two labels, the second of which is "keep".

    model: a local folder, which is never looked up on a hub, or a hub id.
    precision: "float32"; "bfloat16", for CPUs and GPUs that compute in it; "int8", in ONNX Runtime, on a CPU.
    device: as torch names it; None takes a GPU where there is one. threads: of torch; None leaves them as they are.

    Calling it gives the probability that each token is kept. Raises MissingExtra where a package is absent, and
    ModelNotFound where the model cannot be had or is of another kind.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Precision = "float32",
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        needed("torch", "local")
        needed("transformers", "local")
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` must be of {', '.join(PRECISIONS)}; got {precision!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` must be at least 1, got {threads!r}")
        self.folder = folder_of(model)
        self.name = str(model)
        self._threads = threads
        config = _config(self.folder, self.name)
        self.tokenizer, self.pad_id = _tokenizer(self.folder, self.name)
        self.window_tokens = _window_tokens(config)
        if precision == "int8":
            from ctxkit.compression.encoder.onnx_model import OnnxForward

            self._forward: Any = OnnxForward(self.folder, self.name, threads)
        else:
            self._forward = _TorchForward(self.folder, self.name, precision, device)

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """int64 [rows, longest] each, mask 0 for padding -> probability to keep, float32 [rows, longest]."""
        with _threads(self._threads):
            logits = self._forward(ids, mask)
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        return (shifted[..., _KEEP] / shifted.sum(-1)).astype(np.float32)


class _TorchForward:
    """(ids, mask) -> float32 [rows, longest, 2] with torch."""

    def __init__(self, folder: Path, name: str, precision: str, device: str | None) -> None:
        import torch

        self._device = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
        self._half = precision == "bfloat16"
        self._model = load_classifier(folder, name).to(self._device)
        if self._device.type == "cpu" and not self._half:
            from ctxkit.compression.encoder.prepacked import prepack

            prepack(self._model)

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        given, read = (torch.from_numpy(array).to(self._device) for array in (ids, mask))
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            logits = self._model(input_ids=given, attention_mask=read).logits
        return logits.float().cpu().numpy()


def load_classifier(folder: Path, name: str) -> Any:
    """The model in `folder` in float32, for inference. Raises ModelNotFound."""
    from transformers import AutoModelForTokenClassification

    try:
        with no_loading_bar():
            model = AutoModelForTokenClassification.from_pretrained(
                folder, dtype="float32", local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelNotFound(f"{name!r} cannot be loaded as a token classifier: {error}") from error
    return model.eval()


def folder_of(model: str | Path) -> Path:
    """Where the files of a local folder or a hub id are. Raises ModelNotFound, also where the hub is not reached."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if isinstance(model, Path) or str(model).startswith((".", "~")) or path.is_absolute():
        raise ModelNotFound(f"there is no folder {str(model)!r}")
    needed("huggingface_hub", "local")
    import httpx
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError, httpx.HTTPError) as error:  # not found, gated, offline, or not a hub id at all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFound(
            f"{str(model)!r} is not a folder, and the Hugging Face hub did not give it ({reason})"
        ) from error


def _config(folder: Path, name: str) -> Any:
    """The configuration, checked to be that of a keep-or-drop classifier."""
    from transformers import AutoConfig

    expected = "Give a token classifier with two labels, such as one of LLMLingua-2's"
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFound(f"{name!r} has no `config.json` that transformers knows: {error}. {expected}") from error
    kinds = settings.get("architectures") or []
    if not any(kind.endswith("ForTokenClassification") for kind in kinds):
        raise ModelNotFound(f"{name!r} is no token classifier but {', '.join(kinds) or 'of no known kind'}. {expected}")
    if config.num_labels != 2:
        raise ModelNotFound(f"{name!r} has {config.num_labels} labels. {expected}")
    return config


def _tokenizer(folder: Path, name: str) -> tuple[Any, int]:
    """The `tokenizers.Tokenizer`, without truncation and padding, and the id that pads."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    try:
        wrapped = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelNotFound(f"the tokenizer of {name!r} cannot be loaded: {error}") from error
    if not getattr(wrapped, "is_fast", False):
        raise ModelNotFound(f"{name!r} has no fast tokenizer, which offsets need. Save one as `tokenizer.json`")
    tokenizer = Tokenizer.from_str(wrapped.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, int(wrapped.pad_token_id or 0)


def _window_tokens(config: Any) -> int:
    """The most tokens that the model reads at once."""
    positions = getattr(config, "max_position_embeddings", None) or _LONGEST_WINDOW
    taken = int(config.pad_token_id) + 1 if config.model_type in _POSITIONS_BEHIND_PADDING else 0
    return min(_LONGEST_WINDOW, positions - taken)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """torch on so many threads."""
    import torch

    before = torch.get_num_threads()
    if count is not None and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
