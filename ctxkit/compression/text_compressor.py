"""TextCompressor and WordCompressor: what a method overrides to become levels, and to be called on plain texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.sources.cut import Reader, Source, first_of
from ctxkit.compression.sources.ladder import Ladder
from ctxkit.compression.sources.slots import slots_of
from ctxkit.compression.sources.word_source import FIDELITY, WordSource
from ctxkit.compression.structure.code_level import read_code
from ctxkit.compression.structure.json_level import either_json_reader, json_reader
from ctxkit.compression.structure.log_level import read_log
from ctxkit.compression.structure.table_level import delimited_reader, markdown_reader
from ctxkit.compression.text.pins import Pins
from ctxkit.compression.text.word_scores import Weigh, plain_scores
from ctxkit.compression.text.words import Words
from ctxkit.context.group import Group
from ctxkit.context.level import Level, LevelRequest

_PINS = Pins()


@dataclass(frozen=True)
class TextCompressor(ABC):
    """A compressor that reads texts one by one or together, and can render each in any number of tokens.

    least_tokens: the smallest size of a group that is aimed at.
    """

    least_tokens: int = field(default=48, kw_only=True)

    def __post_init__(self) -> None:
        if self.least_tokens < 1:
            raise ValueError(f"`least_tokens` must be at least 1, got {self.least_tokens!r}")

    @property
    @abstractmethod
    def name(self) -> str:
        """What its levels are called."""

    @abstractmethod
    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        """Each text as something that can be rendered smaller; None where it cannot be."""

    @property
    def arguments(self) -> Reader:
        """Reads the arguments of tool calls, which stay JSON of the same keys."""
        return json_reader(lean=0.5, fidelity=0.9, keep_fields=True)

    def levels(self, group: Group, request: LevelRequest) -> Iterator[Level]:
        yield from self.joint_levels([group], request)[0]

    def joint_levels(self, groups: Sequence[Group], request: LevelRequest) -> list[Iterable[Level]]:
        """The levels of each group. All their texts are read in one go."""
        request = replace(request, counter=TotalCounter(request.counter))
        slots = (slot for group in groups for slot in slots_of(group, request.counter))
        texts = list(dict.fromkeys(slot.text for slot in slots if slot.call is None and slot.is_reducible))
        sources = dict(zip(texts, self.sources(texts, request), strict=True))

        def known(text: str, _: LevelRequest) -> Source | None:
            return sources.get(text)

        arguments, least = self.arguments, self.least_tokens
        return [Ladder(self.name, group, request, known, arguments, least).levels() for group in groups]


@dataclass(frozen=True)
class WordCompressor(TextCompressor):
    """Keeps the best words of prose; JSON, tables, code and logs are reduced by their structure.

    A method overrides `scores`. pins: what is kept whole, or goes with its sentence; None pins nothing.
    structured: reduce what is no prose by its structure; False treats all texts as prose.
    """

    pins: Pins | None = field(default=Pins(), kw_only=True)
    structured: bool = field(default=True, kw_only=True)

    @abstractmethod
    def scores(self, texts: Sequence[Words], question: str) -> list[Sequence[float]]:
        """How much each word of each text matters, [texts][words]; comparable between the texts of one call.

        All texts of a request come in one call, so that a model sees full batches.
        """

    @property
    def fidelity(self) -> float:
        """Value of a text with nearly all its words, in (0, 1)."""
        return FIDELITY

    def sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        sources = self.structured_sources(texts, request)
        prose = [i for i, source in enumerate(sources) if source is None]
        words = [Words.of(texts[i], self.pins, request.question) for i in prose]
        for i, cut, scores in zip(prose, words, self.scores(words, request.question), strict=True):
            sources[i] = WordSource(cut, scores, request.counter, self.fidelity) if len(cut) > 1 else None
        return sources

    def structured_sources(self, texts: Sequence[str], request: LevelRequest) -> list[Source | None]:
        """What is no prose, by its structure; None where words are to be scored."""
        read = structure_reader(weigh=self.scores, pins=self.pins) if self.structured else first_of(())
        return [read(text, request) for text in texts]


def structure_reader(lean: float = 0.5, weigh: Weigh = plain_scores, pins: Pins | None = _PINS) -> Reader:
    """Reads what is no prose: JSON, tables, code, logs.

    lean: how much more the question counts than the place. weigh: scores the words of prose inside them, of which
    `pins` stay longest.
    """
    return first_of(
        (
            either_json_reader(lean=lean, fidelity=0.9, weigh=weigh, pins=pins),
            markdown_reader(weigh, pins),
            delimited_reader(weigh, pins),
            read_code,
            read_log,
        )
    )
