"""What a step of decoding must read to find what full attention finds.

    python benchmarks/attention/selection.py [DATA_FOLDER] [--tokens 2048 4096] [--seeds 0] [--needles 5] [--dtype ...]

Numbers are hidden in a long text (noise, and the passages of xquad-en where the data folder is given) and asked for in
completion format, which SmolLM2 can answer. One prompt is read with full attention; from its last token on every method
decodes the same answer from a fork of the same context. `of full` is exp of the mean log-probability of the answer's
tokens less full attention's: 1 where nothing is lost. `bytes` are those read for attention per step, keys and values
seen and what the selection looked at, as a share of full attention's; what blocks are represented by is made before.
Paired: every row has the same prompts.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from needles import Haystack, Needle, haystack
from torch import Tensor

from ctxkit.models import LocalModel
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.look import Look
from ctxkit.models.local.policies.base import Observed, Policy
from ctxkit.models.local.policies.infllm import InfLLM
from ctxkit.models.local.policies.quest import Quest
from ctxkit.models.local.policies.recycled import Recycled
from ctxkit.models.local.policies.selector import Selector, every
from ctxkit.models.local.policies.streaming_llm import StreamingLLM
from ctxkit.models.local.policies.tidal_decode import TidalDecode
from ctxkit.models.local.policies.token_select import TokenSelect
from ctxkit.models.local.policies.two_stage import TwoStage


@dataclass(frozen=True)
class RandomTokens(Selector):
    """Any tokens, the same number in every layer."""

    keep_tokens: int
    sinks: int = 4
    recent: int = 32

    def choose(self, look: Look) -> Tensor:
        dice = np.random.default_rng((look.first_query, look.layer))
        chosen = dice.choice(len(look.positions), min(self.keep_tokens, len(look.positions)), replace=False)
        return torch.from_numpy(np.sort(chosen))[None]


WINDOW = {"sinks": 4, "recent": 32}
BLOCKS = InfLLM(blocks=8, block_tokens=32, **WINDOW)


def methods(tokens: int) -> dict[str, Policy]:
    """Those without a rate of their own read a tenth of full attention's bytes."""
    tenth = tokens // 10
    chosen = TokenSelect(64, **WINDOW, reuse_cosine=None)
    return {
        "full": Policy(),
        "sinks and window": StreamingLLM(4, tenth - 4),
        "random": RandomTokens(tenth - 36),
        "TokenSelect 64": chosen,
        "TokenSelect 64, packed": TokenSelect(64, **WINDOW, reuse_cosine=None, packed=True),
        "TokenSelect 64, cosine 0.9": TokenSelect(64, **WINDOW),
        "TokenSelect 64, pool 7, every 4": every(4, TokenSelect(64, **WINDOW, pool=7)),
        "Quest 256, page 16": Quest(256),
        "Quest 256, page 8": Quest(256, page=8),
        "InfLLM 8 x 32": BLOCKS,
        "InfLLM 8 x 32, by runs": InfLLM(blocks=8, block_tokens=32, **WINDOW, exact=False),
        "TidalDecode 256 (2, 13)": TidalDecode(256),
        "TidalDecode 256 (2, 17), pool 7": TidalDecode(256, select_layers=(2, 17), pool=7),
        "Recycled 256": Recycled(256),
        "TwoStage 32 of 128": TwoStage(32, **WINDOW, candidates=128),
        "TwoStage 32 of 64": TwoStage(32, **WINDOW, candidates=64),
        "TwoStage 64 of 256": TwoStage(64, **WINDOW, candidates=256),
        "TwoStage 32 of 128, 32 channels": TwoStage(32, **WINDOW, candidates=128, channels=32),
        "TwoStage 64 of 256, 8 channels": TwoStage(64, **WINDOW, candidates=256, channels=8),
    }


@dataclass(frozen=True)
class Reading(Policy):
    """Full attention that notes for InfLLM what it needs."""

    needs = frozenset({"attention"})

    def observe(self, seen: Observed) -> Tensor:
        return BLOCKS.observe(seen)


def main() -> None:
    arguments = parse()
    model = LocalModel.load(dtype=arguments.dtype)
    rails: dict[str, list[str]] = {"noise": []}
    if arguments.data:
        lines = (arguments.data / "xquad-en" / "corpus.jsonl").read_text().splitlines()
        rails["passages"] = [json.loads(line)["text"] for line in lines]
    for tokens in arguments.tokens:
        for rail, passages in rails.items():
            found = [
                row
                for seed in arguments.seeds
                for row in answers(model.engine, haystack(model.counter.tokenizer, tokens, seed, passages), arguments)
            ]
            report(f"{rail}, {tokens} tokens, {len(found)} questions", found)


Row = dict[str, tuple[float, int]]
"""Per method: the mean log-probability of the answer's tokens, and the bytes read per step."""


def answers(engine: Engine, hay: Haystack, arguments: argparse.Namespace) -> Iterator[Row]:
    text = engine.new_context(Reading())
    engine.prefill(hay.text, text)
    for needle in hay.needles[: arguments.needles]:
        asked = text.fork()
        engine.prefill(needle.question[:-1], asked)
        policies = methods(len(asked))
        wanted = [name for name in policies if arguments.only is None or name in ("full", *arguments.only)]
        yield {name: answered(engine, asked, policies[name], needle) for name in wanted}
        engine.close(asked)
    engine.close(text)


def answered(engine: Engine, asked: KVContext, policy: Policy, needle: Needle) -> tuple[float, int]:
    context = asked.fork()
    context.policy = policy  # all of these keep what full attention keeps, in one track
    represent(engine, context, needle.question[-1])
    costs = []
    for token, right in zip([needle.question[-1], *needle.answer], needle.answer, strict=False):
        costs.append(float(engine.step([context], [token])[0].log_softmax(-1)[right]))
    read = context.bytes_touched // len(costs)
    engine.close(context)
    return sum(costs) / len(costs), read


def represent(engine: Engine, context: KVContext, token: int) -> None:
    """Has what pages show to a selection made beforehand, as it would be while the prompt was read."""
    other = context.fork()
    engine.step([other], [token])
    for key, state in other.states.items():
        if "summaries" in state:
            context.states[key] = {"summaries": state["summaries"]}
    engine.close(other)


def report(title: str, rows: Sequence[Row]) -> None:
    print(f"\n{title}\n\n| method | log-probability | of full | bytes |\n|---|---|---|---|")
    mean = {name: np.mean([row[name] for row in rows], axis=0) for name in rows[0]}
    full, most = mean["full"]
    for name, (cost, read) in mean.items():
        print(f"| {name} | {cost:.3f} | {math.exp(cost - full):.3f} | {read / most:.4f} |", flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--needles", type=int, default=5)
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--only", nargs="+", help="methods, besides full attention")
    return parser.parse_args()


if __name__ == "__main__":
    main()
