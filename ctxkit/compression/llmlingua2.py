"""LLMLingua-2: a token classifier says which words matter."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from ctxkit.compression.encoder.token_classifier import Precision, TokenClassifier
from ctxkit.compression.encoder.token_model import Merge, TokenReader, TokenValues
from ctxkit.compression.text.words import Words
from ctxkit.compression.text_compressor import WordCompressor

SMALL = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"
LARGE = "microsoft/llmlingua-2-xlm-roberta-large-meetingbank"

_DIGIT = re.compile(r"\d")
_BEHIND_ALL = 2.0  # taken from the scores of a text that is to go first; scores are probabilities


@dataclass(frozen=True)
class LLMLingua2(WordCompressor):
    """LLMLingua-2 (Pan et al., arXiv 2403.12968): words by the probability that a trained encoder keeps their tokens.

    model: a hub id or a local folder of a BERT or XLM-RoBERTa token classifier with two labels.
    force_tokens: words and phrases that go last; line breaks between kept words stay anyway.
    reserve_digits: tokens with a digit count as kept for sure. drop_consecutive: of equal force tokens, one after which
        nothing was kept does not stand twice. keep_texts: share of the texts, by their mean probability, whose words
        are looked at before those of the others. token_to_word: how a word's score comes of its tokens'.
    precision, device, threads: see `TokenClassifier`. window_tokens: fewer than the model reads are faster, and give
        each word less context: another ranking.

    What llmlingua 0.2.2 does otherwise, and why this does not:

    - It keeps a share of each chunk of 512 tokens, measured by GPT-3.5's tokenizer. Here all texts are one ranking
      under one budget, which is never overrun, counted by the target's tokenizer.
    - It cuts words around every inner mark ("don't" is three) and glues kept pieces back together. Here a word is
      what stands between white space, without outer punctuation, a pin or one character of a script without spaces;
      its score is the mean over its tokens, and output is sliced from the text.
    - Its chunks end at any ".", are decoded and encoded again, and lose what lies beyond 512 tokens. Here windows end
      at sentences or overlap, and hold the ids of the whole text.
    - XLM-RoBERTa's windows stand between "<unk>" there, and between "<s>" and "</s>" here, as in training.
    - Force tokens of several pieces become new tokens with random vectors there. Here the model reads the text as is.
    - `drop_consecutive` works on the rank: a repeated force token ranks with the best word between the two.
    - The context filter (`keep_texts`) is the same pass over the model, not a second one, and what it drops ranks
      behind all other words. It sees the texts that are prose.
    - Pins and reduction by structure come on top; `pins=None, structured=False` turns them off.

    Raises what TokenClassifier raises, at first use.
    """

    model: str | Path = SMALL
    force_tokens: tuple[str, ...] = ()
    reserve_digits: bool = False
    drop_consecutive: bool = False
    keep_texts: float = 1.0
    token_to_word: Merge = "mean"
    precision: Precision = "float32"
    window_tokens: int | None = None
    device: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.keep_texts <= 1:
            raise ValueError(f"`keep_texts` must be in (0, 1], got {self.keep_texts!r}")
        if self.token_to_word not in ("mean", "first"):
            raise ValueError(f'`token_to_word` must be "mean" or "first", got {self.token_to_word!r}')
        if isinstance(self.force_tokens, str):
            raise ValueError(f"`force_tokens` must be several strings, got the string {self.force_tokens!r}")

    @property
    def name(self) -> str:
        return "llmlingua2"

    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        if not any(map(len, texts)):
            return [[] for _ in texts]
        read = self._reader.read(texts)
        scores = read.per_text(self._word_scores(read))
        wanted = frozenset(token.strip() for token in self.force_tokens) - {""}
        if wanted:
            for words, of_text in zip(texts, scores, strict=True):
                self._force(words, of_text, wanted)
        for i in self._texts_to_drop(read):
            scores[i] -= _BEHIND_ALL
        return [of_text.tolist() for of_text in scores]

    @cached_property
    def _reader(self) -> TokenReader:
        classifier = TokenClassifier(self.model, precision=self.precision, device=self.device, threads=self.threads)
        window = min(self.window_tokens or classifier.window_tokens, classifier.window_tokens)
        return TokenReader(classifier.tokenizer, classifier, window_tokens=window, pad_id=classifier.pad_id)

    def _word_scores(self, read: TokenValues) -> np.ndarray:
        """float32 [words of all texts]"""
        values = np.where(read.holding(_DIGIT), np.float32(1), read.values) if self.reserve_digits else read.values
        return read.per_word(self.token_to_word, values)

    def _force(self, words: Words, scores: np.ndarray, wanted: frozenset[str]) -> None:
        """Raises the scores of what is forced, in place."""
        for first, last in forced_spans(words, wanted):
            scores[first:last] = 1.0
        if self.drop_consecutive:
            forced = [i for i, word in enumerate(words.proper) if word in wanted]
            for before, i in pairwise(forced):
                if words.proper[before] == words.proper[i]:
                    scores[i] = scores[before + 1 : i].max(initial=0.0)

    def _texts_to_drop(self, read: TokenValues) -> list[int]:
        """Texts whose mean probability is below that of the share that stays."""
        means = [float(of_text.mean()) for of_text in read.per_text(read.per_word(self.token_to_word)) if len(of_text)]
        if self.keep_texts == 1 or len(means) < 2:
            return []
        threshold = float(np.percentile(means, int(100 * (1 - self.keep_texts))))
        places = [i for i, words in enumerate(read.texts) if len(words)]
        return [i for i, mean in zip(places, means, strict=True) if mean < threshold]


def forced_spans(words: Words, wanted: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Half-open spans of words that are one of the wanted strings, white space between them as written."""
    ends = [start + len(word) for start, word in zip(words.starts, words.proper, strict=True)]
    pattern = re.compile("|".join(map(re.escape, sorted(wanted, key=lambda token: (-len(token), token)))))
    for match in pattern.finditer(words.text):
        first, last = bisect_left(words.starts, match.start()), bisect_left(ends, match.end())
        if first <= last < len(ends) and (words.starts[first], ends[last]) == match.span():
            yield first, last + 1
