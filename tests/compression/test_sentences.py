"""SentenceSelector: the question decides which sentences, the words only about the last of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ctxkit import passage
from ctxkit.compression.baselines import Head, NoStopWords, RandomWords, RareWords
from ctxkit.compression.by_question.antecedents import leans, lifted
from ctxkit.compression.by_question.asked import Asked
from ctxkit.compression.by_question.passage import LONG_TEXT, REACH, Passage, neighbourhoods
from ctxkit.compression.by_question.selector import SentenceSelector
from ctxkit.compression.by_question.sentence_scores import SentenceWeights
from ctxkit.compression.prepared import compress
from ctxkit.compression.router import by_question
from ctxkit.compression.sources.cut import Source
from ctxkit.compression.sources.joint import cut_together
from ctxkit.compression.sources.word_source import LateWordSource, WordSource
from ctxkit.compression.text.words import MARK, Words
from ctxkit.compression.text_compressor import TextCompressor, WordCompressor
from ctxkit.context.group import Group
from ctxkit.context.level import Level, LevelRequest
from ctxkit.protocols import Counter, Vectors
from ctxkit.retrieval.encoders import HashingEncoder
from ctxkit.testing import WhitespaceCounter

PANTHERS = (
    "Carolina had a strong defense that year under its coach. The Panthers defense gave up just 308 points in the "
    "season. They also led the league in interceptions with 24. The team trained in the mountains during the summer."
)
WARSAW = (
    "Warsaw is the capital of Poland and lies on the river. Marie Curie was born in the city in 1867. The museum of "
    "the scientist stands in the old town. The river is crossed by eight bridges of many kinds."
)
RAIN = "Rain falls where warm air rises and cools down. The drops grow until they are too heavy for the air."
TEXTS = [PANTHERS, WARSAW, RAIN]
POINTS = "How many points did the Panthers defense surrender?"
WORDS = WhitespaceCounter()


class TokenHash:
    """One vector per white-space word, by its letters; rows say where they stand, as ctxkit's own encoders do."""

    name = "token hash"
    fingerprint = "token hash"
    dims = 64
    multi_vector = True

    def __init__(self, *, spans: bool = True) -> None:
        self._spans = spans
        self.asked: list[str] = []

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._encoded(texts)

    def encode_documents(self, texts: Sequence[str], *, progress: bool = False) -> Vectors:
        self.asked += texts
        return self._encoded(texts)

    def _encoded(self, texts: Sequence[str]) -> Vectors:
        found = [[(at, at + len(word), word) for at, word in _words(text)] or [(0, 0, "")] for text in texts]
        vectors = HashingEncoder(dims=self.dims).encode_documents([word for some in found for _, _, word in some])
        offsets = np.cumsum([0, *map(len, found)])
        made = Vectors(vectors.values, offsets)
        if self._spans:
            spans = np.array([(start, end) for some in found for start, end, _ in some], np.int32)
            object.__setattr__(made, "spans", spans)
        return made


def _words(text: str) -> list[tuple[int, str]]:
    found, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        found.append((at, word))
        at += len(word)
    return found


def kept(texts: Sequence[str], selector: TextCompressor, tokens: int, question: str = POINTS) -> str:
    return compress(texts, selector, tokens=tokens, question=question, counter=WORDS).text


MATRIX = {
    "BM25": SentenceSelector(),
    "sentence vectors": SentenceSelector(HashingEncoder()),
    "token vectors": SentenceSelector(token_encoder=TokenHash()),
    "token vectors, nowhere": SentenceSelector(token_encoder=TokenHash(spans=False)),
    "all": SentenceSelector(HashingEncoder(), TokenHash()),
    "spread": SentenceSelector(spread=0.3),
    "no stop words": SentenceSelector(words=NoStopWords()),
    "loose": SentenceSelector(coherent=False, pins=None),
}


@pytest.fixture(params=MATRIX, ids=list(MATRIX))
def selector(request: pytest.FixtureRequest) -> SentenceSelector:
    return MATRIX[request.param]


