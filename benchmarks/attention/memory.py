"""Memory where half of the KV heads stream: the bytes of the pool, against full attention and against kvpress.

    python benchmarks/attention/memory.py [--tokens 32768] [--sinks 4] [--recent 252] [--peer] [--peer-tokens 4096]

The pages of a context of so many tokens, filled chunk by chunk as a prefill fills them, with every other KV head under
sinks and a window; nothing is computed. Bar: the pool's bytes fall at least 1.8 times. --peer: the bytes of the cache
that kvpress 0.5.5's DuoAttentionPress leaves with as many streaming heads, on the same weights (its own patterns come
from the network and know only larger models); it masks keys and keeps them, so 1.0 times is expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kvpress_process import Kvpress
from platformdirs import user_cache_dir
from subject import fill, model_of, parser_of, setting, write_json

from ctxkit.models.local import LocalModel
from ctxkit.models.local.adapter import ModelShape
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.policies.base import Policy, Reach
from ctxkit.models.prepare import resolve

BAR = 1.8
FULL, STREAMING = 0, 1


@dataclass(frozen=True)
class HalfStreaming(Policy):
    """Every other KV head sees the first tokens and the last ones only; the rest see everything."""

    sinks: int = 4
    recent: int = 252

    def plan(self, shape: ModelShape) -> np.ndarray:
        heads = np.arange(len(shape.layers) * shape.kv_heads).reshape(len(shape.layers), shape.kv_heads)
        return np.where(heads % 2, STREAMING, FULL)

    def reach(self, label: int) -> Reach | None:
        return Reach(self.sinks, self.recent) if label == STREAMING else None


def main() -> None:
    arguments = parse()
    model = model_of(arguments.model, dtype=arguments.dtype)
    print(setting(model), flush=True)
    half = HalfStreaming(arguments.sinks, arguments.recent)
    print("| at | tokens | allocated MB: full | half streaming | less | in use MB: full | half streaming | less |")
    print("|---|---|---|---|---|---|---|---|")
    full, less = (sizes(model, policy, arguments.tokens) for policy in (Policy(), half))
    ratios = [one / other for one, other in zip(full, less, strict=True)]
    cells = [
        f"{one / 1e6:.1f} | {other / 1e6:.1f} | {ratio:.2f}"
        for one, other, ratio in zip(full, less, ratios, strict=True)
    ]
    print(f"| ctxkit | {arguments.tokens:,} |", " | ".join(cells), "|", flush=True)
    result: dict[str, Any] = {"tokens": arguments.tokens, "full": full, "half": less, "ratios": ratios}
    if arguments.peer:
        result["kvpress"] = peer(model, arguments)
    print(f"allocated: {ratios[0]:.2f} times less, bar {BAR}: {'met' if ratios[0] >= BAR else 'MISSED'}")
    write_json(arguments.json, result)


def sizes(model: LocalModel, policy: Policy, tokens: int) -> tuple[int, int]:
    """Bytes that the pool has allocated, and those of pages in use, in an engine of its own."""
    engine = Engine(model.model, policy=policy)
    context = engine.new_context()
    fill(engine, context, tokens)
    found = engine.pool.allocated_bytes, engine.pool.used_bytes
    engine.close(context)
    return found


def peer(model: LocalModel, arguments: Any) -> dict[str, Any]:
    asked = {"tokens": arguments.peer_tokens, "streaming": 0.5, "sinks": arguments.sinks, "recent": arguments.recent}
    with Kvpress(arguments.venv, resolve(arguments.model, None), model.model.dtype) as process:
        found = process.ask({"memory": asked})
    if "error" in found:
        print(f"kvpress: {found['error']}")
        return found
    cells = f"{found['full'] / 1e6:.1f} | {found['streaming'] / 1e6:.1f} | {found['full'] / found['streaming']:.2f}"
    print(f"| kvpress DuoAttentionPress | {arguments.peer_tokens:,} | {cells} | - | - | - |")
    return found


def parse() -> Any:
    parser = parser_of(__doc__)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--recent", type=int, default=252)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--peer-tokens", type=int, default=4096, help="a peer reads its tokens, which takes time")
    parser.add_argument("--venv", type=Path, default=Path(user_cache_dir("ctxkit")) / "peers" / "kvpress")
    return parser.parse_args()


if __name__ == "__main__":
    main()
