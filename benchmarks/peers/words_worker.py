"""ctxkit's word compressors on one checkpoint: answers requests, one JSON object a line, until its input ends.

    python words_worker.py METHOD CHECKPOINT THREADS

A request is {"texts", "options": {"rate"}}; an answer {"wall", "cpu", "scoring_cpu", "text", "scores"}: seconds of
`compress` and of its scores alone, and the score of every word. The counter is new for each request. CTXKIT_CL100K
names the cl100k rank file. A method is one line of METHODS.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ctxkit.compression.facts import FactWords
from ctxkit.compression.llmlingua2 import LLMLingua2
from ctxkit.compression.prepared import compress
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor
from ctxkit.tokens import OpenAIChatCounter

plain = partial(LLMLingua2, pins=None, structured=False)
METHODS: dict[str, Callable[[str, int], WordCompressor]] = {
    "float32": lambda folder, threads: plain(folder, threads=threads),
    "float32, windows of 256": lambda folder, threads: plain(folder, threads=threads, window_tokens=256),
    "bfloat16": lambda folder, threads: plain(folder, threads=threads, precision="bfloat16"),
    "int8": lambda folder, threads: plain(folder, threads=threads, precision="int8"),
    "facts": lambda folder, threads: FactWords(pins=None, structured=False),  # its own model, whatever the checkpoint
    "int8, windows of 256": lambda folder, threads: plain(folder, threads=threads, precision="int8", window_tokens=256),
}


@dataclass(frozen=True)
class Timed(WordCompressor):
    """Another one, which notes what its scores cost and are."""

    inner: WordCompressor
    notes: dict[str, Any]

    @property
    def name(self) -> str:
        return self.inner.name

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        started = time.process_time()
        found = self.inner.scores(texts, question)
        self.notes.update(scoring_cpu=time.process_time() - started, scores=found)
        return found


def main() -> None:
    torch.set_num_threads(int(sys.argv[3]))
    compressor = METHODS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    compressor.scores([Words.of("Load it.")], "")
    for line in sys.stdin:
        print(json.dumps(answer(compressor, json.loads(line))), flush=True)


def answer(compressor: WordCompressor, request: dict[str, Any]) -> dict[str, Any]:
    counter = OpenAIChatCounter.from_ranks(os.environ["CTXKIT_CL100K"], pattern="cl100k")
    notes: dict[str, Any] = {}
    timed = Timed(compressor, notes, pins=None, structured=False)
    wall, cpu = time.perf_counter(), time.process_time()
    made = compress(request["texts"], timed, rate=request["options"]["rate"], counter=counter)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "text": made.text, **notes}


if __name__ == "__main__":
    main()
