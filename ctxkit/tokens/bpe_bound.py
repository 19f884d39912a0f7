"""An upper bound on the tokens that byte-level BPE makes of a text, proved family by family.

The bound holds for byte-level BPE tokenizers of these families, and for tokenizers that extend one of them
(same pre-token pattern, further merges appended: Llama 3, Qwen 2/2.5/3, gpt-oss, GPT-4o, o1):

    cl100k      tiktoken cl100k_base; Llama 3 (a prefix of its vocabulary)
    qwen        the same merges, one token per digit, NFC first: Qwen 2, 2.5, 3
    o200k       tiktoken o200k_base and o200k_harmony
    smollm2     SmolLM2
    gpt2        GPT-2, tiktoken r50k_base

Each family splits the text with its own pattern, as the real tokenizer does, and then counts each piece with the
first N merges of that tokenizer. That count is never too low: BPE always applies the available merge of lowest rank, so
the full tokenizer begins with the very same merges, and every merge it applies after those takes one token away.
A data file holds those merges, and the words that are one token in every family (checked by encoding each
one with each tokenizer when the file is built). The estimate is the dearest family's sum.

Checked on every code point in context, not proved: that regular expression engines agree on Unicode classes. The
stretch of text around a character on which Unicode versions differ is charged its UTF-8 bytes.
"""

from __future__ import annotations

import heapq
import lzma
import unicodedata
from collections import Counter as Multiset
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import regex

FAMILIES = ("cl100k", "qwen", "o200k", "smollm2", "gpt2")
"""The tokenizer families that the bound covers, in the order of every cost tuple."""

LONG_PIECE_BYTES = 16_384
"""A single pre-token longer than this is charged its bytes: BPE on it would take seconds."""

Costs = tuple[int, ...]

# Every pattern spells white space out: engines disagree on whether \s holds U+001C..U+001F.
_SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SUFFIX = r"(?:'(?i:[sdmt]|ll|ve|re))"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PATTERNS = {
    "cl100k": rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^{_SPACE}\p{{L}}\p{{N}}]+[\r\n]*"
    rf"|[{_SPACE}]*[\r\n]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+",
    "o200k": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}?"
    rf"|\p{{N}}{{1,3}}| ?[^{_SPACE}\p{{L}}\p{{N}}]+[\r\n/]*|[{_SPACE}]*[\r\n]+|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+",
    "gpt2": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+| ?\p{{N}}+| ?[^{_SPACE}\p{{L}}\p{{N}}]+"
    rf"|[{_SPACE}]+(?![^{_SPACE}])|[{_SPACE}]+",
    # Digits are cut out first, so that white space before one ends its stretch.
    "smollm2": rf"'(?:[sdmt]|ll|ve|re)| ?\p{{L}}+|\p{{N}}| ?[^{_SPACE}\p{{L}}\p{{N}}]+"
    rf"|[{_SPACE}]+(?![^{_SPACE}\p{{N}}])|[{_SPACE}]+",
}
_PATTERNS["qwen"] = _PATTERNS["cl100k"].replace("{1,3}", "")

# A chunk ends where every family cuts, whatever follows: behind a letter or digit that is followed by another kind of
# character (but a mark or an apostrophe), and before " x" that follows a non-space.
_CHUNK = (
    r"(?:[^\p{L}\p{N}]*+(?:\p{L}++|\p{N}++)(?=[\p{M}']))*+"
    rf"(?:[^\p{{L}}\p{{N}}]*[^{_SPACE}\p{{L}}\p{{N}}](?= \p{{L}})|[^\p{{L}}\p{{N}}]*+(?:\p{{L}}++|\p{{N}}++|\Z))"
)

