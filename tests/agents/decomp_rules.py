"""Models that follow rules on the data of decomposed prompting: letter concatenation, reversal, CommaQA-E.

Each world has a decomposer, which writes the grammar, and the handlers that answer. They know how, not what: letters,
items and facts come from the questions and passages. A wrong result is a fault of the machine between them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxkit.models.requests import Request
from ctxkit.testing import ScriptedModel
from ctxkit_agents.decomposed import Decomposed, Extract, PromptedModel, Recurse

Rule = Callable[[str, list[str]], str]
"""From the question and the lines so far to the next line."""


@dataclass(frozen=True)
class Case:
    """answer: as the data has it. passage: what it is about, "" for none."""

    question: str
    answer: list[str]
    passage: str = ""


def cases(file: Path) -> Iterator[Case]:
    for entry in json.loads(file.read_text(encoding="utf-8")).values():
        for pair in entry["qa_pairs"]:
            yield Case(pair["question"], pair["answer"]["spans"], entry["passage"])


def decomposer(rule: Rule, name: str = "decomposer") -> ScriptedModel:
    """A model that reads the QC block at the end of its prompt and writes what the rule says."""

    def reply(request: Request) -> str:
        asked = [message.content for message in request.messages if message.content.startswith("QC:")][-1]
        first, *lines = asked.splitlines()
        return rule(first.removeprefix("QC: "), lines)

    return ScriptedModel(reply, window_tokens=2048, name=name)


def planned(*steps: str, done: int) -> str:
    """The step after `done`, or the end."""
    return f"QS: {steps[done]}" if done < len(steps) else "QS: [EOQ]"


# --- letters ---------------------------------------------------------------------------------------------------------

_LETTERS = re.compile(r'Take the letters at position (\d+) of the words in "(.+)" and concatenate them using a space\.')


def letters_rule(question: str, lines: list[str]) -> str:
    found = _LETTERS.fullmatch(question)
    assert found, question
    return planned(
        f'(select) [split] What are the words in "{found[2]}"?',
        f'(project_values) [letter] What is the letter at position {found[1]} in "#1"?',
        "(select) [merge] Concatenate #2 using a space.",
        done=len(lines) // 2,
    )


def split(question: str) -> list[str]:
    """The words of a quoted text."""
    return str(re.findall(r'"(.*)"', question)[0]).split()


def merge(question: str) -> str:
    """Puts a list together with spaces."""
    return " ".join(json.loads(re.findall(r"\[.*\]", question)[0]))


def letter(request: Request) -> str:
    place, word = re.findall(r'position (\d+) in "(.*)"', request.messages[-1].content)[-1]
    return json.dumps(word[int(place) - 1])


def letters() -> Decomposed:
    reader = ScriptedModel(letter, window_tokens=512, name="letters")
    return Decomposed(
        decomposer(letters_rule), {"split": split, "letter": PromptedModel(reader, form="json"), "merge": merge}
    )


# --- reversal --------------------------------------------------------------------------------------------------------

LEAF_ITEMS = 4


def items_of(question: str) -> list[str]:
    return str(re.findall(r'"(.*)"', question)[-1]).split(", ")


def reverse_rule(question: str, lines: list[str]) -> str:
    """Halves until there are four or fewer, which a leaf reverses."""
    items = items_of(question)
    if len(items) <= LEAF_ITEMS:
        return planned(f"(select) [leaf] {question}", done=len(lines) // 2)
    half = len(items) // 2
    first, second = ", ".join(items[:half]), ", ".join(items[half:])
    return planned(
        f'(select) [extract] Half of {len(items)} is {half}. The first half is "{first}".',
        f'(select) [extract] {len(items) - half} items are left. The second half is "{second}".',
        "(select) [reverse] Reverse the sequence #1.",
        "(select) [reverse] Reverse the sequence #2.",
        "(select) [join] [#4, #3]",
        done=len(lines) // 2,
    )


def join(question: str) -> str:
    """Joins a list of sequences."""
    return ", ".join(json.loads(question))


def reverse_leaf(request: Request) -> str:
    return json.dumps(", ".join(reversed(items_of(request.messages[-1].content))))


def reversal(max_depth: int = 8) -> Decomposed:
    leaf = PromptedModel(ScriptedModel(reverse_leaf, window_tokens=512, name="leaf"), form="json")
    handlers: dict[str, Any] = {"extract": Extract(), "reverse": Recurse(), "leaf": leaf, "join": join}
    return Decomposed(decomposer(reverse_rule), handlers, max_depth=max_depth)


# --- CommaQA-E -------------------------------------------------------------------------------------------------------

_SELECT_PEOPLE = {
    "country": ("people", "Who is from the country {0}?"),
    "year": ("people", "Who was born in the year {0}?"),
    "people": ("awards", "Who won the award {0}?"),
    "movies": ("awards", "Which movies won the award {0}?"),
}
_MOVIES_OF = {
    "act": "Which movies has #1 acted in?",
    "produc": "Which movies has #1 produced?",
    "writ": "Which movies has #1 written?",
    "direct": "Which movies has #1 directed?",
}
_PEOPLE_OF = {"actors": "Who acted in the movie #1?", "directors": "Who directed the movie #1?"}
_AWARDS_OF = "Which awards has #2 won?"


def comma_rule(question: str, lines: list[str]) -> str:
    return planned(*_comma_steps(question), done=len(lines) // 2)


def _comma_steps(question: str) -> list[str]:
    if found := re.fullmatch(
        r"What awards have the (actors|directors) of the (.+) winning movies received\?", question
    ):
        return [
            _selecting("movies", found[2]),
            _mapping("people", _PEOPLE_OF[found[1]]),
            _mapping("awards", _AWARDS_OF),
        ]
    if found := re.fullmatch(r"What awards did the movies (direct)ed by the (.+) winners receive\?", question):
        return [
            _selecting("people", found[2]),
            _mapping("movies", _MOVIES_OF[found[1]]),
            _mapping("awards", _AWARDS_OF),
        ]
    if found := re.fullmatch(r"What awards have movies (\w+?)(?:ed|ten) by people (born in|from) (.+) won\?", question):
        movies = _MOVIES_OF[found[1].replace("writt", "writ")]
        return [_selecting(_by(found[2]), found[3]), _mapping("movies", movies), _mapping("awards", _AWARDS_OF)]
    found = re.fullmatch(
        r"What movies have (?:the )?(?:people|directors) (born in|from)(?: the country)? (.+?) "
        r"(act|direct|writ)\w+(?: in)?\?",
        question,
    )
    assert found, question
    return [_selecting(_by(found[1]), found[2]), _mapping("movies", _MOVIES_OF[found[3]])]


def _by(words: str) -> str:
    return "year" if words == "born in" else "country"


def _selecting(by: str, name: str) -> str:
    handler, asked = _SELECT_PEOPLE[by]
    return f"(select) [{handler}] {asked.format(name)}"


def _mapping(handler: str, asked: str) -> str:
    return f"(project_values_flat_unique) [{handler}] {asked}"


_SAID = {
    "act": (r"(?P<who>.+) (?:acted in|was an actor in) the movie (?P<what>.+)",),
    "produc": (
        r"(?P<who>.+) was one of the producers of the movie (?P<what>.+)",
        r"(?P<who>.+) produced the movie (?P<what>.+) with others",
    ),
    "writ": (
        r"movie: (?P<what>.+) ; (?:writer|written by): (?P<who>.+)",
        r"(?P<who>.+) wrote for the movie (?P<what>.+)",
        r"(?P<who>.+) was one of the writers for the movie (?P<what>.+)",
    ),
    "direct": (r"movie: (?P<what>.+) ; (?:director|directed by): (?P<who>.+)",),
    "won": (
        r"(?:movie|person): (?P<who>.+) ; (?:award|awarded): (?P<what>.+)",
        r"award: (?P<what>.+) ; winner: (?P<who>.+)",
        r"(?P<what>.+) was awarded to (?P<who>.+)",
        r"(?P<who>.+) won the (?P<what>.+) award",
    ),
    "born": (r"(?P<who>.+) was born in (?:the year )?(?P<what>.+)",),
    "from": (r"(?P<who>.+) (?:is from the country|grew up in the nation) of (?P<what>.+)",),
}
_QUESTIONS: list[tuple[str, str, str]] = [  # pattern, relation, what is asked for
    (r"Who is from the country (.+)\?", "from", "who"),
    (r"Who was born in the year (.+)\?", "born", "who"),
    (r"Who won the award (.+)\?", "won", "who"),
    (r"Which movies won the award (.+)\?", "won", "who"),
    (r"Who acted in the movie (.+)\?", "act", "who"),
    (r"Who directed the movie (.+)\?", "direct", "who"),
    (r"Which movies has (.+) acted in\?", "act", "what"),
    (r"Which movies has (.+) produced\?", "produc", "what"),
    (r"Which movies has (.+) written\?", "writ", "what"),
    (r"Which movies has (.+) directed\?", "direct", "what"),
    (r"Which awards has (.+) won\?", "won", "what"),
]


def read_fact(question: str, passage: str) -> list[str]:
    """What the passage says about one relation of one name, in its order."""
    for pattern, relation, wanted in _QUESTIONS:
        if found := re.fullmatch(pattern, question):
            known = "what" if wanted == "who" else "who"
            told = [re.fullmatch(one, line) for line in re.split(r"\.\s*", passage) for one in _SAID[relation]]
            return [fact[wanted] for fact in told if fact and fact[known] == found[1]]
    raise AssertionError(question)


def reader(request: Request) -> str:
    """Answers the last line of its prompt from the passage above it."""
    *above, question = request.messages[-1].content.strip().splitlines()
    passage = re.sub(r"^\[\d+\] *", "", " ".join(above).strip())
    return json.dumps(read_fact(question, passage), ensure_ascii=False)


def comma() -> Decomposed:
    model = ScriptedModel(reader, window_tokens=1024, name="reader")
    prompted = PromptedModel(model, form="json")
    return Decomposed(decomposer(comma_rule), {"people": prompted, "movies": prompted, "awards": prompted})
