"""A small model drafts five tokens at a time, and a large one judges them in one pass, leniently.

Here one model plays both parts, so every draft holds and the large one runs once for six tokens.

python examples/agents/token_collaboration.py
"""

from __future__ import annotations

from typing import Any

from ctxkit import Sampling
from ctxkit.context import Limits
from ctxkit.protocols import Model
from ctxkit_agents.collaboration.routers import Always
from ctxkit_agents.collaboration.speculate import Lenient, Speculate
from ctxkit_agents.collaboration.token_collaboration import TokenCollaboration
from ctxkit_agents.runtime.task import Outcome


def main(model: Model) -> Outcome[Any]:
    method = TokenCollaboration(
        small=model,
        large=model,
        router=Always(),
        combine=Speculate(draft=5, accept=Lenient(ratio=0.3)),
        sampling=Sampling(max_tokens=18),
    )
    outcome = method.task("Name three rivers.").run(paid_by=Limits(tokens=1_000))
    answer = outcome.value
    print(answer.table())
    print(
        f"\n{answer.text!r}\nthe large model ran {answer.helper.passes} times for {method.sampling.max_tokens} tokens\n"
    )
    print(outcome.trace)
    return outcome


if __name__ == "__main__":
    from ctxkit.models.local import LocalModel

    main(LocalModel.load())
