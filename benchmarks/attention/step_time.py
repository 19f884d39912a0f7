"""Time of one decode step: ours under a window, ours in full, and transformers' own full attention, in turn.

    python benchmarks/attention/step_time.py [--lengths 4096 8192 16384 32768] [--policy "StreamingLLM(4, 1020)"]
        [--rounds 7] [--others EXPRESSION ...]

The same weights. Nothing is prefilled: our pages and transformers' DynamicCache are filled with random keys and values
of the model's shapes, then each takes one token at a time; rounds alternate, the first is not counted, and a ratio is
the median over rounds of the two times in one round. Bar: at the largest length the policy's step is at least 3 times
faster than transformers' full attention.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from subject import fill, interleaved, median_ms, model_of, paired_ratio, parser_of, policy_of, setting, write_json
from transformers import DynamicCache

from ctxkit.models.local import LocalModel

BAR = 3.0


def main() -> None:
    arguments = parse()
    model = model_of(arguments.model, dtype=arguments.dtype)
    print(f"{setting(model)}; theirs: {model.model.config._attn_implementation}", flush=True)
    names = [arguments.policy, "Full", *arguments.others]
    print("| length | transformers ms |", " | ".join(f"{name} ms | CPU | times faster (CPU)" for name in names), "|")
    print("|" + "---|" * (2 + 3 * len(names)), flush=True)
    rows = [measured(model, length, names, arguments) for length in arguments.lengths]
    last = rows[-1][arguments.policy]["faster"]
    print(
        f"{arguments.policy} at {arguments.lengths[-1]:,}: {last:.2f}x, bar {BAR}: {'met' if last >= BAR else 'MISSED'}"
    )
    write_json(arguments.json, rows)


def measured(model: LocalModel, length: int, names: list[str], arguments: Any) -> dict[str, Any]:
    contexts = {}
    for name in names:
        contexts[name] = model.engine.new_context(policy_of(name))
        fill(model.engine, contexts[name], length, arguments.seed)
    calls: dict[str, Callable[[], object]] = {"transformers": theirs(model, length, arguments.seed)}
    for name, context in contexts.items():
        calls[name] = lambda context=context: model.engine.step([context], [1])
    times = interleaved(calls, arguments.rounds)
    row: dict[str, Any] = {"length": length, "transformers_ms": median_ms(times["transformers"])}
    cells = [f"{length:,}", f"{row['transformers_ms']:.0f}"]
    for name in names:
        faster, cpu = (paired_ratio(times["transformers"], times[name], kind) for kind in ("wall", "cpu"))
        own = {
            "ms": median_ms(times[name]),
            "cpu_ms": median_ms(times[name], "cpu"),
            "faster": faster,
            "faster_cpu": cpu,
        }
        row[name] = own
        cells += [f"{own['ms']:.0f}", f"{own['cpu_ms']:.0f}", f"{faster:.2f} ({cpu:.2f})"]
        model.engine.close(contexts[name])
    print("|", " | ".join(cells), "|", flush=True)
    return row


def theirs(model: LocalModel, length: int, seed: int) -> Callable[[], object]:
    """One step of the model as transformers runs it, over a cache of random keys and values."""
    weights, shape = model.model, model.engine.shape
    generator = torch.Generator().manual_seed(seed)
    cache = DynamicCache()
    for index, layer in enumerate(shape.layers):
        size = (1, layer.kv_heads, length, layer.dims)
        cache.update(*(torch.randn(size, generator=generator).to(shape.dtype) for _ in range(2)), index)

    def step() -> object:
        with torch.inference_mode():
            return weights(input_ids=torch.tensor([[1]]), past_key_values=cache, use_cache=True).logits

    return step


def parse() -> Any:
    parser = parser_of(__doc__)
    parser.add_argument("--lengths", nargs="+", type=int, default=[4096, 8192, 16384, 32768])
    parser.add_argument("--policy", default="StreamingLLM(4, 1020)")
    parser.add_argument("--others", nargs="*", default=[], metavar="EXPRESSION")
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
