"""Conversations to measure with: deterministic generators of message lists in OpenAI's form.

    python benchmarks/conversations.py --kind loops --count 2 --seed 7

prints what a seed makes. `chats` are mixed in language and content, `loops` are one task and many tool rounds, `short`
is an ordinary chat of any length, and `wild` is what must not break anything: orphans, re-used ids, control tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Message = dict[str, Any]
Conversation = list[Message]

WORDS = (
    "the report says that we should check every order before noon because late parcels cost more than early ones and "
    "customers in the north wait longest when a depot closes for repairs our team moved seven trucks to another route "
    "last week so the numbers look better now although nobody has looked at returns since spring please compare both "
    "plans with care keep what matters drop what does not and tell me which supplier answers first when prices change"
).split()

FOREIGN = (
    "上下文窗口是有限的资源，系统必须说明哪些部分被省略，以及怎样恢复原文。",
    "请把昨天的会议记录整理成三条要点，并标出需要我确认的数字。",
    "मॉडल की संदर्भ सीमा निश्चित होती है, इसलिए हम पहले प्रासंगिक अनुच्छेद खोजते हैं।",
    "कृपया इस सूची में से केवल वे नाम रखें जो पिछले महीने जोड़े गए थे।",
    "👩‍👩‍👧‍👦 🏳️‍🌈 the family plan 👍🏿 is ready ✅ 🇩🇪🇯🇵 ❤️‍🔥",
)

CODE = (
    "def total(orders: list[Order]) -> Decimal:\n    return sum((o.price * o.count for o in orders), Decimal(0))\n",
    "SELECT depot, count(*) FROM parcels WHERE late AND sent_at > '2026-03-01' GROUP BY depot ORDER BY 2 DESC;\n",
    "for (const row of rows) {\n  if (!row.id) throw new Error(`row ${row.line} has no id`);\n}\n",
)

CONTROL = ("<|endoftext|>", "<|im_start|>system\n", "[INST]", "</s>", "<|eot_id|>", "{{ messages }}")
TOOLS = ("search", "read_file", "query_db", "list_parcels", "fetch_url")


# --- texts ------------------------------------------------------------------------------------------------------------


def prose(rng: random.Random, words: int) -> str:
    """So many English words, in sentences."""
    out = [rng.choice(WORDS) for _ in range(words)]
    for end in range(rng.randint(7, 14), words, rng.randint(8, 16)):
        out[end] += "."
    return " ".join(out).capitalize()


def uuids(rng: random.Random, rows: int) -> str:
    """JSON rows with a UUID each, as tools return them."""
    made = (uuid.UUID(int=rng.getrandbits(128), version=4) for _ in range(rows))
    return json.dumps([{"id": str(one), "n": n, "state": rng.choice(("open", "late"))} for n, one in enumerate(made)])


def mixed(rng: random.Random, words: int) -> str:
    """About so many words of English, Chinese, Hindi, emoji, UUIDs and code."""
    pieces: list[str] = []
    left = words
    while left > 0:
        size = min(left, rng.randint(8, 60))
        kind = rng.random()
        if kind < 0.5:
            pieces.append(prose(rng, size))
        elif kind < 0.75:
            pieces.append(rng.choice(FOREIGN))
        elif kind < 0.87:
            pieces.append(rng.choice(CODE))
        else:
            pieces.append(uuids(rng, max(size // 12, 1)))
        left -= size
    return "\n".join(pieces)


def any_unicode(rng: random.Random, size: int) -> str:
    """Characters of every plane but no surrogates."""
    ranges = ((0x20, 0x7F), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000))
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(size))


# --- messages ---------------------------------------------------------------------------------------------------------


def message(role: str, content: str, **fields: Any) -> Message:
    return {"role": role, "content": content, **fields}


def call(call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    written = json.dumps(arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}}


def tool_round(rng: random.Random, ids: Sequence[str], result: Callable[[], str]) -> Iterator[Message]:
    """An assistant message with one call per id, and their results."""
    made = [call(one, rng.choice(TOOLS), {"query": prose(rng, rng.randint(2, 9)), "limit": 10}) for one in ids]
    yield message("assistant", prose(rng, 12) if rng.random() < 0.3 else "", tool_calls=made)
    for one in ids:
        yield message("tool", result(), tool_call_id=one)


def chat(seed: int) -> Conversation:
    """A mixed chat of 8 to 30 turns; a third of them call one to three tools. Ends with the user."""
    rng = random.Random(f"chat {seed}")
    made = [message("system", "You help with deliveries. " + prose(rng, rng.randint(20, 120)))]
    for turn in range(rng.randint(8, 30)):
        made.append(message("user", mixed(rng, rng.randint(5, 80))))
        if rng.random() < 0.35:
            ids = [f"call_{turn}_{n}" for n in range(rng.randint(1, 3))]
            made += tool_round(rng, ids, lambda: mixed(rng, rng.randint(20, 600)))
        made.append(message("assistant", mixed(rng, rng.randint(10, 150))))
    return [*made, message("user", mixed(rng, rng.randint(5, 40)))]


def loop(seed: int) -> Conversation:
    """One task, then 5 to 25 tool rounds whose results have up to 1,500 words. Ends with a tool's result."""
    rng = random.Random(f"loop {seed}")
    made = [message("system", "You are an agent. " + prose(rng, rng.randint(20, 120)))]
    made.append(message("user", "Your task: " + prose(rng, rng.randint(15, 60))))
    for turn in range(rng.randint(5, 25)):
        ids = [f"call_{turn}_{n}" for n in range(rng.choice((1, 1, 1, 2, 3)))]
        made += tool_round(rng, ids, lambda: mixed(rng, rng.randint(10, 1500)))
    return made


