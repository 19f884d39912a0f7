"""Engine: forward passes of a transformers causal language model, one at a time, batch size one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from transformers import DynamicCache, PreTrainedModel


class Engine:
    """Feeds token ids to a model and gives float32 logits back.

    prefill_tokens: positions per forward pass while the prompt is read; bounds the memory that attention needs.
    """

    def __init__(self, model: PreTrainedModel, *, prefill_tokens: int = 512) -> None:
        if prefill_tokens < 1:
            raise ValueError(f"`prefill_tokens` must be at least 1, got {prefill_tokens!r}")
        self.model = model.eval()
        self.prefill_tokens = prefill_tokens
        self._lock = threading.Lock()

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config)

    def forward(self, ids: Sequence[int], cache: DynamicCache, *, keep: int = 1) -> torch.Tensor:
        """Appends `ids` to `cache`; logits after each of the last `keep` of them, float32 [keep, vocabulary]."""
        batch = torch.tensor([list(ids)], dtype=torch.long, device=self.model.device)  # [1, n]
        with self._lock, torch.inference_mode():
            output = self.model(input_ids=batch, past_key_values=cache, use_cache=True, logits_to_keep=keep)
            return output.logits[0].float()

    def prefill(
        self, ids: Sequence[int], cache: DynamicCache, *, stopped: Callable[[], bool] = lambda: False
    ) -> torch.Tensor | None:
        """Reads a prompt in chunks; logits after its last token, float32 [vocabulary]. None where `stopped` said so."""
        logits = None
        for start in range(0, len(ids), self.prefill_tokens):
            if stopped():
                return None
            logits = self.forward(ids[start : start + self.prefill_tokens], cache)[-1]
        return logits

    def logits(self, ids: Sequence[int], last: int) -> Iterator[torch.Tensor]:
        """Logits after each of the last `last` ids, in order, in chunks of float32 [n, vocabulary]."""
        cache = self.new_cache()
        first = len(ids) - last
        for start in range(0, len(ids), self.prefill_tokens):
            chunk = ids[start : start + self.prefill_tokens]
            wanted = min(len(chunk), start + len(chunk) - first)
            logits = self.forward(chunk, cache, keep=max(wanted, 1))
            if wanted > 0:
                yield logits
