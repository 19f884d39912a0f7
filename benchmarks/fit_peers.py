"""ctxkit's `fit_messages` beside the libraries that trim conversations: same inputs, one judge, one run.

    python benchmarks/fit_peers.py                     # all peers: chats, agent loops, and time over the length
    python benchmarks/fit_peers.py --quick             # a few cases, no long chats: does it run
    python benchmarks/fit_peers.py --peers ctxkit langchain --cases 10 --lengths 2000 --sweep-budget 40000

At first use it makes a virtual environment per peer under --venvs and installs the pinned version there (pip, network).
Every peer runs in a process of its own, on the cases of a file; the time is of its call only, after a warm-up. All
answers are then judged by one rule (`benchmarks/peers/rule.py`: tiktoken's o200k):

over        more real tokens than the budget
invalid     a tool result without its call, a call without its result, or the last message is no user's or tool's
task lost   the first user message of an agent loop, or the last one of a chat, is not there word for word
system lost the same of the system message
clean       none of these
used        mean share of the budget that is used, where the answer fits and is valid
refused     said that no prompt is possible; error: raised, or took too long. Shares of all cases, the others of answers
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from conversations import Conversation, make, short_chat
from peers.environments import ADAPTERS, O200K, Environments, run
from platformdirs import user_cache_dir

SHARES = (0.15, 0.40, 0.70)  # of the history's tokens
LENGTHS = (500, 1000, 2000, 4000, 8000, 16000)
METHODS = {
    "ctxkit": ("fit",),
    "baseline": ("baseline",),
    "langchain": ("default", "recommended", "approximate"),
    "llama_index": ("buffer", "memory"),
    "haystack": ("window",),
    "agent_framework": ("composed", "keep-task"),
    "llmslim": ("planner",),
}


@dataclass(frozen=True)
class Case:
    """budget: tokens. task: the text that must survive, word for word."""

    id: str
    messages: Conversation
    budget: int
    task: str


# --- running ----------------------------------------------------------------------------------------------------------


class Runner:
    def __init__(self, environments: Environments, folder: Path, case_seconds: float, peer_seconds: float) -> None:
        self.environments, self.folder = environments, folder
        self.case_seconds, self.peer_seconds = case_seconds, peer_seconds

    def count(self, lists: Sequence[Conversation]) -> list[int]:
        """Tokens of each by the judge."""
        given, counts = self.folder / "lists.json", self.folder / "counts.json"
        given.write_text(json.dumps(lists), encoding="utf-8")
        python = self.environments.python("baseline")
        run([python, ADAPTERS / "rule.py", given, counts], env=self.environments.environment())
        return json.loads(counts.read_text(encoding="utf-8"))

    def answers(self, peer: str, method: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
        """Case id -> what the method did with it. Cases that it had no time for are missing."""
        given, out = self.folder / "cases.json", self.folder / "answers.jsonl"
        rows = [{"id": case.id, "messages": case.messages, "budget": case.budget} for case in cases]
        given.write_text(json.dumps(rows), encoding="utf-8")
        out.write_text("", encoding="utf-8")
        adapter = ADAPTERS / f"{peer}_peer.py"
        command = [self.environments.python(peer), adapter, method, given, out, self.case_seconds]
        try:
            run(command, env=self.environments.environment(), timeout=self.peer_seconds)
        except subprocess.TimeoutExpired:
            print(f"{peer} {method}: stopped after {self.peer_seconds:.0f} s", file=sys.stderr)
        except SystemExit as failure:
            print(f"{peer} {method}: {str(failure).strip().splitlines()[-1]}", file=sys.stderr)
        lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
        answers = [json.loads(line) for line in lines if line.endswith("\n")]
        return {answer["id"]: answer for answer in answers}


# --- judging ----------------------------------------------------------------------------------------------------------


def is_valid(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Every call is answered before the next message that is no result, every result has its call, and it is the
    model's turn."""
    if not messages or messages[-1]["role"] not in ("user", "tool"):
        return False
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message.get("tool_call_id") not in waiting:
                return False
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            return False
        waiting = {call["id"] for call in message.get("tool_calls") or ()}
    return not waiting