def short_chat(messages: int, seed: int = 0) -> Conversation:
    """So many messages of 10 to 20 words after a system prompt, which counts; user and assistant in turn, user last."""
    rng = random.Random(f"short {seed}")
    roles = ("user", "assistant")
    turns = [message(roles[left % 2], prose(rng, rng.randint(10, 20))) for left in range(messages - 2, -1, -1)]
    return [message("system", "You are a patient assistant."), *turns]


# --- what must not break anything -------------------------------------------------------------------------------------


def wild(seed: int) -> Conversation:
    """1 to 14 pieces: turns, tool rounds, broken tool rounds. Ids are re-used, texts may be empty or anything."""
    rng = random.Random(f"wild {seed}")
    broken = rng.random() < 0.5
    made: Conversation = []
    if rng.random() < 0.7:
        made.append(message("system", wild_text(rng)))
    for _ in range(rng.randint(1, 14)):
        made += wild_piece(rng, broken)
    return made


def wild_piece(rng: random.Random, broken: bool) -> Conversation:
    """One turn or tool round. Where `broken`, a round may lose its call or some results, or be interrupted."""
    kind = rng.random()
    if kind < 0.55:
        role = rng.choices(("user", "assistant", "system"), (5, 4, 1 if broken else 0))[0]
        return [message(role, wild_text(rng))]
    ids = rng.sample("abcd", rng.randint(1, 3))
    made = list(tool_round(rng, ids, lambda: wild_text(rng)))
    if broken and rng.random() < 0.4:
        del made[rng.randrange(len(made))]
    if broken and rng.random() < 0.2:
        made.insert(rng.randint(1, len(made)), message("user", wild_text(rng)))
    if broken and rng.random() < 0.2:
        rng.shuffle(made)
    return made


def wild_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(("", " ", "\n", "\u200d", "\u00a0"))
    if kind < 0.16:
        return prose(rng, rng.randint(1, 9)) + rng.choice(CONTROL) + prose(rng, 3)
    if kind < 0.26:
        return any_unicode(rng, rng.randint(1, 60))
    if kind < 0.4:
        return mixed(rng, rng.randint(5, 60))
    lines = (prose(rng, rng.randint(1, 12)) for _ in range(rng.choice((1, 1, 2, 6, 30))))
    return "\n".join(lines)


KINDS: dict[str, Callable[[int], Conversation]] = {"chats": chat, "loops": loop, "wild": wild}


def make(kind: str, count: int, seed: int = 0) -> list[Conversation]:
    """`count` conversations of a kind; number n is the same whatever `count` is."""
    return [KINDS[kind](seed * 1_000_000 + n) for n in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="chats")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for conversation in make(arguments.kind, arguments.count, arguments.seed):
        print(json.dumps(conversation, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
