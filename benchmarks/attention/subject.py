"""What the attention benchmarks measure on: a model with its engine, long texts, policies by their expressions."""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib
import json
import pkgutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from novels import NAMES, novel
from torch import Tensor

from ctxkit.models.catalog import DEFAULT_MODEL
from ctxkit.models.local import LocalModel, policies
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.look import Look
from ctxkit.models.local.policies.base import Kept, Policy, Reach
from ctxkit.testing.tiny import tiny_model

TINY = "tiny"


# --- the model --------------------------------------------------------------------------------------------------------


def model_of(name: str, *, dtype: str | None = None, window_tokens: int = 1 << 21) -> LocalModel:
    """A model by name or folder, its weights as stored unless a dtype is given.

    "tiny" is the random Llama of two layers in float32, whose window nothing here checks.
    """
    if name == TINY:
        return tiny_model(window_tokens=window_tokens)
    return LocalModel.load(name, dtype=dtype)


def ids_of(model: LocalModel, text: str) -> list[int]:
    return model.counter.tokenizer.encode(text, add_special_tokens=False).ids


def text_of(source: str) -> str:
    """A novel's name, or a file."""
    return novel(source) if source in NAMES else Path(source).read_text(encoding="utf-8")


def repeated(ids: Sequence[int], tokens: int) -> list[int]:
    """The first `tokens` ids of a text that begins again where it ends."""
    return [ids[at % len(ids)] for at in range(tokens)]


@torch.inference_mode()
def fill(engine: Engine, context: KVContext, tokens: int, seed: int = 0) -> None:
    """Makes a context as if it had read `tokens` tokens: random keys and values, nothing computed.

    Chunks are those of a prefill, and the policy drops after each what it drops after a pass.
    """
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, tokens, engine.prefill_tokens):
        chunk = min(engine.prefill_tokens, tokens - start)
        for low, high in context.passes(chunk):
            places = context.extend(high - low)
            for track, place in zip(context.tracks, places, strict=True):
                named = torch.from_numpy(track.pages[:, place.slots].astype(np.int64))
                dims = context.pool.pages.keys.shape[-1], context.pool.pages.values.shape[-1]
                keys, values = (torch.randn(*named.shape, size, generator=generator) for size in dims)
                context.pool.write(named, torch.from_numpy(place.offsets), keys, values)
            context.commit([0] * (high - low))
            context.settle("step")


def log_probability(logits: Tensor, token: int) -> float:
    return float(logits.log_softmax(-1)[token])


# --- policies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomSelection(Policy):
    """Sinks, the last tokens and others drawn anew for each layer and pass: what a selection has to beat.

    Deterministic: the draw depends on the seed, the layer and the position.
    """

    sinks: int = 4
    recent: int = 128
    chosen: int = 256
    seed: int = 0
    keeps_all = True

    def reach(self, label: int) -> Reach:
        return Reach(self.sinks, self.recent)

    def select(self, look: Look) -> Tensor:
        count = len(look.positions)
        rng = np.random.default_rng((self.seed, look.layer, look.first_query))
        drawn = rng.choice(count, min(self.chosen, count), replace=False)
        return torch.from_numpy(np.sort(drawn).astype(np.int64))[None]


@dataclass(frozen=True)
class RandomRetention(Policy):
    """After the prompt: sinks, the last tokens and others drawn once stay; what a retention has to beat."""

    sinks: int = 4
    recent: int = 128
    chosen: int = 256
    seed: int = 0

    def retain(self, kept: Kept) -> np.ndarray | None:
        if kept.moment != "prompt":
            return None
        mask = (kept.positions < self.sinks) | (kept.positions >= kept.length - self.recent)
        others = np.flatnonzero(~mask)
        rng = np.random.default_rng((self.seed, kept.length))
        mask[rng.choice(others, min(self.chosen, len(others)), replace=False)] = True
        return mask


def known_policies() -> dict[str, type[Policy]]:
    """Every policy of the package's folder by its class's name, and this module's; `Full` is full attention."""
    modules = [
        importlib.import_module(f"{policies.__name__}.{one.name}") for one in pkgutil.iter_modules(policies.__path__)
    ]
    found = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Policy) and not name.startswith("_")
    }
    return {"Full": Policy, **found, "RandomSelection": RandomSelection, "RandomRetention": RandomRetention}


def policy_of(expression: str) -> Policy:
    """`StreamingLLM(4, 1020) | ZeroTuning(0.5)`: names of `known_policies`, literals and `|`; nothing is evaluated."""
    return _policy(ast.parse(expression, mode="eval").body, known_policies())


def _policy(node: ast.expr, known: dict[str, type[Policy]]) -> Policy:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _policy(node.left, known) | _policy(node.right, known)
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in known:
        raise SystemExit(f"no policy: {ast.unparse(node)!r}; known are {', '.join(sorted(known))}")
    given = {word.arg: _argument(word.value, known) for word in node.keywords if word.arg}
    return known[node.func.id](*(_argument(value, known) for value in node.args), **given)


def _argument(node: ast.expr, known: dict[str, type[Policy]]) -> Any:
    """A literal, or a policy inside a policy."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _policy(node, known)


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Seconds of this process, by the wall and by the CPU."""

    wall: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Clock]]:
    """Each call once unmeasured, then `rounds` times in turn, so that a busy machine is busy for all of them."""
    found: dict[str, list[Clock]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            clock = Clock()
            with clock.running():
                call()
            if number:
                found[name].append(clock)
    return found


def median_ms(clocks: Sequence[Clock], kind: str = "wall") -> float:
    return 1000 * statistics.median(getattr(clock, kind) for clock in clocks)


def paired_ratio(one: Sequence[Clock], other: Sequence[Clock], kind: str = "wall") -> float:
    """The median over rounds of one's time to the other's in the same round."""
    return statistics.median(getattr(a, kind) / getattr(b, kind) for a, b in zip(one, other, strict=True))


def fingerprint(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]


def write_json(path: Path | None, result: Any) -> None:
    """Only where the user asked for it."""
    if path:
        path.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """With the arguments that all attention benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"a name, a folder, or {TINY!r}")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the weights; as stored by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def setting(model: LocalModel) -> str:
    kernels = model.engine.kernels.name
    return f"{model!r}, kernels {kernels!r}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def row_of(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