def test_the_budget_goes_to_the_sentence_that_answers(selector: SentenceSelector) -> None:
    result = compress(TEXTS, selector, tokens=14, question=POINTS, counter=WORDS)
    assert "308" in result.texts[0]
    assert result.tokens <= 14


def test_other_texts_are_empty_when_there_is_no_room_for_them() -> None:
    result = compress(TEXTS, SentenceSelector(), tokens=10, question=POINTS, counter=WORDS)
    assert result.texts[0] and result.texts[1:] == ["", ""]


@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 9, 14, 30, 60])
def test_the_budget_holds_and_is_used(selector: SentenceSelector, tokens: int, counter: Counter) -> None:
    result = compress(TEXTS, selector, tokens=tokens, question=POINTS, counter=counter)
    assert result.tokens == sum(counter.count_batch(result.texts)) <= tokens


def test_smaller_sizes_are_prefixes_of_larger_ones(selector: SentenceSelector) -> None:
    sources = selector.sources(TEXTS, LevelRequest(POINTS, WORDS))
    last: list[set[int]] = [set(), set(), set()]
    for tokens in range(0, 60, 3):
        cuts = cut_together(TEXTS, sources, WORDS, tokens)
        places = [
            {i for f in cut.fragments if f.start is not None for i in range(f.start, f.end) if not text[i].isspace()}
            for cut, text in zip(cuts, TEXTS, strict=True)
            if cut is not None
        ]
        assert all(small <= large for small, large in zip(last, places, strict=True))
        last = places


def test_every_character_comes_from_the_source_or_is_a_mark(selector: SentenceSelector) -> None:
    for result in compress(TEXTS, selector, tokens=30, question=POINTS, counter=WORDS).results:
        for fragment in result.fragments:
            if fragment.start is None:
                assert fragment.text.strip() == MARK
            else:
                assert result.source[fragment.start : fragment.end] == fragment.text


def test_a_whole_sentence_stands_before_the_next_one_begins() -> None:
    texts = [PANTHERS.replace("They also", "Carolina")]
    words = [Words.of(texts[0])]
    scores = SentenceSelector(pins=None).scores(words, POINTS)[0]
    by_sentence = [[s for s, at in zip(scores, words[0].sentences, strict=True) if at == i] for i in range(4)]
    ordered = sorted(by_sentence, key=max, reverse=True)
    assert all(min(better) > max(worse) for better, worse in zip(ordered, ordered[1:], strict=False))


def test_spread_lets_strong_words_of_other_sentences_in() -> None:
    words = [Words.of(PANTHERS)]
    question = "How many points did the defense give up, and how many interceptions led the league?"
    scores = SentenceSelector(pins=None, spread=1.0, coherent=False).scores(words, question)[0]
    best = max(range(len(scores)), key=scores.__getitem__)
    own = [s for s, at in zip(scores, words[0].sentences, strict=True) if at == words[0].sentences[best]]
    others = [s for s, at in zip(scores, words[0].sentences, strict=True) if at != words[0].sentences[best]]
    assert max(others) > min(own)


def test_a_pronoun_brings_its_antecedent() -> None:
    question = "Who led the league in interceptions?"
    loose = kept([PANTHERS], SentenceSelector(coherent=False), 20, question)
    coherent = kept([PANTHERS], SentenceSelector(), 20, question)
    assert "They also led the league" in loose
    assert coherent.startswith("The Panthers") and "They also led the league" in coherent


def test_chains_of_leaning_sentences_lift_all_their_antecedents() -> None:
    raised = lifted([0.0, 0.1, 0.2, 1.0, 0.5], [False, True, True, True, False])
    assert raised[3] > raised[2] > raised[1] > raised[0] > 0.99
    assert raised[4] == 0.5


def test_a_sentence_that_stands_alone_lifts_nothing() -> None:
    assert lifted([0.1, 0.9], [False, False]) == [0.1, 0.9]
    assert not leans("Thistles grow here.") and leans("This grows here.") and leans("“But why?”")


