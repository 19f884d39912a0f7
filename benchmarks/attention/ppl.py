"""Perplexity of a long text, segment by segment, as it streams through the model under each policy.

    python benchmarks/attention/ppl.py [TEXT] [--tokens 12288] [--chunk 512] [--policies "StreamingLLM(4, 1020)" ...]
        [--json FILE]

TEXT: a file or one of six novels (see novels.py), "emma" by default. Every policy reads the same tokens in the same
chunks, one policy after the other. With --json FILE is written after each policy, and a later run on the same model,
text and chunks takes the policies that are there already from it, so that full attention is paid once.

Bars, for the first policy after full: at most 1.05 of full attention's perplexity in every segment of the trained
window, and at most 0.65 in the last segment of 12,288 tokens, beyond it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from subject import Clock, fingerprint, ids_of, model_of, parser_of, policy_of, setting, text_of, write_json
from tqdm.auto import tqdm

from ctxkit.models.local import LocalModel
from ctxkit.models.local.paging.context import KVContext

FULL = "Full"
POLICIES = ("StreamingLLM(4, 1020)", "StreamingLLM(0, 1024)")
K = 1024
INSIDE, BEYOND = 1.05, 0.65


def main() -> None:
    arguments = parse()
    model = model_of(arguments.model, dtype=arguments.dtype)
    ids = ids_of(model, text_of(arguments.text)[: 8 * arguments.tokens])[: arguments.tokens]
    print(f"{arguments.text}: {len(ids):,} tokens in chunks of {arguments.chunk}; {setting(model)}", flush=True)
    key = fingerprint(arguments.model, model.model.dtype, arguments.chunk, ids)
    known = read(arguments.json, key)
    for name in dict.fromkeys((FULL, *arguments.policies)):
        if name not in known:
            known[name] = streamed(model, ids, name, arguments.chunk)
            write_json(arguments.json, {"key": key, "tokens": len(ids), "policies": known})
    window = int(model.model.config.get_text_config().max_position_embeddings)
    report([FULL, *arguments.policies], known, len(ids), window)


def read(path: Path | None, key: str) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found["policies"] if found["key"] == key else {}


def streamed(model: LocalModel, ids: Sequence[int], name: str, chunk: int) -> dict[str, Any]:
    """The cost in nats of every token but the first, CPU seconds, and the bytes at the end."""
    context, clock = model.engine.new_context(policy_of(name)), Clock()
    nats: list[float] = []
    with clock.running():
        for start in tqdm(range(0, len(ids), chunk), desc=name, disable=None):
            nats += cost(model, context, ids[start : start + chunk], torch.tensor(ids[start + 1 : start + chunk + 1]))
    found = {"nats": nats, "cpu_seconds": clock.cpu, "kv_bytes": context.used_bytes}
    model.engine.close(context)
    return found


def cost(model: LocalModel, context: KVContext, ids: Sequence[int], following: torch.Tensor) -> list[float]:
    logits = model.engine.forward(ids, context, keep=len(ids))[: len(following)]
    return torch.nn.functional.cross_entropy(logits, following, reduction="none").tolist()


def segments(tokens: int) -> list[tuple[int, int]]:
    """0-1k, 1-2k, then by 2k, as far as the text goes."""
    edges = [0, K, *range(2 * K, tokens, 2 * K), tokens]
    return [(low, high) for low, high in zip(edges, edges[1:], strict=False) if low < high]


def perplexity(nats: Sequence[float], low: int, high: int) -> float:
    """Of the tokens low .. high - 1; the first token of all has no cost, and nats[i] is of token i + 1."""
    found = nats[max(low - 1, 0) : high - 1]
    return math.exp(sum(found) / len(found))


def report(names: Sequence[str], known: dict[str, Any], tokens: int, window: int) -> None:
    parts = [*segments(tokens), (0, tokens)]
    heads = [f"{low / K:g}-{high / K:g}k" for low, high in parts[:-1]] + ["all"]
    print("| perplexity |", " | ".join(heads), "| CPU s | KV MB |")
    print("|" + "---|" * (len(heads) + 3))
    full = [perplexity(known[FULL]["nats"], *part) for part in parts]
    for name in names:
        found = [perplexity(known[name]["nats"], *part) for part in parts]
        cells = [f"{value:.2f}" for value in found]
        if name != FULL:
            cells = [f"{cell} ({value / base:.3f})" for cell, value, base in zip(cells, found, full, strict=True)]
        print(f"| {name} |", " | ".join(cells), end=" | ")
        print(f"{known[name]['cpu_seconds']:.0f} | {known[name]['kv_bytes'] / 1e6:.1f} |")
    bars(names[1], known, parts[:-1], full, window)


def bars(name: str, known: dict[str, Any], parts: Sequence[tuple[int, int]], full: list[float], window: int) -> None:
    ratios = [perplexity(known[name]["nats"], *part) / base for part, base in zip(parts, full, strict=False)]
    inside = max(ratio for ratio, (_, high) in zip(ratios, parts, strict=True) if high <= max(window, parts[0][1]))
    print(
        f"{name} inside the trained window, {window:,}: {inside:.3f} at worst, bar {INSIDE}: {said(inside <= INSIDE)}"
    )
    if parts[-1][0] >= window:
        print(f"beyond it, last segment: {ratios[-1]:.3f} of full, bar {BEYOND}: {said(ratios[-1] <= BEYOND)}")


def said(met: bool) -> str:
    return "met" if met else "MISSED"


def parse() -> Any:
    parser = parser_of(__doc__)
    parser.add_argument("text", nargs="?", default="emma")
    parser.add_argument("--tokens", type=int, default=12 * K)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), metavar="EXPRESSION")
    return parser.parse_args()


if __name__ == "__main__":
    main()
