"""QuestionRouter: with a question the sentences that answer it, without one the words that say most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctxkit.compression.baselines import RareWords
from ctxkit.compression.by_question.selector import SentenceSelector
from ctxkit.compression.sources.cut import Source
from ctxkit.compression.text_compressor import TextCompressor, WordCompressor
from ctxkit.context.group import Group
from ctxkit.context.level import Level, LevelRequest
from ctxkit.protocols import Encoder


@dataclass(frozen=True)
class QuestionRouter(TextCompressor):
    """Asks `asked` where the request has a question, `unasked` where it has none. Levels are called as theirs.

    Where there is a question, the answer survives in 45 of 100 passages more than when the head or any words are kept
    that do not know it, at 20 % of the tokens; at 70 % in 18 more (`benchmarks/answer_in_context.py`).
    """

    asked: TextCompressor
    unasked: TextCompressor

    @property
    def name(self) -> str:
        return f"{self.asked.name} or {self.unasked.name}"

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        return self._chosen(request).sources(texts, request)

    def joint_levels(self, groups: Sequence[Group], request: LevelRequest) -> list[Iterable[Level]]:
        return self._chosen(request).joint_levels(groups, request)

    def _chosen(self, request: LevelRequest) -> TextCompressor:
        return self.asked if request.question.strip() else self.unasked


def by_question(
    encoder: Encoder | None = None, token_encoder: Encoder | None = None, words: WordCompressor | None = None
) -> QuestionRouter:
    """Routes by what is there.

    With a question: sentences by BM25 and the encoders that are given, their words by `words`. Without: `words` alone.
    words: scores words without a question; None takes rare words.
    """
    words = RareWords() if words is None else words
    return QuestionRouter(SentenceSelector(encoder=encoder, token_encoder=token_encoder, words=words), words)