def test_gaps_between_sentences_are_marked_and_those_at_the_ends_are_not() -> None:
    question = "How many points did the Panthers defense surrender, and where had the team trained in the summer?"
    text = kept([PANTHERS, RAIN], SentenceSelector(coherent=False), 21, question)
    sentences = Passage.of(PANTHERS).sentences
    assert text == f"{sentences[1].strip()} {MARK} {sentences[3].strip()}"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many points did they give up?", "308"),
        ("In what year was Curie born?", "1867"),
        ("Who was born?", "Marie"),
    ],
)
def test_words_of_the_kind_that_is_asked_for_go_last(question: str, answer: str) -> None:
    words = Words.of(next(text for text in TEXTS if answer in text))
    plain, lifted_ = (Asked(q).worth(words, [0.5] * len(words)) for q in ("Why?", question))
    at = next(i for i, word in enumerate(words.proper) if answer in word)
    assert lifted_[at] > plain[at]
    assert all(0 <= value <= 1 for value in lifted_)


def test_words_near_what_the_question_mentions_are_worth_more() -> None:
    words = Words.of("Rain fell all over the wide country while Curie studied physics quietly in cold Paris rooms.")
    worth = Asked("Did Curie study?").worth(words, [0.5] * len(words))
    at = words.proper.index("Curie")
    assert worth[at + 1] > worth[0]


def test_long_texts_are_understood_by_their_neighbourhoods() -> None:
    lines = "".join(f"This is line number {i}.\n" for i in range(LONG_TEXT + 20))
    short, long = Passage.of(PANTHERS), Passage.of(lines)
    ranges = neighbourhoods([short, long])
    assert ranges[: len(short)] == [(0, len(short))] * len(short)
    assert ranges[len(short) + REACH + 1] == (len(short) + 1, len(short) + 2 * REACH + 2)
    assert ranges[-1][1] == len(ranges) == len(short) + len(long)


def test_a_sentence_is_lifted_by_its_passage() -> None:
    padding = "Nobody knew how that had come about, and so the people of the town talked of it for years and years."
    texts = [f"It scored. The river rose. {padding}", f"It scored. The Panthers played well. {padding}"]
    alone = SentenceWeights(neighbourhood=0.0)
    question = "Who of the Panthers scored?"
    one, two = SentenceSelector(coherent=False), SentenceSelector(coherent=False, weights=alone)
    passages = [Passage.of(text) for text in texts]
    with_passage, without = (selector.sentence_scores(passages, question) for selector in (one, two))
    assert with_passage[1][0] > with_passage[0][0] + 1e-3
    assert without[1][0] == pytest.approx(without[0][0], abs=1e-4)


def test_texts_that_never_get_in_are_never_cut() -> None:
    texts = [f"Filler number {i} is about nothing. It goes on for a while." for i in range(200)]
    sources = SentenceSelector().sources([*texts, PANTHERS], LevelRequest(POINTS, WORDS))
    cut_together([*texts, PANTHERS], sources, WORDS, 20)
    opened = [source for source in sources if isinstance(source, LateWordSource) and "opened" in vars(source)]
    assert 1 <= len(opened) < 20


def test_late_sources_give_the_same_cuts_as_early_ones() -> None:
    selector = SentenceSelector()
    late = selector.sources(TEXTS, LevelRequest(POINTS, WORDS))
    early: list[Source | None] = [s.opened if isinstance(s, LateWordSource) else s for s in late]
    assert all(isinstance(source, WordSource) for source in early)
    for tokens in range(0, 90, 7):
        assert cut_together(TEXTS, early, WORDS, tokens) == cut_together(
            TEXTS, selector.sources(TEXTS, LevelRequest(POINTS, WORDS)), WORDS, tokens
        )


def test_no_word_of_a_late_source_scores_above_its_best(selector: SentenceSelector) -> None:
    for source in selector.sources(TEXTS, LevelRequest(POINTS, WORDS)):
        assert isinstance(source, LateWordSource)
        assert source.opened.best <= source.best


def test_what_was_encoded_for_one_question_is_there_for_the_next() -> None:
    encoder = TokenHash()
    selector = SentenceSelector(token_encoder=encoder)
    for question in (POINTS, "Where was Curie born?"):
        kept(TEXTS, selector, 20, question)
    assert sorted(encoder.asked) == sorted(TEXTS)


