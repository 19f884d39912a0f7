"""What can be pinned: facts that are found by a pattern, and facts that are told by looking at one run of characters.

All of it takes linear time on any text. A pattern begins where a run of its characters begins, never inside one, takes
whole runs possessively (`*+`, `++`), and whatever may be tried twice is bounded by a count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import regex

_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?)"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT)| ?[+-]\d\d:?\d\d)"
_CURRENCY = r"(?:USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|BRL|KRW|BTC|ETH)"
_UNIT = (
    r"(?:%|‰|°[CF]?|[€£¥₹]|[kKMGTP]i?B(?:/s)?|[kMG]?bit(?:/s)?|[kMGm]?Hz|[nµumck]?m[²³]?|km/h|mph|[nµum]?s|secs?"
    r"|seconds?|min|minutes?|h|hours?|days?|weeks?|months?|years?|[kmµ]?g|lbs?|oz|[mk]?W|kWh|[mk]?V|[mk]?A|[KM]?Pa|bar"
    r"|l|ml|ft|mi|miles?|tokens?|percent|thousand|million|billion|trillion"
    rf"|{_CURRENCY}|dollars?|euros?|pounds?|[ap]\.?m\b\.?|BC|AD|BCE|CE)"
)
_GAP = r"[ \u00a0\u202f]"
_NUMBER = r"\p{N}++(?:[.,:/×^’'-]\p{N}++)*+(?:[eE][-+]?\p{N}++)?+"

PATTERNS = {
    "url": r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*+://[^\s<>\"'`]++",
    "date": rf"(?<![\w.-])\d{{4}}-\d\d-\d\d(?:[T ]{_CLOCK}{_ZONE}?)?(?!\w)"
    rf"|(?<![\w/]){_DAY}[ /-](?:of )?{_MONTH}(?:[,/-]? ?\d{{4}})?(?:[: ]{_CLOCK}{_ZONE}?)?(?!\w)"
    rf"|\b{_MONTH} {{1,2}}{_DAY}(?:,? \d{{4}}| {_CLOCK})?(?!\w)|\b{_MONTH} \d{{4}}(?!\w)"
    r"|(?<![\w./])\d{1,2}[./]\d{1,2}[./]\d{2,4}(?![\w/])"
    rf"|(?<![\w:.]){_CLOCK}(?: ?[ap]\.?m\b\.?)?(?![\w:])",
    "windows path": r"(?<![\w\\])(?:[A-Za-z]:|\\\\[\w.$-]{1,80}+)\\{1,2}"
    r"(?:[\w.$@()-]++(?:\x20[\w.$@()-]++){0,3}+\\{1,2}){0,40}+[\w.$@-]*+",
    "phone": r"(?<![\w+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,5}(?:[ .-]\d{2,8}){1,4}(?!\w)"
    r"|(?<!\w)\(\d{3}\) ?\d{3}-\d{4}(?!\w)",
    "number": rf"(?<![\w.,])(?:{_CURRENCY}{_GAP}?)?[-+−±~≈]?[$€£¥₹]?{_GAP}?{_NUMBER}"
    rf"(?:{_GAP}?–{_GAP}?[$€£]?{_NUMBER})?+"
    rf"(?:{_GAP}?{_UNIT}(?![\p{{L}}\p{{N}}]))?+(?:{_GAP}per{_GAP}\w{{1,24}}+)?+",
    "math": r"(?<![\\$\w])\$\$?(?![\s$])[^$\n]{1,160}(?<!\s)\$\$?(?![\d$])|\\[(\[][^\n]{1,160}?\\[)\]]"
    r"|\\[A-Za-z]{2,30}(?:\{[^{}\n]{0,80}\}){1,3}",
    "code": r"`(?![\s`])[^`\n]{0,160}(?:\n[^`\n]{1,160})?(?<!\s)`|\$\{[\w:.-]{1,80}\}",
    "quoted": r"(?<!\w)\"[^\"\n]{1,80}\"(?!\w)|“[^”\n]{1,80}”|«[^»\n]{1,80}»|(?<!\w)'[^'\s]{1,60}'(?!\w)",
    "fence": r"^[ \t]*+(?P<fence>```|~~~)[^\n]*\n(?s:.*?)^[ \t]*+(?P=fence)[^\n]*$",
}
"""Facts that may hold white space, or characters that end a run."""

_RUN = regex.compile(r"[^\s\"'`<>(),;{}\[\]|“”«»]++")
_EMAIL = regex.compile(r"[\w.+-]++@[\w-]++(?:\.[\w-]++)++")
_UUID = regex.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FLAG = regex.compile(r"--?[A-Za-z].*+")
_VARIABLE = regex.compile(r"\$\w++|%[A-Z_]\w*+%|[A-Z_][A-Z0-9_]{2,}+=.++")
_EXTENSION = regex.compile(r"[\w.@+~-]++/(?:[\w.@+~-]++/)*+[\w@+~-]*+(?:\.[\w@+~-]++)++(?::\d++)*+")
_ROOTED = regex.compile(r"(?:~|\.{1,2}|[A-Za-z]:)?[/\\]+\w.*+")
_HASH = regex.compile(r"0[xX][0-9a-fA-F]++|[0-9a-f]{7,}+|(?:sha\d++|md5):[0-9a-fA-F]++")
_CAMEL = regex.compile(r"\p{Ll}++\p{Lu}\w*+|(?:\p{Lu}\p{Ll}++){2,}+")
_DOTTED = regex.compile(r"\w{2,}+(?:\.\w++)++|\w++\.\w{2,}+(?:\.\w++)*+")
_TAG = regex.compile(r"[#@][\w-]++")
_INNER = regex.compile(r"[\p{L}\p{N}](?:_++|::)[\p{L}\p{N}]|^_++[\p{L}\p{N}]")
_DIGIT, _LETTER, _LOWER = (regex.compile(one) for one in (r"\p{N}", r"\p{L}", r"\p{Ll}"))


def _is_hash(run: str) -> bool:
    return bool(_HASH.fullmatch(run)) and bool(_DIGIT.search(run) or len(run) >= 16)


def _is_path(run: str) -> bool:
    if "/" not in run and "\\" not in run:
        return False
    return bool(_ROOTED.fullmatch(run) or run.count("/") > 1 or _EXTENSION.fullmatch(run) or _is_coded(run))


def _is_coded(run: str) -> bool:
    return bool(_DIGIT.search(run) and _LETTER.search(run))


def _is_identifier(run: str) -> bool:
    return _is_coded(run) or bool(_INNER.search(run)) or bool(_DOTTED.fullmatch(run)) or _is_random(run)


def _is_random(run: str) -> bool:
    """Base64 and its like: long, with capitals inside."""
    return len(run) >= 20 and run.isascii() and not run.isupper() and any(char.isupper() for char in run[1:])


RUNS: dict[str, Callable[[str], object]] = {
    "email": _EMAIL.fullmatch,
    "uuid": _UUID.fullmatch,
    "path": _is_path,
    "flag": _FLAG.fullmatch,
    "hash": _is_hash,
    "variable": _VARIABLE.fullmatch,
    "identifier": _is_identifier,
    "camel": _CAMEL.fullmatch,
    "tag": _TAG.fullmatch,
}
"""Facts without white space: whether a run, less the punctuation around it, is one."""


def runs(text: str) -> Iterator[tuple[int, str]]:
    """Where each run of characters begins that might be a fact, and the run less the punctuation around it."""
    for match in _RUN.finditer(text):
        run = match.group()
        if run.isalpha() and (run.islower() or run[1:].islower() or run.isupper()) and len(run) < 16:
            continue
        bare = run.lstrip(".,:!?=…*+&").rstrip(".,:!?=…*+&\\-")
        if len(bare) > 1:
            yield match.start() + run.index(bare), bare
