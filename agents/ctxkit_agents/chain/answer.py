"""ChainAnswer: what a chain came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctxkit_agents.chain.evidence import Evidence, evidence_of
from ctxkit_agents.chain.manager import Answered
from ctxkit_agents.chain.source import Chunk, Source


@dataclass(frozen=True)
class ChainAnswer:
    """What a chain came to.

    text: the answer. unit: the notes that reached the manager. evidence: the quotes that it saw, in the order of the
    source, each found there. chunks: what the workers were given. workers: how many of them took notes.
    unread: chunks of which nothing is in the unit, because of an early exit or a worker that failed.
    peak_prompt_tokens: of the longest prompt. votes: what each chain answered, where several voted.
    """

    text: str
    unit: str
    evidence: tuple[Evidence, ...]
    chunks: tuple[Chunk, ...]
    workers: int
    unread: tuple[Chunk, ...]
    peak_prompt_tokens: int
    votes: tuple[str, ...] = ()


def chain_answer(
    answered: Answered, source: Source, chunks: Sequence[Chunk], *, unit: str, unread: Sequence[Chunk], peak_tokens: int
) -> ChainAnswer:
    """peak_tokens: of the workers' prompts."""
    return ChainAnswer(
        answered.text,
        unit,
        evidence_of(answered.quotes, source),
        tuple(chunks),
        len(chunks) - len(unread),
        tuple(unread),
        max(peak_tokens, answered.prompt_tokens),
    )
