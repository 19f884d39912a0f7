"""Builds the data file of `ctxkit.tokens.bpe_bound`, and measures how tight, and whether, its bound holds.

    python benchmarks/estimator_bound.py --litellm-wheel litellm.whl --tokenizer-json smollm2=tokenizer.json
    python benchmarks/estimator_bound.py --tiktoken cl100k=cl100k_base.tiktoken --tiktoken llama3=tokenizer.model

prints estimate / real per kind of text and tokenizer, and exits 1 if any estimate is below a real count. `--build`
writes the data file instead; it needs cl100k, o200k, gpt2 and smollm2. A tokenizer that the bound does not promise (any
other name given to --tokenizer-json or --tiktoken) is shown in the table and does not decide the exit status.

Needs `tiktoken` and `tokenizers`, ctxkit itself needs neither for an estimate.
"""

from __future__ import annotations

import argparse
import base64
import json
import lzma
import random
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ctxkit.tokens import bpe_bound

DATA = Path(bpe_bound.__file__).parent / "data" / "bpe_bounds.xz"
# Tokenizer: the family whose bound must hold for it.
PROMISED: dict[str, str] = {**{family: family for family in bpe_bound.FAMILIES}, "llama3": "cl100k"}
Count = Callable[[str], int]

# Where a vocabulary is cut: merges kept for pieces of any alphabet, and for pieces of spaces and non-ASCII bytes only.
CUTS = {"cl100k": (6_000, 20_000), "o200k": (6_000, 14_000), "smollm2": (7_000, 49_152), "gpt2": (7_000, 50_256)}

WHEEL_FILES = {
    "cl100k": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "gpt2": "ec7223a39ce59f226a68acc30dc1af2788490e15",  # p50k_base; its first 50,256 ranks are GPT-2's
}
GPT2_RANKS = 50_256

_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CL100K = (
    rf"{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {
    "cl100k": _CL100K,
    "llama3": _CL100K,
    "qwen": _CL100K.replace("{1,3}", ""),
    "o200k": _O200K,
    "llama4": _O200K,
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}


# --- vocabularies -----------------------------------------------------------------------------------------------------


def read_tiktoken(data: bytes) -> list[bytes]:
    """Tokens of a tiktoken file, in rank order."""
    return [base64.b64decode(line.split()[0]) for line in data.splitlines() if line.strip()]


def byte_of_char() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, as tokenizer.json spells tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def read_tokenizer_json(path: Path) -> list[bytes]:
    """Tokens of a Hugging Face byte-level BPE in merge order."""
    table = byte_of_char()
    merges = json.loads(path.read_text(encoding="utf-8"))["model"]["merges"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    as_bytes = [tuple(bytes(table[char] for char in half) for half in pair) for pair in pairs]
    return [bytes([byte]) for byte in range(256)] + [first + second for first, second in as_bytes]


def tiktoken_count(name: str, tokens: Sequence[bytes]) -> Count:
    import tiktoken  # pyright: ignore[reportMissingImports]  # not a dependency: it downloads at first use

    ranks = {token: rank for rank, token in enumerate(tokens)}
    encoding = tiktoken.Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens={})
    if name != "qwen":
        return lambda text: len(encoding.encode_ordinary(text))
    import unicodedata

    return lambda text: len(encoding.encode_ordinary(unicodedata.normalize("NFC", text)))


def json_count(path: Path) -> Count:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


class Vocabularies:
    """The tokenizers given on the command line: `tokens` in rank order where known, `count` for all."""

    def __init__(self) -> None:
        self.tokens: dict[str, list[bytes]] = {}
        self.count: dict[str, Count] = {}

    def add_tiktoken(self, name: str, data: bytes) -> None:
        tokens = read_tiktoken(data)
        self.tokens[name] = tokens[:GPT2_RANKS] if name == "gpt2" else tokens
        self.count[name] = tiktoken_count(name, self.tokens[name])

    def add_wheel(self, path: Path) -> None:
        with zipfile.ZipFile(path) as wheel:
            for name, file in WHEEL_FILES.items():
                self.add_tiktoken(name, wheel.read(f"litellm/litellm_core_utils/tokenizers/{file}"))

    def add_json(self, name: str, path: Path) -> None:
        self.tokens[name] = read_tokenizer_json(path)
        self.count[name] = json_count(path)


