"""kvpress 0.5.5 on one model folder: answers requests, one JSON object a line, until its input ends.

    <python with kvpress> kvpress_peer.py MODEL_FOLDER DTYPE

A request is {"case", "context", "question", "answer", "aware", "press", "ratio"}, the texts in token ids; press is a
class of kvpress that takes a compression ratio, "Outer(Inner)", or "" for none. The context (with "aware" the question
too) is read in one pass under the press; then, as kvpress's pipeline does it, the rest at its true positions (behind
what is left, where the press turned the keys); then the answer, token by token. An answer has "log_probabilities" of
the answer's tokens, "exact", "kl" of the first one from what no press gave in the same case (asked first), "kv_bytes"
and "cpu_seconds"; or "error".

{"memory": {"tokens", "streaming", "sinks", "recent"}} asks for the cache's bytes after so many random tokens were read
under DuoAttentionPress with this share of streaming heads, and under no press. Imports no ctxkit.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints is no answer
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(Path(sys.argv[1]), dtype=dtype, attn_implementation="sdpa").eval()
    full: dict[int, torch.Tensor] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = memory(model, request["memory"]) if "memory" in request else answer(model, request, full)
        except Exception as error:  # whatever a press raises is a result
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


@torch.inference_mode()
def answer(model: Any, request: dict[str, Any], full: dict[int, torch.Tensor]) -> dict[str, Any]:
    started = time.process_time()
    prompt, rest = request["context"], request["question"]
    if request["aware"]:
        prompt, rest = prompt + rest[:-1], rest[-1:]
    cache = read(model, prompt, press_of(model, request["press"], request["ratio"]))
    rows, at = [], cache.get_seq_length() if "KeyRerotationPress" in request["press"] else len(prompt)
    for ids in (rest, *([token] for token in request["answer"][:-1])):
        rows.append(following(model, ids, at, cache))
        at += len(ids)
    if not request["press"]:
        full.clear()
        full[request["case"]] = rows[0]
    base = full[request["case"]]
    return {
        "log_probabilities": [float(row[token]) for row, token in zip(rows, request["answer"], strict=True)],
        "exact": all(int(row.argmax()) == token for row, token in zip(rows, request["answer"], strict=True)),
        "kl": float((base.exp() * (base - rows[0])).sum()),
        "kv_bytes": cache_bytes(cache),
        "cpu_seconds": time.process_time() - started,
    }


def press_of(model: Any, name: str, ratio: float) -> Any:
    """`Outer(Inner)` wraps one press into another, as kvpress does."""
    import kvpress

    if not name:
        return None
    outer, _, inner = name.rstrip(")").partition("(")
    if inner:
        return getattr(kvpress, outer)(getattr(kvpress, inner)(compression_ratio=ratio))
    return getattr(kvpress, outer)(compression_ratio=ratio)


def read(model: Any, ids: list[int], press: Any) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    given = torch.tensor([ids])
    if press is None:
        model.model(input_ids=given, past_key_values=cache)
        return cache
    with press(model):
        model.model(input_ids=given, past_key_values=cache)
    return cache


def following(model: Any, ids: list[int], at: int, cache: Any) -> torch.Tensor:
    """Log-probabilities after `ids`, which stand at position `at`."""
    positions = torch.arange(at, at + len(ids))[None]
    out = model(input_ids=torch.tensor([ids]), past_key_values=cache, position_ids=positions, logits_to_keep=1)
    return out.logits[0, -1].float().log_softmax(-1)


@torch.inference_mode()
def memory(model: Any, asked: dict[str, Any]) -> dict[str, Any]:
    from kvpress import DuoAttentionPress

    class GivenHeads(DuoAttentionPress):
        """Its own patterns are for larger models and come from the network: every other head streams here."""

        def post_init_from_model(self, model: Any) -> None:
            shape = (model.config.num_hidden_layers, model.config.num_key_value_heads)
            self.sink_size, self.recent_size = asked["sinks"], asked["recent"]
            count = shape[0] * shape[1]
            chosen = (torch.arange(count) * asked["streaming"]).floor() < (
                torch.arange(1, count + 1) * asked["streaming"]
            ).floor()
            self.streaming_mask = chosen.view(shape)

    ids = torch.randint(0, model.config.vocab_size, (asked["tokens"],), generator=torch.Generator().manual_seed(0))
    presses = {"full": None, "streaming": GivenHeads(head_compression_ratio=asked["streaming"])}
    return {name: cache_bytes(read(model, ids.tolist(), press)) for name, press in presses.items()}


def cache_bytes(cache: Any) -> int:
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


if __name__ == "__main__":
    main()
