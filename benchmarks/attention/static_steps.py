"""A whole model's decoding step: replayed from a CUDA graph, beside passes made anew."""

from __future__ import annotations

import time
from functools import partial
from statistics import median
from typing import Any

import torch
from measuring import Bench, apart

_MOST_APART = 2e-2  # of logits in bfloat16, whose sums other shapes round otherwise


def static_steps(bench: Bench) -> None:
    """Milliseconds of `Engine.step` by the wall clock, until the logits are there; and of it until the call returns.

    Random weights of the shapes of Llama-3.2-1B. The first step captures. A few dozen follow, so that pages are taken
    and given back in some of them.
    """
    from ctxkit.models.local.policies import Policy, StreamingLLM

    model = llama(bench)
    for policy in (StreamingLLM(4, 1020), Policy()):
        for batch in bench.sizes.decoded:
            line = {"policy": "Full" if type(policy) is Policy else repr(policy), "batch": batch}
            bench.attempt("static_steps", partial(compared, bench, model, policy, batch), **line)


def llama(bench: Bench) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    layers, hidden, heads, kv_heads, vocabulary = bench.sizes.model
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocabulary,
        max_position_embeddings=1 << 17,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(bench.device):
        return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def compared(bench: Bench, model: Any, policy: Any, batch: int) -> dict[str, float]:
    from ctxkit.models.local import Engine

    draw = torch.Generator().manual_seed(batch)
    vocabulary, tokens = bench.sizes.model[-1], bench.sizes.read_tokens
    prompts = torch.randint(vocabulary, (batch, tokens), generator=draw).tolist()
    steps = torch.randint(vocabulary, (bench.sizes.decoded_tokens, batch), generator=draw).tolist()
    found: dict[str, float] = {}
    logits = {}
    for name, graphs in (("anew", False), ("static", True)):
        engine = Engine(model, policy=policy, cuda_graphs=graphs)
        texts = [engine.new_context() for _ in prompts]
        for text, prompt in zip(texts, prompts, strict=True):
            engine.prefill(prompt, text)
        taken = [timed_step(bench, engine, texts, ids) for ids in steps]
        logits[name] = taken[-1][2]
        whole, host = [[step[which] * 1e3 for step in taken[1:]] for which in (0, 1)]
        found |= {f"{name} ms": round(median(whole), 3), f"{name} slowest ms": round(max(whole), 3)}
        found |= {f"{name} host ms": round(median(host), 3), f"{name} first ms": round(taken[0][0] * 1e3, 1)}
    gap = apart(logits["static"], logits["anew"])
    if not gap < _MOST_APART:
        raise RuntimeError(f"WRONG: logits differ by {gap:.1e} after {len(steps)} steps")
    return found | {"apart": gap, "times faster": round(found["anew ms"] / found["static ms"], 2)}


def timed_step(bench: Bench, engine: Any, texts: list[Any], ids: list[int]) -> tuple[float, float, Any]:
    """Seconds until the logits are there, and until the call returns; the logits."""
    if bench.device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    logits = engine.step(texts, ids)
    returned = time.perf_counter() - started
    if bench.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, returned, logits