# --- the data file ----------------------------------------------------------------------------------------------------


def fold(words: Sequence[str]) -> bytes:
    """Front coding: a byte 0x80 + length of the prefix shared with the word before, then the rest."""
    out, last = bytearray(), ""
    for word in words:
        shared = next((i for i, pair in enumerate(zip(last, word, strict=False)) if pair[0] != pair[1]), None)
        shared = min(len(last), len(word)) if shared is None else shared
        out += bytes([0x80 + shared]) + word[shared:].encode("ascii")
        last = word
    return bytes(out)


def merge_lists(tokens: Sequence[bytes], cut: int, wide_cut: int) -> tuple[list[bytes], list[bytes]]:
    """The first `cut` merges, and those over spaces and non-ASCII bytes from there to `wide_cut`."""
    first = [token for token in tokens[:cut] if len(token) > 1]
    return first, [token for token in tokens[cut:wide_cut] if len(token) > 1 and bpe_bound.is_wide(token)]


def common_words(vocabularies: Vocabularies, lists: dict[str, tuple[list[bytes], list[bytes]]]) -> list[str]:
    """Words that every tokenizer encodes as one token, less those that the shipped merges already give."""
    names = tuple(CUTS)
    shared = set.intersection(*(set(vocabularies.tokens[name]) for name in names))
    words = sorted(
        token.decode() for token in shared if token.isascii() and len(token) > 1 and token.lstrip(b" ").isalpha()
    )
    words = [word for word in words if all(vocabularies.count[name](word) == 1 for name in names)]
    ranks = [{token: rank for rank, token in enumerate(lists[name][0])} for name in names]
    return [word for word in words if any(bpe_bound.merged_length(word.encode(), table) > 1 for table in ranks)]


def build(vocabularies: Vocabularies) -> bytes:
    lists = {name: merge_lists(vocabularies.tokens[name], *cut) for name, cut in CUTS.items()}
    sections = [fold(common_words(vocabularies, lists))]
    sections += [b"\xff".join(half) for name in CUTS for half in lists[name]]
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}]
    return lzma.compress(b"\xfe".join(sections), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)


# --- text of every kind -----------------------------------------------------------------------------------------------

LANGUAGES = {
    "chinese": "上下文窗口是有限的资源。检索系统先找到相关的段落，然后压缩它们，最后在严格的预算之内生成提示。"
    "如果内容放不下，系统必须说明哪些部分被省略，以及怎样恢复原文。北京今天下午有小雨，气温在"
    "十八度左右，请大家出门记得带伞。",
    "japanese": "文脈の長さには限りがあります。検索した文書を短くまとめ、モデルに渡す前に正確なトークン数を数えます。"
    "東京タワーは一九五八年に完成しました。カタカナのデータベースやサーバーという言葉も多く使われます。",
    "korean": "모델이 읽을 수 있는 문맥의 길이는 정해져 있습니다. 문서를 검색하고 압축한 다"
    "음 예산 안에서 프롬프트를 만듭니다. 오늘 서울의 날씨는 맑겠습니다.",
    "hindi": "मॉडल की संदर्भ सीमा निश्चित होती है। इसलिए हम पहले प्रासंगिक अनुच्छेद खोजते हैं, फिर उन्हे"
    "ं संक्षिप्त करते हैं। भारत की राजधानी नई दिल्ली है और यहाँ बहुत गर्मी पड़ती है।",
    "thai": "หน้าต่างบริบทของแบบจำลองมีขนาดจำกัด เราจึงค้นหาข้อความที่เกี่ยวข้องแล้วย่อให้สั้นลงก่อนส่ง"
    "เข้าไป กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
    "arabic": "نافذة السياق محدودة، لذلك نبحث عن الفقرات المناسبة ثم نضغطها قبل إرسالها إلى النموذج. القا"
    "هرة هي عاصمة مصر وأكبر مدنها.",
    "russian": "Окно контекста ограничено, поэтому сначала мы находим нужные абзацы, а затем сжимаем их. М"
    "осква является столицей России.",
    "german": "Das Kontextfenster ist begrenzt; deshalb suchen wir zuerst die passenden Absätze und kürze"
    "n sie danach für das größere Modell.",
    "french": "La fenêtre de contexte est limitée : on cherche d'abord les passages utiles, puis on les r"
    "ésume avant de les envoyer au modèle.",
    "vietnamese": "Cửa sổ ngữ cảnh có giới hạn, vì vậy trước hết chúng ta tìm các đoạn văn liên quan rồi nén "
    "chúng lại.",
    "emoji": "👩‍👩‍👧‍👦 family 🏳️‍🌈🧑🏽‍💻 ok 👍🏿 🇩🇪🇯🇵 done ✅ ❤️‍🔥 1️⃣ 🫠",
    "decomposed": "e\u0301te\u0301 a\u030a Å \u0958 \u1112\u1161\u11ab n\u0303 o\u0302\u0301, u\u0308ber \u09dc.",
}