def scored(case: Case, answer: Mapping[str, Any], tokens: int) -> dict[str, float]:
    """What is wrong with one answer, 1.0 or 0.0 each, and the share of the budget it uses."""
    kept = answer["messages"]
    system = [one["content"] for one in case.messages if one["role"] == "system"]
    faults = {
        "over": tokens > case.budget,
        "invalid": not is_valid(kept),
        "task lost": case.task not in texts(kept, "user"),
        "system lost": not all(text in texts(kept, "system") for text in system),
    }
    used = tokens / case.budget if not faults["over"] and not faults["invalid"] else float("nan")
    return {
        **{name: float(fault) for name, fault in faults.items()},
        "clean": float(not any(faults.values())),
        "used": used,
    }


def texts(messages: Iterable[Mapping[str, Any]], role: str) -> str:
    return "\n".join(str(message["content"]) for message in messages if message["role"] == role)


def judged(runner: Runner, cases: Sequence[Case], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One row of the table; shares in percent."""
    answered = [case for case in cases if "messages" in answers.get(case.id, {})]
    counts = runner.count([answers[case.id]["messages"] for case in answered]) if answered else []
    scores = [scored(case, answers[case.id], tokens) for case, tokens in zip(answered, counts, strict=True)]
    row: dict[str, Any] = {"cases": len(answers)}
    for name in ("over", "invalid", "task lost", "system lost", "clean"):
        row[name] = percent(score[name] for score in scores)
    row["used"] = mean([score["used"] for score in scores if score["used"] == score["used"]])
    row["refused"] = percent("refused" in answer for answer in answers.values())
    row["error"] = percent("error" in answer for answer in answers.values())
    times = [answers[case.id]["ms"] for case in answered]
    row["ms"], row["median ms"] = mean(times), median(times) if times else None
    row["errors"] = sorted({answer["error"] for answer in answers.values() if "error" in answer})[:3]
    return row


def mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def percent(flags: Iterable[float | bool]) -> float | None:
    values = [float(flag) for flag in flags]
    return 100 * fmean(values) if values else None


# --- cases ------------------------------------------------------------------------------------------------------------


def cases_of(runner: Runner, kind: str, count: int, seed: int) -> list[Case]:
    """Each conversation at each share of its tokens, ordered so that no two neighbours are the same conversation."""
    conversations = make(kind, count, seed)
    sizes = runner.count(conversations)
    return [
        Case(f"{kind}-{n}-{share}", conversation, int(size * share), task_of(kind, conversation))
        for share in SHARES
        for n, (conversation, size) in enumerate(zip(conversations, sizes, strict=True))
    ]


def task_of(kind: str, conversation: Conversation) -> str:
    users = [message["content"] for message in conversation if message["role"] == "user"]
    return users[0] if kind == "loops" else users[-1]


def sweep(lengths: Sequence[int], budget: int) -> list[Case]:
    return [Case(str(length), short_chat(length), budget, "") for length in lengths]


# --- report -----------------------------------------------------------------------------------------------------------

COLUMNS = (
    "cases",
    "over",
    "invalid",
    "task lost",
    "system lost",
    "clean",
    "used",
    "refused",
    "error",
    "ms",
    "median ms",
)


def quality_table(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield f"{'':28}" + "".join(f"{name:>12}" for name in COLUMNS)
    for name, row in rows.items():
        yield f"{name:28}" + "".join(f"{shown(column, row[column]):>12}" for column in COLUMNS)
        yield from (f"{'':30}{error[:110]}" for error in row["errors"])


def shown(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    if column == "cases":
        return str(value)
    return f"{value:.3f}" if column == "used" else f"{value:.1f}"


def speed_table(rows: Mapping[str, Mapping[str, str]], lengths: Sequence[int]) -> Iterator[str]:
    yield f"{'messages':28}" + "".join(f"{length:>10,}" for length in lengths)
    for name, row in rows.items():
        yield f"{name:28}" + "".join(f"{row[str(length)]:>10}" for length in lengths)


def speeds(answers: Mapping[str, Mapping[str, Any]], cases: Sequence[Case], limit: float) -> dict[str, str]:
    """Length -> seconds, or why there are none."""
    return {case.id: speed(answers.get(case.id), limit) for case in cases}


def speed(answer: Mapping[str, Any] | None, limit: float) -> str:
    if answer is None:
        return "-"
    if answer.get("error") == "timeout":
        return f">{limit:.0f} s"
    if "error" in answer or "refused" in answer:
        return "refused" if "refused" in answer else "error"
    return f"{answer['ms'] / 1000:.3f} s"


def timed(runner: Runner, peer: str, method: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """One length after the other, each in a process of its own, until one takes too long."""
    answers: dict[str, dict[str, Any]] = {}
    for case in cases:
        answer = runner.answers(peer, method, [case]).get(case.id, {"error": "no answer"})
        answers[case.id] = answer
        if answer.get("error") == "timeout":
            later = cases[cases.index(case) + 1 :]
            return {**answers, **{rest.id: {"error": "timeout"} for rest in later}}
    return answers


def counter_check(runner: Runner, cases: Sequence[Case]) -> str:
    """Whether the counter that ctxkit plans with counts as the judge does."""
    try:
        from ctxkit.tokens import OpenAIChatCounter, messages_from_dicts
    except ImportError as error:
        return f"counter: not checked ({error})"
    counter = OpenAIChatCounter.from_ranks(runner.environments.ranks / O200K, pattern="o200k")
    lists = [case.messages for case in cases]
    pairs = [
        (counter.render(messages_from_dicts(messages)).tokens, judge)
        for messages, judge in zip(lists, runner.count(lists), strict=True)
    ]
    return f"counter: {verdict(pairs)}"


def verdict(pairs: Sequence[tuple[int, int]]) -> str:
    """Of (ctxkit's, the judge's) counts."""
    wrong = [(mine, judge) for mine, judge in pairs if mine != judge]
    if not wrong:
        return f"ctxkit counts {len(pairs)} conversations as the judge does"
    more = 100 * (sum(mine for mine, _ in pairs) / sum(judge for _, judge in pairs) - 1)
    below = sum(mine < judge for mine, judge in wrong)
    return (
        f"ctxkit's differs from the judge's in {len(wrong)} of {len(pairs)} conversations, {more:+.2f} % in all, "
        f"{below} times below; first (ctxkit, judge): {wrong[0]}"
    )


# --- the command ------------------------------------------------------------------------------------------------------


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=25, help="conversations of each kind; each at three budgets")
    parser.add_argument("--peers", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--kinds", nargs="*", choices=("chats", "loops"), default=["chats", "loops"])
    parser.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS), help="messages of the chats timed")
    parser.add_argument("--sweep-budget", type=int, default=3000, help="tokens that the long chats are cut to")
    parser.add_argument("--quick", action="store_true", help="2 conversations of each kind, 500 messages at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case-seconds", type=float, default=60, help="one call may take so long")
    parser.add_argument("--peer-seconds", type=float, default=900, help="one method may take so long for one kind")
    parser.add_argument("--venvs", type=Path, default=Path(user_cache_dir("ctxkit")) / "peers")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.cases, arguments.lengths = 2, [500]
    return arguments


def main() -> None:
    arguments = parse()
    environments = Environments(arguments.venvs)
    environments.prepare(arguments.peers)
    methods = [(peer, method) for peer in arguments.peers for method in METHODS[peer]]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(environments, Path(folder), arguments.case_seconds, arguments.peer_seconds)
        for kind in arguments.kinds:
            found[kind] = compare(runner, kind, cases_of(runner, kind, arguments.cases, arguments.seed), methods)
        if arguments.lengths:
            found["speed"] = race(runner, sweep(arguments.lengths, arguments.sweep_budget), methods)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def compare(runner: Runner, kind: str, cases: Sequence[Case], methods: Sequence[tuple[str, str]]) -> dict[str, Any]:
    print(f"\n{kind}: {len(cases)} cases, budgets of {', '.join(f'{share:.0%}' for share in SHARES)} of the history")
    print(counter_check(runner, cases), flush=True)
    rows = {f"{peer} {method}": judged(runner, cases, runner.answers(peer, method, cases)) for peer, method in methods}
    print("\n".join(quality_table(rows)), flush=True)
    return rows


def race(runner: Runner, cases: Sequence[Case], methods: Sequence[tuple[str, str]]) -> dict[str, Any]:
    print(f"\nseconds to cut a chat of short messages to {cases[0].budget:,} tokens")
    rows = {
        f"{peer} {method}": speeds(timed(runner, peer, method, cases), cases, runner.case_seconds)
        for peer, method in methods
    }
    print("\n".join(speed_table(rows, [int(case.id) for case in cases])), flush=True)
    return rows


if __name__ == "__main__":
    main()
