"""llmlingua 0.2.2 on one checkpoint: answers requests, one JSON object a line, until its input ends.

    <python with llmlingua> llmlingua_peer.py CHECKPOINT THREADS

A request is {"texts", "options"}, options being those of `compress_prompt_llmlingua2`; an answer {"wall", "cpu",
"text", "decisions"}: seconds of the call, and [word, kept] of every word where the options ask for labels. The
checkpoint's folder must be named as llmlingua tells models apart: it looks for "bert-base-multilingual-cased" or
"xlm-roberta-large" in it. TIKTOKEN_CACHE_DIR must hold cl100k: the constructor asks for it. Imports no ctxkit.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

WORD, LABEL = "\t\t|\t\t", " "


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints is no answer
    import torch
    from llmlingua import PromptCompressor

    torch.set_num_threads(int(sys.argv[2]))
    compressor = PromptCompressor(sys.argv[1], device_map="cpu", use_llmlingua2=True)
    for line in sys.stdin:
        answers.write(json.dumps(answer(compressor, json.loads(line))) + "\n")
        answers.flush()


def answer(compressor: Any, request: dict[str, Any]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = compressor.compress_prompt_llmlingua2(request["texts"], **request["options"])
    times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    labels = made.get("fn_labeled_original_prompt", "")
    pairs = [pair.rsplit(LABEL, 1) for pair in labels.split(WORD)] if labels else []
    return {**times, "text": made["compressed_prompt"], "decisions": [[word, int(kept)] for word, kept in pairs]}


if __name__ == "__main__":
    main()