SAMPLES = {
    "minified js": '!function(e,t){"object"==typeof exports?module.exports=t():e.Lib=t()}(this,function(){var n=0,r=[];'
    "for(var i=0;i<r.length;i++){if(!r[i]&&n>0x1f)return r[i].map((e=>({...e,k:e.k??null})))}return n});",
    "log": "2024-03-07T11:22:33.456Z ERROR [pool-3-thread-17] c.e.s.Handler - request 8f14e45f failed: status=503 "
    "latency_ms=1843 path=/api/v2/users/9923/orders?limit=50 ip=10.0.13.77\n",
    "table": "| id | name       |   price | in stock |\n|----|:-----------|--------:|----------|\n|  7 |"
    " Widget     |   12.50 | yes |\n",
    "markdown": "## Usage\n\n- **fit** the `parts` into a [budget](docs/budget.md)\n\n```python\nplan = fit"
    "(parts, budget)\n```\n\n====\n\n",
    "latex": "\\begin{equation}\n  \\sum_{i=0}^{n} \\frac{x_i^2}{\\sigma_{i}} \\leq \\alpha\\cdot\\|w\\|"
    "_{2}\n\\end{equation}\n",
}


def random_kinds(rng: random.Random, size: int) -> Iterator[tuple[str, str]]:
    """Text without words: what hashes, dumps and noise look like."""
    data = rng.randbytes(size)
    lines = (f"{i:08x}  {data[i : i + 16].hex(' ')}" for i in range(0, size // 4, 16))
    yield "hex dump", "\n".join(lines)
    ids = [f"{rng.getrandbits(128):032x}" for _ in range(size // 100)]
    yield (
        "uuid json",
        json.dumps([{"id": f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}", "n": i} for i, h in enumerate(ids)]),
    )
    yield "base64", base64.b64encode(data).decode()
    yield (
        "numbers",
        "\n".join(f"{rng.random():.6f},{rng.randrange(10**6)}, {rng.gauss(0, 9):.2e}" for _ in range(size // 30)),
    )
    yield "random ascii", "".join(rng.choices([chr(c) for c in range(32, 127)] + ["\n", "\t"], k=size))
    yield "random letters", "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", k=size))
    yield "random bmp", "".join(chr(c) for c in rng.choices([*range(1, 0xD800), *range(0xE000, 0x10000)], k=size // 3))
    yield (
        "random unicode",
        "".join(chr(rng.choice([*range(0x20, 0x250), *range(0x10000, 0x1F000)])) for _ in range(size // 40)),
    )
    yield "control", "".join(rng.choices("\0\x01\x0b\x0c\x1c\x1f\x7f\x85\u2028 \t\r\n'a1", k=size // 4))


def files_under(folders: Sequence[Path], suffixes: tuple[str, ...], limit: int) -> str:
    """The text of the files below `folders`, up to `limit` characters, at most 40,000 of each file."""
    out: list[str] = []
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.suffix in suffixes and p.is_file()):
        out.append(path.read_text(encoding="utf-8", errors="replace")[:40_000])
        if sum(map(len, out)) > limit:
            break
    return "".join(out)


def corpora(texts: Sequence[Path], seed: int) -> dict[str, str]:
    rng = random.Random(seed)
    kinds = {**LANGUAGES, **SAMPLES, **dict(random_kinds(rng, 60_000))}
    kinds["python code"] = files_under([Path(json.__file__).parent.parent], (".py",), 600_000)
    kinds["english prose"] = files_under(texts, (".md", ".txt"), 600_000)
    kinds["json lines"] = files_under(texts, (".jsonl", ".json"), 600_000)
    return {kind: text for kind, text in kinds.items() if text}


# --- the check --------------------------------------------------------------------------------------------------------


def mutations(text: str, rng: random.Random, rounds: int) -> Iterator[str]:
    """Short cuts of `text`, glued where a join may cost more than its halves; cased, spaced, repeated."""
    glue = [
        "",
        "",
        " ",
        "  ",
        "\n",
        "\n\n",
        "'",
        "'s",
        "'LL",
        "/",
        ".",
        "\t",
        "1",
        "22",
        "\r\n",
        "\u0301",
        "\u200d",
        "_",
        "ſ",
        "'ſ",
    ]
    for _ in range(rounds):
        parts = []
        for _ in range(rng.randint(1, 5)):
            start = rng.randrange(len(text))
            parts.append(text[start : start + rng.randint(1, 12)])
        piece = rng.choice(glue).join(parts)
        yield rng.choice([piece, piece, piece.upper(), piece.title(), piece * 3, rng.choice(glue) + piece])


def every_character() -> Iterator[str]:
    """Each code point but the surrogates, in contexts where its Unicode class decides the cuts."""
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            char = chr(code)
            yield f"a{char}b {char}, {char}{char}.{char}1{char} \n{char}'s"


def violations(vocabularies: Vocabularies, texts: Iterator[str]) -> list[tuple[str, int, int, str]]:
    """(tokenizer, real, estimate, text) for each promised tokenizer whose count the estimate falls short of."""
    found = []
    for text in texts:
        costs: dict[str, int] = dict(zip(bpe_bound.FAMILIES, bpe_bound.family_bounds(text), strict=True))
        for name, family in PROMISED.items():
            if name in vocabularies.count and (real := vocabularies.count[name](text)) > costs[family]:
                found.append((name, real, costs[family], text))
    return found


def table(vocabularies: Vocabularies, kinds: dict[str, str]) -> list[str]:
    names = list(vocabularies.count)
    rows = [f"{'kind':16}{'tokens':>9}" + "".join(f"{name:>10}" for name in [*names, "dearest"])]
    for kind, text in kinds.items():
        real = [vocabularies.count[name](text) for name in names]
        promised = max(n for name, n in zip(names, real, strict=True) if name in PROMISED)
        guess = max(bpe_bound.family_bounds(text))
        rows.append(f"{kind:16}{guess:9}" + "".join(f"{guess / n:10.2f}" for n in [*real, promised]))
    return rows


def named_path(value: str) -> tuple[str, Path]:
    name, _, path = value.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {value!r}")
    return name, Path(path)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm-wheel", type=Path, help="a litellm wheel: holds cl100k, o200k and GPT-2")
    parser.add_argument("--tiktoken", type=named_path, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--tokenizer-json", type=named_path, action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--text", type=Path, action="append", default=[], help="folder with .md, .txt, .json(l) files")
    parser.add_argument("--rounds", type=int, default=300, help="mutated cuts per kind of text")
    parser.add_argument("--every-character", action="store_true", help="also try each code point (minutes)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build", action="store_true", help="write the data file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(argv)
    vocabularies = Vocabularies()
    if options.litellm_wheel:
        vocabularies.add_wheel(options.litellm_wheel)
    for name, path in options.tiktoken:
        vocabularies.add_tiktoken(name, path.read_bytes())
    for name, path in options.tokenizer_json:
        vocabularies.add_json(name, path)
    if options.build:
        DATA.write_bytes(build(vocabularies))
        print(f"{DATA.name}: {DATA.stat().st_size:,} bytes")
        return 0
    return check(vocabularies, options)


def check(vocabularies: Vocabularies, options: argparse.Namespace) -> int:
    kinds, rng = corpora(options.text, options.seed), random.Random(options.seed)
    print("\n".join(table(vocabularies, kinds)))
    found = violations(vocabularies, iter(kinds.values()))
    for text in kinds.values():
        found += violations(vocabularies, mutations(text, rng, options.rounds))
    if options.every_character:
        found += violations(vocabularies, every_character())
    for name, real, bound, text in found[:20]:
        print(f"VIOLATION {name}: {real} tokens, estimate {bound}: {text[:80]!r}")
    print(f"{len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
