"""ChainOfAgents on meetings: how much of what a question needs reaches the manager, and what that costs.

    python benchmarks/agents/chain.py [DATA_FOLDER] [--evidence 500 1000 2000 4000] [--meetings 35] [--json]
    python benchmarks/agents/chain.py --local 1 --questions 1 --source-tokens 2000

Data: QMSum (arXiv 2104.05938), the validation set: 35 meetings, 237 specific questions, each with the ranges of turns
that answer it. Tokens are those of SmolLM2, of the transcripts with their speakers.

    touched   share of the gold ranges of which the final evidence has at least a sentence
    tokens    mean over the gold ranges of the share of their tokens that is in the evidence
    source    share of the meeting's tokens that the evidence may take

`chain` is ChainOfAgents with the ExtractiveWorker, its evidence as the manager saw it, one turn a Part. `bm25` is whole
turns by BM25, the best first, as long as they fit, in as many tokens; `head` the first turns. The manager is a model
that says one word, so nothing is said here about answers. The worker's two numbers were chosen on these very meetings,
by hand, among nine pairs.

The second table is what a chain of models costs: workers of the same window that nearly fill their units and quote
one sentence each. `units` are all notes and quotes, counted when they are written and again when they are read.

--local: so many meetings with the embedded SmolLM2-135M as workers and manager, --source-tokens of each from shortly
before what answers; the quotes are an extractor's.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ctxkit.compression.text.score import relevance
from ctxkit.context import Part, turn
from ctxkit.models import resolve
from ctxkit.models.requests import Request
from ctxkit.protocols import Counter
from ctxkit.testing import ScriptedModel
from ctxkit.tokens import TemplateCounter
from ctxkit_agents.chain_of_agents import ChainAnswer, ChainOfAgents, ExtractiveWorker

WINDOW = 8192


@dataclass(frozen=True)
class Meeting:
    turns: list[Part]
    questions: list[tuple[str, list[range]]]


@dataclass
class Row:
    """Sums over gold ranges."""

    touched: int = 0
    share: float = 0.0
    ranges: int = 0

    def add(self, kept: Mapping[int, int], gold: Sequence[range], sizes: Sequence[int]) -> None:
        """kept: tokens of each turn that are in the evidence."""
        for turns in gold:
            whole = sum(sizes[i] for i in turns) or 1
            self.touched += any(i in kept for i in turns)
            self.share += sum(min(kept.get(i, 0), sizes[i]) for i in turns) / whole
            self.ranges += 1

    def to_dict(self) -> dict[str, Any]:
        return {"touched": self.touched / self.ranges, "tokens": self.share / self.ranges, "ranges": self.ranges}


def main() -> None:
    arguments = parse()
    counter = TemplateCounter.from_folder(resolve("smollm2-135m-instruct"))
    meetings = list(islice(read(arguments.data / "qmsum" / "val.jsonl"), arguments.meetings))
    if arguments.local:
        report = local(meetings[: arguments.local], counter, arguments)
    else:
        report = {"evidence": evidence(meetings, counter, arguments.evidence), "cost": cost(meetings, counter)}
    print(json.dumps(report, indent=2) if arguments.json else as_text(report))


def parse() -> argparse.Namespace:
    default = Path(os.environ.get("CTXKIT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=default)
    parser.add_argument("--evidence", type=int, nargs="+", default=[500, 1000, 2000, 4000], help="tokens")
    parser.add_argument("--meetings", type=int, default=None, help="only the first")
    parser.add_argument("--local", type=int, default=0, metavar="MEETINGS")
    parser.add_argument("--questions", type=int, default=1, help="of each meeting, with --local")
    parser.add_argument("--source-tokens", type=int, default=2000, help="of each meeting, with --local")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def read(path: Path) -> Iterator[Meeting]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        turns = [
            turn("user", one["content"], id=str(i), name=one["speaker"])
            for i, one in enumerate(row["meeting_transcripts"])
        ]
        questions = [
            (one["query"], [range(int(first), int(last) + 1) for first, last in one["relevant_text_span"]])
            for one in row["specific_query_list"]
        ]
        yield Meeting(turns, questions)


def sizes_of(meeting: Meeting, counter: Counter) -> list[int]:
    return counter.count_batch([part.content for part in meeting.turns])


def evidence(meetings: Sequence[Meeting], counter: Counter, budgets: Sequence[int]) -> dict[str, Any]:
    """Per budget and method: how much of the gold turns is there."""
    found: dict[str, Any] = {}
    for tokens in budgets:
        rows = {name: Row() for name in ("chain", "bm25", "head")}
        peak, share, used = 0, 0.0, 0
        for meeting in meetings:
            sizes = sizes_of(meeting, counter)
            for question, gold in meeting.questions:
                answer, spent = extracted(meeting, question, tokens, counter)
                kept = in_turns(answer, counter)
                rows["chain"].add(kept, gold, sizes)
                rows["bm25"].add(best_turns(meeting, question, sizes, tokens), gold, sizes)
                rows["head"].add(filled(range(len(sizes)), sizes, tokens), gold, sizes)
                peak, used = max(peak, answer.peak_prompt_tokens), used + spent
                share += min(1.0, tokens / sum(sizes))
        questions = sum(len(meeting.questions) for meeting in meetings)
        found[str(tokens)] = {name: row.to_dict() for name, row in rows.items()} | {
            "source": share / questions,
            "peak_prompt_tokens": peak,
            "spent_tokens": used / questions,
        }
    return found


def extracted(meeting: Meeting, question: str, tokens: int, counter: Counter) -> tuple[ChainAnswer, int]:
    manager = ScriptedModel(["Yes."], counter=counter, window_tokens=WINDOW)
    method = ChainOfAgents(ExtractiveWorker(), manager=manager, evidence_tokens=tokens, answer_tokens=64)
    outcome = method.task(meeting.turns, question=question).run()
    return outcome.value, outcome.spent.tokens


def in_turns(answer: ChainAnswer, counter: Counter) -> dict[int, int]:
    """Tokens of the evidence in each turn."""
    kept: dict[int, int] = {}
    for one, tokens in zip(answer.evidence, counter.count_batch([one.text for one in answer.evidence]), strict=True):
        kept[int(one.source)] = kept.get(int(one.source), 0) + tokens
    return kept


def best_turns(meeting: Meeting, question: str, sizes: Sequence[int], tokens: int) -> dict[int, int]:
    scores = relevance([part.content for part in meeting.turns], question)
    return filled(sorted(range(len(sizes)), key=lambda i: (-scores[i], i)), sizes, tokens)


def filled(order: Sequence[int], sizes: Sequence[int], tokens: int) -> dict[int, int]:
    kept: dict[int, int] = {}
    for i in order:
        if sizes[i] <= tokens:
            kept[i] = sizes[i]
            tokens -= sizes[i]
    return kept


def cost(meetings: Sequence[Meeting], counter: Counter) -> dict[str, Any]:
    """Of the first question of each meeting, with workers that write as much as they may."""
    spent = source = units = peak = calls = 0
    for meeting in meetings:
        model = ScriptedModel(verbose, counter=counter, window_tokens=WINDOW)
        outcome = ChainOfAgents(model).task(meeting.turns, question=meeting.questions[0][0]).run()
        spent, calls = spent + outcome.spent.tokens, calls + outcome.spent.calls
        peak = max(peak, outcome.value.peak_prompt_tokens)
        source += sum(chunk.tokens for chunk in outcome.value.chunks)
        *written, _ = [message.tokens_out for message in outcome.trace.messages]
        units += 2 * sum(written)
    return {
        "source_tokens": source,
        "units_tokens": units,
        "spent_tokens": spent,
        "calls": calls,
        "peak_prompt_tokens": peak,
        "beyond_units": (spent - units) / source,
    }


def verbose(request: Request) -> str:
    """About 1,100 tokens of notes and a quote; the manager says one word."""
    if "This piece:" not in request.messages[-1].content:
        return "Yes."
    piece = request.messages[-1].content.split("This piece:\n")[1]
    return " ".join(f"note{i}" for i in range(300)) + f'\nEVIDENCE: "{piece.splitlines()[1][:200]}"'


def local(meetings: Sequence[Meeting], counter: Counter, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the embedded model makes of slices of meetings: units, quotes and what was done worse."""
    from ctxkit.models.local import LocalModel

    model = LocalModel.load()
    rows = []
    for meeting in meetings:
        sizes = sizes_of(meeting, counter)
        for question, gold in meeting.questions[: arguments.questions]:
            first = max(0, gold[0].start - 10)
            turns = meeting.turns[first:][: max(1, len(filled_in_order(sizes[first:], arguments.source_tokens)))]
            method = ChainOfAgents(
                model,
                worker_window_tokens=1400,
                unit_tokens=96,
                evidence_tokens=400,
                answer_tokens=64,
                retries=1,
                extractor=ExtractiveWorker(),
            )
            outcome = method.task(turns, question=question).run()
            value = outcome.value
            inside = {i for turns_ in gold for i in turns_} & {int(part.id) for part in turns}
            rows.append(
                {
                    "question": question,
                    "text": value.text,
                    "unit": value.unit,
                    "workers": f"{value.workers} of {len(value.chunks)}",
                    "quotes": len(value.evidence),
                    "gold_turns_in_slice": len(inside),
                    "gold_turns_quoted": len(inside & {int(one.source) for one in value.evidence}),
                    "peak_prompt_tokens": value.peak_prompt_tokens,
                    "source_tokens": sum(chunk.tokens for chunk in value.chunks),
                    "spent_tokens": outcome.spent.tokens,
                    "degraded": list(outcome.degraded),
                }
            )
    return {"local": rows}


def filled_in_order(sizes: Sequence[int], tokens: int) -> list[int]:
    """The first turns, up to the one that does not fit."""
    kept: list[int] = []
    for i, size in enumerate(sizes):
        tokens -= size
        if tokens < 0:
            break
        kept.append(i)
    return kept


def as_text(report: Mapping[str, Any]) -> str:
    if "local" in report:
        return "\n\n".join("\n".join(f"{key}: {value}" for key, value in row.items()) for row in report["local"])
    lines = [f"{'evidence':>8} {'source':>7} {'':>6} {'touched':>8} {'tokens':>7}"]
    for tokens, found in report["evidence"].items():
        rows = {name: row for name, row in found.items() if isinstance(row, dict)}
        for name, row in rows.items():
            lines.append(f"{tokens:>8} {found['source']:>7.3f} {name:>6} {row['touched']:>8.3f} {row['tokens']:>7.3f}")
        lines.append(
            f"{'':>8} peak prompt {found['peak_prompt_tokens']:,}, spent {found['spent_tokens']:,.0f} a question"
        )
    lines += ["", *(f"{key}: {value:,}" for key, value in report["cost"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