# Characters that are letters, marks or digits in some Unicode version since 10 and not (or of another case) in another.
_UNSURE = (
    r"(?V1)[\p{Cn}\p{Cs}[[\p{L}\p{M}\p{N}]&&[\U00010000-\U0010FFFF]--[\U0001D400-\U0001D7FF\U00020000-\U0002A6D6]]"
    r"\u0295\u0558\u0560\u0588\u058B\u058C\u05C8\u05C9\u05EF\u0870-\u089F\u08B5-\u08D3\u09FE\u0A76\u0C04\u0C3C\u0C5C\u0C5D\u0C77\u0C84\u0CDC\u0CDD\u0CF3"
    r"\u0B53-\u0B55\u0D04\u0D81\u0E86\u0E89\u0E8C-\u0E93\u0E98\u0EA0\u0EA8\u0EA9\u0EAC\u0EBA\u0ECE\u10D0-\u10FF\u1C90-\u1CBF"
    r"\u170D\u1715\u171F\u180F\u1878\u1ABE-\u1AFF\u1B4C\u1C89\u1C8A\u208F\u209D-\u209F\u1CF2\u1CF3\u1CFA\u1DF9-\u1DFB\u2C2F\u2C5F"
    r"\u31BB-\u31BF\u4DB6-\u4DBF\u9FEB-\u9FFF\uA7AF\uA7B8-\uA7F7\uA82C\uA8FE\uA8FF\uAB66-\uAB6F]"
)
_SURE_CUT = r"(?<=[A-Za-z0-9\u3041-\u3096\u30A1-\u30FA\u4E00-\u9FA5])(?=[\t-\r !-&(-/:-@\u3001\u3002\uFF0C])"


def _utf8(text: str) -> bytes:
    """Lone surrogates are kept as three bytes each, as many as the replacement character takes."""
    return text.encode("utf-8", "surrogatepass")


@cache
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern)


@dataclass(frozen=True)
class _Tables:
    """The data file. `ascii` and `wide` rank the first merges of a vocabulary: over ASCII and a few more, and, further
    down the ranks, over pieces that hold nothing but spaces and non-ASCII bytes."""

    words: frozenset[str]
    ascii: Mapping[str, Mapping[bytes, int]]
    wide: Mapping[str, Mapping[bytes, int]]


@lru_cache(maxsize=1)
def _tables() -> _Tables:
    raw = lzma.decompress(files("ctxkit").joinpath("tokens", "data", "bpe_bounds.xz").read_bytes())
    words, *lists = raw.split(b"\xfe")
    ascii_ranks: dict[str, Mapping[bytes, int]] = {}
    wide_ranks: dict[str, Mapping[bytes, int]] = {}
    for i, family in enumerate(("cl100k", "o200k", "smollm2", "gpt2")):
        first, more = (chunk.split(b"\xff") if chunk else [] for chunk in lists[2 * i : 2 * i + 2])
        ascii_ranks[family] = {token: rank for rank, token in enumerate(first)}
        wide = [token for token in first if is_wide(token)] + more
        wide_ranks[family] = {token: rank for rank, token in enumerate(wide)}
    ascii_ranks["qwen"], wide_ranks["qwen"] = ascii_ranks["cl100k"], wide_ranks["cl100k"]
    return _Tables(frozenset(_unfold(words)), ascii_ranks, wide_ranks)


def is_wide(token: bytes) -> bool:
    """True for bytes that are all spaces or non-ASCII: what the deeper merge table covers."""
    return all(byte >= 0x80 or byte == 0x20 for byte in token)


def _unfold(folded: bytes) -> Iterator[str]:
    """Undo front coding: each word is a byte 0x80 + shared prefix length, then its own ASCII letters."""
    word = ""
    for entry in regex.findall(rb"[\x80-\xf0][\x00-\x7f]*", folded):
        word = word[: entry[0] - 0x80] + entry[1:].decode("ascii")
        yield word


def merged_length(piece: bytes, ranks: Mapping[bytes, int]) -> int:
    """Tokens that BPE leaves of `piece`: merge the adjacent pair of lowest rank, leftmost first, until none is left."""
    if len(piece) > 48:
        return _merged_length_heap(piece, ranks)
    parts = [piece[i : i + 1] for i in range(len(piece))]
    absent = len(ranks)
    pairs = [ranks.get(piece[i : i + 2], absent) for i in range(len(piece) - 1)]
    while pairs and (best := min(pairs)) < absent:
        i = pairs.index(best)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        del pairs[i]
        if i:
            pairs[i - 1] = ranks.get(parts[i - 1] + parts[i], absent)
        if i < len(pairs):
            pairs[i] = ranks.get(parts[i] + parts[i + 1], absent)
    return len(parts)


def _merged_length_heap(piece: bytes, ranks: Mapping[bytes, int]) -> int:
    """`merged_length` in n log n steps. Tokens are spans [i, end[i]); an entry is stale once its spans have changed."""
    size = len(piece)
    end, start = list(range(1, size + 1)), list(range(size))
    heap = [(rank, i, i + 2) for i in range(size - 1) if (rank := ranks.get(piece[i : i + 2])) is not None]
    heapq.heapify(heap)
    left = size
    while heap:
        _, i, stop = heapq.heappop(heap)
        middle = end[i]
        if middle == 0 or middle >= stop or end[middle] != stop:
            continue
        end[i], end[middle], start[stop - 1] = stop, 0, i
        left -= 1
        before = start[i - 1] if i else 0
        for first, last in ((before, stop), (i, end[stop] if stop < size else stop)):
            if last - first > stop - i and (rank := ranks.get(piece[first:last])) is not None:
                heapq.heappush(heap, (rank, first, last))
    return left


