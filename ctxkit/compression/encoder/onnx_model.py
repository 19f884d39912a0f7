"""OnnxForward: a token classifier with 8-bit weights in ONNX Runtime, converted once into the user's cache."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.compression.encoder.loading import needed
from ctxkit.compression.encoder.token_classifier import load_classifier
from ctxkit.errors import ModelError

_EXTRA = "onnx"
_RECIPE = "int8-per-channel/1"
_CHUNK_BYTES = 1 << 22
_SAMPLE = (2, 16)


class OnnxForward:
    """(ids, mask) -> float32 [rows, longest, 2] with ONNX Runtime on a CPU.

    folder: of the checkpoint. name: for messages. threads: None lets ONNX Runtime choose.
    cache: where the converted model is kept; None takes the user's cache folder.

    Weights are int8 per output channel; activations are quantised per batch, so that a text's values depend a little
    on what is read beside it. Raises MissingExtra, and ModelError where the conversion fails.
    """

    def __init__(self, folder: Path, name: str, threads: int | None = None, *, cache: Path | None = None) -> None:
        needed("onnxruntime", _EXTRA)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        path = converted(folder, name, cache)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        (logits,) = self._session.run(None, {"input_ids": ids, "attention_mask": mask})
        return np.asarray(logits, np.float32)


def converted(folder: Path, name: str, cache: Path | None = None) -> Path:
    """The int8 model of the checkpoint in `folder`, made where the cache has none. Raises MissingExtra, ModelError."""
    target = (cache or _cache()) / "onnx" / f"{_digest(folder)}.onnx"
    if target.is_file():
        return target
    for package in ("onnx", "onnxscript"):
        needed(package, _EXTRA)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as work:
        try:
            made = _quantised(folder, name, Path(work))
        except Exception as error:  # the exporter raises what its parts raise
            raise ModelError(f"{name!r} cannot be converted to ONNX: {error}. Use another precision") from error
        os.replace(made, target)
    return target


def _quantised(folder: Path, name: str, work: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exported, made = work / "float32.onnx", work / "int8.onnx"
    with _quiet():
        _export(folder, name, exported)
        quantize_dynamic(exported, made, weight_type=QuantType.QInt8, per_channel=True)
    return made


def _export(folder: Path, name: str, path: Path) -> None:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = load_classifier(folder, name)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).logits

    mask = torch.ones(_SAMPLE, dtype=torch.long)
    mask[1, 9:] = 0  # all ones would be traced as no mask at all
    ids = torch.full(_SAMPLE, 5, dtype=torch.long)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        Logits().eval(),
        (ids, mask),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": free, "attention_mask": free},
        dynamo=True,
        verbose=False,
    )


def _digest(folder: Path) -> str:
    """Of the checkpoint's weights and configuration, and of what converts them."""
    digest = hashlib.sha256(f"{_RECIPE} {version('onnxruntime')}".encode())
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:32]


def _cache() -> Path:
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("ctxkit"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that it does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