def test_token_vectors_are_made_for_the_shortlist_only() -> None:
    encoder = TokenHash()
    assert "308" in kept(TEXTS, SentenceSelector(token_encoder=encoder, shortlist=1), 14)
    assert encoder.asked == [PANTHERS]


def test_bm25_alone_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from ctxkit.compression.by_question.selector import SentenceSelector\n"
        "from ctxkit.compression.text.words import Words\n"
        "words = Words.of('The river rose. The defense gave up 308 points.')\n"
        "SentenceSelector().scores([words], 'How many points?')\n"
        "print([name for name in ('torch', 'numpy', 'sentence_transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("question", ["", "   ", "?", "zyzzyva qwertz"])
@pytest.mark.parametrize(
    "texts", [[], [""], ["one"], ["", PANTHERS, "  \n ", "word"], ["…", "a b"], ["雨が降る。川が増す。"]]
)
def test_degenerate_input_stays_within_the_budget(selector: SentenceSelector, texts: list[str], question: str) -> None:
    for tokens in (0, 1, 7, 1000):
        result = compress(texts, selector, tokens=tokens, question=question, counter=WORDS)
        assert result.tokens <= tokens
        assert len(result.texts) == len(texts)


def test_without_a_match_place_and_facts_decide() -> None:
    result = kept([PANTHERS], SentenceSelector(), 12, "zyzzyva")
    assert result and result.split()[0] in PANTHERS


@pytest.mark.parametrize("inner", [RareWords(), NoStopWords(), RandomWords(), Head()], ids=lambda inner: inner.name)
def test_the_inner_scorer_only_decides_within_sentences(inner: WordCompressor) -> None:
    texts = [Words.of(text) for text in TEXTS]
    scores = SentenceSelector(words=inner, pins=None).scores(texts, POINTS)
    usual = SentenceSelector(pins=None).scores(texts, POINTS)
    for words, own, other in zip(texts, scores, usual, strict=True):
        best = [_best_by_sentence(words, values) for values in (own, other)]
        assert best[0] == pytest.approx(best[1], abs=1e-5)


def _best_by_sentence(words: Words, scores: Sequence[float]) -> list[float]:
    return [
        max(score for score, at in zip(scores, words.sentences, strict=True) if at == i)
        for i in range(words.sentences[-1] + 1)
    ]


def test_wrong_arguments_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="as `token_encoder`"):
        SentenceSelector(TokenHash())
    with pytest.raises(ValueError, match="as `encoder`"):
        SentenceSelector(token_encoder=HashingEncoder())
    with pytest.raises(ValueError, match="`spread`"):
        SentenceSelector(spread=1.5)
    with pytest.raises(ValueError, match="`shortlist`"):
        SentenceSelector(shortlist=0)
    with pytest.raises(ValueError, match="`dense`"):
        SentenceWeights(dense=-1.0)


def named(levels: Iterable[Level]) -> set[str]:
    """What made them, without the kind of text."""
    return {level.method.split(" (")[0] for level in levels}


def test_the_router_asks_sentences_with_a_question_and_words_without(
    group_of: Callable[..., Group], request_of: Callable[..., LevelRequest]
) -> None:
    router, group = by_question(), group_of(passage(f"{PANTHERS} {WARSAW} {RAIN}"))
    with_question, without = request_of(POINTS), request_of("")
    assert named(router.joint_levels([group], with_question)[0]) == {"sentences"}
    assert named(router.joint_levels([group], without)[0]) == {"idf"}
    assert "308" in kept(TEXTS, router.asked, 14) and kept(TEXTS, by_question(), 14) == kept(TEXTS, router.asked, 14)


def test_threads_may_ask_at_once() -> None:
    selector = SentenceSelector()
    texts = [[f"Bird {i} of flock {n} is {i * n} days old. Nobody knows its name." for i in range(8)] for n in range(8)]

    def ask(n: int) -> list[str]:
        return compress(
            texts[n], selector, tokens=12, question=f"Bird 3 of flock {n}?", counter=WhitespaceCounter()
        ).texts

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(ask, [*range(8)] * 4))
    assert together == [ask(n) for n in range(8)] * 4
