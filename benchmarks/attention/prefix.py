"""Time to the first token of a second question about a document that was read already.

    python benchmarks/attention/prefix.py [--tokens 4096] [--questions 3] [--policies Full "StreamingLLM(4, 1020)"]

Fresh: document and question are read by a new context. Forked: the document was read once, and each question goes to a
fork of it. Cropped: one context reads document, question and a short answer, is cropped back to the document and reads
the next question. The three take turns for each question; their logits must agree. Bar: forked and cropped at least 10
times sooner than fresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from subject import Clock, ids_of, median_ms, model_of, paired_ratio, parser_of, policy_of, setting, text_of, write_json
from torch import Tensor

from ctxkit.models.local import LocalModel
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.policies.base import Policy

BAR = 10.0
ANSWER_TOKENS = 8
QUESTIONS = (
    "\nQuestion: Who is the heroine of this novel? Answer:",
    "\nQuestion: Where does her sister live? Answer:",
    "\nQuestion: What is the name of her governess? Answer:",
    "\nQuestion: Who wrote this novel? Answer:",
    "\nQuestion: How far away is London? Answer:",
)


class Fresh:
    """Reads document and question anew. The way that the others are compared with; a session can take their place."""

    def __init__(self, engine: Engine, policy: Policy, document: Sequence[int]) -> None:
        self.engine = engine
        self.policy = policy
        self.document = document

    def first_logits(self, question: Sequence[int]) -> Tensor:
        """Logits after the question, float32 [vocabulary]: what the first token is drawn from."""
        self.context = self.engine.new_context(self.policy)
        return self._read(self.context, [*self.document, *question])

    def answer(self, logits: Tensor) -> None:
        """Decodes a few tokens, as they come between two questions, and gets ready for the next one."""
        self.engine.close(self.context)

    def _read(self, context: KVContext, ids: Sequence[int]) -> Tensor:
        logits = self.engine.prefill(ids, context)
        if logits is None:
            raise ValueError("this prefill was stopped")
        return logits

    def _decode(self, context: KVContext, logits: Tensor) -> None:
        for _ in range(ANSWER_TOKENS):
            logits = self.engine.step([context], [int(logits.argmax())])[0]


class Forked(Fresh):
    """The document is read once; each question goes to a fork of it."""

    def __init__(self, engine: Engine, policy: Policy, document: Sequence[int]) -> None:
        super().__init__(engine, policy, document)
        self.base = engine.new_context(policy)
        self._read(self.base, document)

    def first_logits(self, question: Sequence[int]) -> Tensor:
        self.context = self.base.fork()
        return self._read(self.context, question)

    def answer(self, logits: Tensor) -> None:
        self._decode(self.context, logits)
        self.engine.close(self.context)


class Cropped(Forked):
    """One context, cropped back to the document; where the policy has dropped of it by then, it is read anew."""

    def first_logits(self, question: Sequence[int]) -> Tensor:
        if not self.base.crop(len(self.document)):
            self.engine.close(self.base)
            self._read(self.base, self.document)
        return self._read(self.base, question)

    def answer(self, logits: Tensor) -> None:
        self._decode(self.base, logits)


WAYS: dict[str, type[Fresh]] = {"fresh": Fresh, "forked": Forked, "cropped": Cropped}


def main() -> None:
    arguments = parse()
    model = model_of(arguments.model, dtype=arguments.dtype)
    document = ids_of(model, text_of(arguments.text)[: 8 * arguments.tokens])[: arguments.tokens]
    print(f"{len(document):,} tokens of {arguments.text}; {setting(model)}", flush=True)
    print("| policy | way | first token ms | CPU | times sooner (CPU) | logits from fresh's, relative |")
    print("|---|---|---|---|---|---|", flush=True)
    rows = [row for name in arguments.policies for row in measured(model, name, document, arguments)]
    least = min(row["sooner"] for row in rows if row["policy"] == arguments.policies[0])
    print(f"{arguments.policies[0]}: at least {least:.1f}x, bar {BAR}x: {'met' if least >= BAR else 'MISSED'}")
    write_json(arguments.json, rows)


def measured(model: LocalModel, name: str, document: Sequence[int], arguments: Any) -> Iterator[dict[str, Any]]:
    ways = {way: kind(model.engine, policy_of(name), document) for way, kind in WAYS.items()}
    clocks: dict[str, list[Clock]] = {way: [] for way in ways}
    apart: dict[str, float] = dict.fromkeys(ways, 0.0)
    for number in range(arguments.questions + 1):
        question = ids_of(model, QUESTIONS[number % len(QUESTIONS)])
        first: Tensor | None = None
        for way, one in ways.items():
            clock = Clock()
            with clock.running():
                logits = one.first_logits(question)
            one.answer(logits)
            first = logits if first is None else first
            apart[way] = max(apart[way], float((logits - first).norm() / first.norm()))
            if number:  # the first question is not the second
                clocks[way].append(clock)
    for way, own in clocks.items():
        sooner, cpu = (paired_ratio(clocks["fresh"], own, kind) for kind in ("wall", "cpu"))
        times = median_ms(own), median_ms(own, "cpu")
        print(
            f"| {name} | {way} | {times[0]:.0f} | {times[1]:.0f} | {sooner:.1f} ({cpu:.1f}) | {apart[way]:.1e} |",
            flush=True,
        )
        if way != "fresh":
            yield {"policy": name, "way": way, "ms": times[0], "cpu_ms": times[1], "sooner": sooner, "sooner_cpu": cpu}


def parse() -> Any:
    parser = parser_of(__doc__)
    parser.add_argument("--text", default="emma", help="a novel or a file")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--questions", type=int, default=3)
    parser.add_argument("--policies", nargs="+", default=["Full", "StreamingLLM(4, 1020)"], metavar="EXPRESSION")
    return parser.parse_args()


if __name__ == "__main__":
    main()