@lru_cache(maxsize=1 << 17)
def piece_cost(family: str, piece: str) -> int:
    tables = _tables()
    if piece in tables.words:
        return 1
    raw = _utf8(piece)
    if len(raw) > LONG_PIECE_BYTES:
        return len(raw)
    return merged_length(raw, (tables.wide if is_wide(raw) else tables.ascii)[family])


def pieces_of(family: str, chunk: str) -> list[str]:
    return _compiled(_PATTERNS[family]).findall(chunk)


def _family_cost(family: str, chunk: str) -> int:
    return sum([piece_cost(family, piece) for piece in pieces_of(family, chunk)])


def _chunk_costs(chunk: str) -> Costs:
    """Tokens of a chunk (see `_CHUNK`) in each of FAMILIES, at most."""
    if chunk in _tables().words:
        return (1,) * len(FAMILIES)
    o200k = _family_cost("o200k", chunk)
    if chunk.isascii() and chunk.lstrip(" ").isalpha() and chunk.count(" ") < 2:  # one piece in every other family
        cl100k, smollm2, gpt2 = (piece_cost(family, chunk) for family in ("cl100k", "smollm2", "gpt2"))
        return cl100k, cl100k, o200k, smollm2, gpt2
    cl100k, smollm2, gpt2 = (_family_cost(family, chunk) for family in ("cl100k", "smollm2", "gpt2"))
    qwen = cl100k if _compiled(r"\p{N}").search(chunk) is None else _family_cost("qwen", chunk)
    return cl100k, qwen, o200k, smollm2, gpt2


_short_chunk_costs = lru_cache(maxsize=1 << 17)(_chunk_costs)


def cost_of(chunk: str) -> Costs:
    return _short_chunk_costs(chunk) if len(chunk) <= 64 else _chunk_costs(chunk)


def byte_costs(stretch: str) -> Costs:
    return (len(_utf8(stretch)),) * len(FAMILIES)


def _stretches(text: str) -> Iterator[tuple[str, bool]]:
    """The text in pieces, each with whether every character of it has one Unicode class in all versions."""
    unsure = _compiled(_UNSURE)
    if unsure.search(text) is None:
        yield text, True
        return
    for stretch in _compiled(rf"(?V1){_SURE_CUT}").split(text):
        yield stretch, unsure.search(stretch) is None


def _add(costs: Iterable[Costs]) -> Costs:
    return tuple(map(sum, zip(*costs, strict=True))) or (0,) * len(FAMILIES)


def plain_costs(text: str) -> Costs:
    """Tokens of `text` in each of FAMILIES, at most, no normal form applied. Equal chunks are priced once."""
    found: Multiset[str] = Multiset()
    unsure: list[Costs] = []
    for stretch, sure in _stretches(text):
        if sure:
            found.update(_compiled(_CHUNK).findall(stretch))
        else:
            unsure.append(byte_costs(stretch))
    found.pop("", None)
    return _add([*unsure, *(tuple(n * cost for cost in cost_of(chunk)) for chunk, n in found.items())])


def nfc_excess(text: str, costs: Costs) -> Costs:
    """What must be added to `costs` because Qwen reads the text in normal form C."""
    if unicodedata.is_normalized("NFC", text):
        return (0,) * len(costs)
    i = FAMILIES.index("qwen")
    excess = plain_costs(unicodedata.normalize("NFC", text))[i] - costs[i]
    return tuple(max(0, excess) if j == i else 0 for j in range(len(costs)))


def family_bounds(text: str) -> Costs:
    """Upper bounds on the tokens of `text`, one for each of FAMILIES."""
    costs = plain_costs(text)
    return _add([costs, nfc_excess(text, costs)])


def chunks(text: str) -> Iterator[tuple[str, bool]]:
    """The text cut where every family cuts; False marks a stretch that is charged its bytes."""
    for stretch, sure in _stretches(text):
        if sure:
            yield from ((chunk, True) for chunk in _compiled(_CHUNK).findall(stretch) if chunk)
        else:
            yield stretch, False
