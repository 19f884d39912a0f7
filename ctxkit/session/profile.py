"""ProfileMemory: what is known of a user or a topic, as a summary made offline and the few items that matter now."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b

from ctxkit.compression import CentroidCompressor, SummaryCache, SummaryRejected
from ctxkit.compression.sources.counted import TotalCounter
from ctxkit.compression.summaries.clip import clipped
from ctxkit.compression.summaries.summariser import Rejection, Summariser
from ctxkit.compression.text.score import relevance
from ctxkit.context.labels import Label, joined
from ctxkit.context.level import LevelRequest
from ctxkit.context.part import Part, SupportsPart, memory
from ctxkit.protocols import Counter, Encoder, Model
from ctxkit.session.profile_items import Item, ProfileItems, safe
from ctxkit.session.store import Originals, digest_of

INSTRUCTION = (
    "Below is what is known of one person or topic, oldest first. Say in as few words as you can what helps to answer "
    "later questions: facts, wishes, habits, style, decisions. Where entries contradict each other, the later one "
    "holds. Keep names, numbers and dates exactly as they are written. Add nothing. Answer with the summary only.\n\n"
)
SHARE = 4
"""With a profile, one retrieved item in so many does as well as all without (arXiv 2310.20081)."""

Ranking = Iterable[str | SupportsPart] | Callable[[str, int], Iterable[str | SupportsPart]]
"""Texts or hits, best first; or what finds k of them for a question, such as `index.search`."""

_SEPARATOR = "\n\n"
_WHOLE, _EXTRACT = "all entries, whole", "extractive summary, no model"
_RECENT = 16.0  # items; the half-life of what is new, as of a conversation's turns


@dataclass(frozen=True, slots=True)
class Profile:
    """What the items of a key come to.

    text: as it stands in the prompt. method: what made it. of: digests of the items that it was made of.
    """

    text: str
    method: str
    of: tuple[str, ...]

    @property
    def version(self) -> str:
        """A hash of what it was made of, whatever the order: 64 bits in hex."""
        return blake2b("\n".join(sorted(self.of)).encode(), digest_size=8).hexdigest()

    def __repr__(self) -> str:
        return f"Profile({self.method!r}, {len(self.of):,} items, version={self.version!r})"


@dataclass(frozen=True)
class ProfileMemory:
    """Items under keys (a user, a topic, both), and a profile of each key: a summary made offline, kept with them.

    At run time the prompt gets the profile and a quarter of the items that it would get without (Richardson et al.,
    "Integrating Summarization and Retrieval for Enhanced Personalization via Large Language Models", arXiv 2310.20081).

        memory = ProfileMemory(SqliteOriginals("memory.sqlite"), counter=model.counter, model=model)
        memory.add("ada", "Prefers metric units.", "Works on the ferry timetable.")
        memory.refresh()                                      # offline: asks the model
        plan = fit([*memory.parts("ada", asked), question(asked)], budget=budget, counter=model.counter)

    A profile names what it was made of. Items that came later are sent as they are until the next `refresh`; once an
    item was removed, a profile that was made of it is never sent again.

    store: where everything is kept; may be shared with sessions, other memories of it see the same items.
    counter: of the model that reads the profile. model: writes the summaries, None: an extract of their sentences, as
    also where the model fails (with a SummaryRejected warning). encoder: for extracts, as of `CentroidCompressor`.
    cache: of summaries, also of pieces, where a key has more text than the model's window. `remove` does not reach it.
    summary_tokens: the longest profile, by `counter`, and the longest answer, in the model's tokens. Items that have
        fewer are the profile themselves.
    label: of everything that this memory remembers, since a profile is made of all items. None: trusted and public.

    Raises ValueError for `summary_tokens` below 1, and what the store raises.
    """

    store: Originals
    counter: Counter
    model: Model | None = None
    encoder: Encoder | None = None
    cache: SummaryCache = field(default_factory=dict[str, str], repr=False)
    summary_tokens: int = 256
    instruction: str = field(default=INSTRUCTION, repr=False)
    label: Label | None = None

    def __post_init__(self) -> None:
        if self.summary_tokens < 1:
            raise ValueError(f"`summary_tokens` must be at least 1, got {self.summary_tokens!r}")

    def add(self, key: str, *texts: str) -> None:
        """Remember texts, each once; they are stored when this returns. Raises ValueError for one without a word."""
        if not all(text.strip() for text in texts):
            raise ValueError(f"an item of {key!r} is empty; leave it out")
        self._items.add(key, texts)

    def remove(self, key: str, *texts: str) -> None:
        """Forget texts, and the profile of the key. What is not there needs no forgetting."""
        self._items.remove(key, {digest_of(text) for text in texts})

    def keys(self) -> tuple[str, ...]:
        """The keys under which something is remembered, sorted."""
        return self._items.keys()

    def items(self, key: str) -> tuple[str, ...]:
        """The texts under the key, oldest first."""
        return tuple(self._items.texts(key, self._items.live(key)))

    def profile(self, key: str) -> Profile | None:
        """The profile, where all that it was made of is still remembered; items may have come since."""
        return self._true(key, self._items.live(key))

    def stale(self) -> tuple[str, ...]:
        """The keys that `refresh` would make a profile of: there is none, items came or went, or the model failed."""
        return tuple(key for key in self.keys() if self._is_stale(key, self._items.live(key)))

    def refresh(self, *keys: str, again: bool = False) -> tuple[str, ...]:
        """Make the profiles of these keys, or all, where they are stale; those that were made. For offline.

        again: also where they are not, for another model or instruction. What is added meanwhile stays for next time.
        Raises ValueError where `summary_tokens` has no room for a word.
        """
        return tuple(key for key in keys or self.keys() if self._refreshed(key, again=again))

    def parts(self, key: str, asked: str = "", *, k: int = 8, ranking: Ranking | None = None) -> list[Part]:
        """The key's profile, the items that it does not cover, and a quarter (rounded up) of `k` items for `asked`.

        k: how many items would be retrieved if there were no profile.
        ranking: of the key's items, None: BM25. It is the caller's to let it find nothing of another key.

        Texts become memory, hits what their `as_part` says. Reads the store, asks no model. Raises ValueError for a
        negative k.
        """
        if k < 0:
            raise ValueError(f"`k` must be 0 or more, got {k!r}")
        parts = self._parts(key, asked, k, ranking)
        return parts if self.label is None else [replace(one, label=joined([self.label, one.label])) for one in parts]

    def _parts(self, key: str, asked: str, k: int, ranking: Ranking | None) -> list[Part]:
        items = self._items.live(key)
        profile = self._true(key, items)
        covered = set(profile.of) if profile else set()
        new = [item for item in items if item.digest not in covered]
        parts = self._new(key, asked, new)
        if profile is None:
            return parts
        about = {"version": profile.version, "method": profile.method, "items": len(profile.of), "new": len(new)}
        parts.insert(0, memory(profile.text, id=f"profile/{safe(key)}", source=f"profile of {key}", metadata=about))
        if profile.method == _WHOLE:
            return parts
        old = [item for item in items if item.digest in covered]
        found = self._by_words(key, asked, old) if ranking is None else _ranked(ranking, asked, k)
        return [*parts, *_first(found, math.ceil(k / SHARE), but={part.content for part in parts}, key=key)]

    @property
    def _items(self) -> ProfileItems:
        return ProfileItems(self.store)

    def _new(self, key: str, asked: str, items: Sequence[Item]) -> list[Part]:
        """Items that no profile covers: what matters for the question or came last is worth most."""
        texts = list(self._items.texts(key, items))
        ages = range(len(texts) - 1, -1, -1)
        worth = [
            max(score, _RECENT / (_RECENT + age)) for score, age in zip(relevance(texts, asked), ages, strict=True)
        ]
        return [_remembered(key, text, value) for text, value in zip(texts, worth, strict=True)]

    def _by_words(self, key: str, asked: str, items: Sequence[Item]) -> Iterator[Part]:
        texts = list(self._items.texts(key, items))
        ranked = sorted(zip(relevance(texts, asked), texts, strict=True), key=lambda scored: -scored[0])
        return (_remembered(key, text, score) for score, text in ranked if score > 0)

    def _true(self, key: str, items: Sequence[Item]) -> Profile | None:
        """The stored profile, None where it is damaged or was made of something that is not remembered any more."""
        profile = _read(self._items.made(key))
        return profile if profile and set(profile.of) <= {item.digest for item in items} else None

    def _is_stale(self, key: str, items: Sequence[Item]) -> bool:
        profile = self._true(key, items)
        if profile is None or len(profile.of) < len(items):
            return bool(items)
        return profile.method == _EXTRACT and self.model is not None

    def _refreshed(self, key: str, *, again: bool) -> bool:
        items = self._items.live(key)
        if not items and self._items.made(key):
            self._items.make(key, "")  # of items that were removed while it was made
        if not items or not (again or self._is_stale(key, items)):
            return False
        text, method = self._made(key, list(self._items.texts(key, items)))
        self._items.make(key, _written(Profile(text, method, tuple(item.digest for item in items))))
        return True

    def _made(self, key: str, texts: Sequence[str]) -> tuple[str, str]:
        """A profile of these texts, within `summary_tokens`, and what made it."""
        count = f"{len(texts):,} entr{'y' if len(texts) == 1 else 'ies'}"
        source = _SEPARATOR.join(texts)
        whole = f"[{count}]\n{source}"
        if self._tokens(whole) <= self.summary_tokens:
            return whole, _WHOLE
        if self.model is not None:
            try:
                said = Summariser(self.model, self.cache, self.summary_tokens, self.instruction).summary(source)
                return self._capped(f"[summary of {count}]\n", said), f"summary by {self.model.name}"
            except Rejection as rejection:
                warnings.warn(f"no summary of {key!r}: {rejection}", SummaryRejected, stacklevel=5)
        heading = f"[extract of {count}]\n"
        return self._capped(heading, self._extract(source, self.summary_tokens - self._tokens(heading))), _EXTRACT

    def _extract(self, source: str, tokens: int) -> str:
        sentences = CentroidCompressor(self.encoder).read(source, LevelRequest("", TotalCounter(self.counter)))
        cut = None if sentences is None else sentences.at(max(tokens, 0))
        return source if cut is None else cut.text.strip()

    def _capped(self, heading: str, text: str) -> str:
        """The text under its heading, within `summary_tokens`."""
        kept = clipped(text.strip(), lambda said: self._tokens(heading + said) <= self.summary_tokens)
        if kept is None:
            raise ValueError(f"`summary_tokens` ({self.summary_tokens:,}) has no room for a word; give it more")
        return heading + kept

    def _tokens(self, text: str) -> int:
        return TotalCounter(self.counter).count(text)


def _ranked(ranking: Ranking, asked: str, k: int) -> Iterable[str | SupportsPart]:
    return ranking(asked, k) if callable(ranking) else ranking


def _first(found: Iterable[str | SupportsPart], most: int, *, but: set[str], key: str) -> Iterator[Part]:
    """The first `most` that say something else than what is there already, and than each other."""
    for one in found if most else ():
        part = _remembered(key, one, 1.0) if isinstance(one, str) else one.as_part()
        if part.content not in but:
            but.add(part.content)
            most -= 1
            yield part
        if not most:
            return


def _remembered(key: str, text: str, worth: float) -> Part:
    return memory(text, id=f"memory/{safe(key)}/{digest_of(text)[:12]}", source=f"memory of {key}", relevance=worth)


def _written(profile: Profile) -> str:
    """The profile as JSON, behind the digest of that."""
    content = json.dumps(asdict(profile))
    return f"{digest_of(content)}\n{content}"


def _read(made: str) -> Profile | None:
    """The profile that was written; None for anything else: it can be made again."""
    digest, _, content = made.partition("\n")
    if not content or digest_of(content) != digest:
        return None
    fields = json.loads(content)
    return Profile(fields["text"], fields["method"], tuple(fields["of"]))
