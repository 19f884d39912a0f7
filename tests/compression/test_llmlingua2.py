"""LLMLingua-2: the decisions of the published implementation, and what this one promises on top."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ctxkit.compression.llmlingua2 import LLMLingua2, forced_spans
from ctxkit.compression.prepared import compress
from ctxkit.compression.sources.word_source import WordSource
from ctxkit.compression.text.words import Words
from ctxkit.errors import MissingExtra, ModelError, ModelNotFound
from ctxkit.testing.token_classifier import tiny_token_classifier

pytest.importorskip("torch")
pytest.importorskip("transformers")

RECORDED = json.loads((Path(__file__).parent / "data" / "llmlingua_decisions.json").read_text(encoding="utf-8"))
OPTIONS = {"force_reserve_digit": "reserve_digits"}
KINDS = ("bert", "xlm-roberta")
DEGENERATE = ["", "  ", "\n", "\x00", "\ud800", "x\ud800y z", "\u200b\u200b", "中文字", "🎉", "a", "[SEP] </s>"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("classifiers")
    return {kind: tiny_token_classifier(folder / kind, kind, words=RECORDED["words"]) for kind in KINDS}


@pytest.fixture(params=KINDS)
def checkpoint(request, checkpoints) -> Path:
    return checkpoints[request.param]


@pytest.fixture
def bert(checkpoints) -> Path:
    return checkpoints["bert"]


def of(*texts: str) -> list[Words]:
    return [Words.of(text) for text in texts]


def kept(words: Words, scores, count: int, counter) -> set[int]:
    return set(WordSource(words, scores, counter).order[:count])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", range(len(RECORDED["cases"])))
def test_words_are_kept_as_llmlingua_keeps_them(kind, place, checkpoints, counter):
    """Of each text as many words as llmlingua 0.2.2 kept: at least 99.5 % of its decisions."""
    case = {OPTIONS.get(name, name): value for name, value in RECORDED["cases"][place].items() if name != "rate"}
    if "force_tokens" in case:
        case["force_tokens"] = tuple(case["force_tokens"])
    compressor = LLMLingua2(checkpoints[kind], device="cpu", **case)
    wrong = total = 0
    for text, labels in zip(RECORDED["texts"], RECORDED["kept"][kind][place], strict=True):
        (words,) = of(text)
        (scores,) = compressor.scores([words], "")
        ours = kept(words, scores, labels.count("1"), counter)
        assert len(labels) == len(words)
        wrong += sum((i in ours) != (label == "1") for i, label in enumerate(labels))
        total += len(labels)
    assert wrong <= 0.005 * total


def test_scores_do_not_depend_on_neighbours(checkpoint):
    compressor = LLMLingua2(checkpoint, device="cpu")
    texts = of(*RECORDED["texts"], "one short text", " ".join(RECORDED["texts"]))
    together = compressor.scores(texts, "")
    for words, scores in zip(texts, together, strict=True):
        assert np.allclose(compressor.scores([words], "")[0], scores, atol=1e-5)
    assert compressor.scores(texts, "") == together
    assert LLMLingua2(checkpoint, device="cpu").scores(texts, "") == together


def test_degenerate_texts_have_a_score_per_word(checkpoint, counter):
    compressor = LLMLingua2(checkpoint, device="cpu", force_tokens=("a",), reserve_digits=True, keep_texts=0.5)
    texts = of(*DEGENERATE)
    scores = compressor.scores(texts, "")
    assert [len(of_text) for of_text in scores] == [len(words) for words in texts]
    assert np.isfinite([score for of_text in scores for score in of_text]).all()
    assert compressor.scores([], "") == [] and compressor.scores(of(""), "") == [[]]
    assert compress(
        [text for text in DEGENERATE if text != "\ud800" and "\ud800" not in text],
        compressor,
        rate=0.5,
        counter=counter,
    )


def test_a_budget_over_several_texts_is_kept_and_rate_1_changes_nothing(bert, counter):
    compressor = LLMLingua2(bert, device="cpu")
    texts = [*RECORDED["texts"][:3], "A line.\n\n\tAnother  line; don't lose $1,234.56!"]
    half = compress(texts, compressor, rate=0.5, counter=counter)
    assert 0.45 <= half.rate <= 0.5
    assert compress(texts, compressor, rate=1.0, counter=counter).texts == texts


def test_probabilities_are_those_of_transformers(checkpoint):
    """The wordwise mean of softmax(logits)[..., 1], with the tokenizer's own special tokens."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForTokenClassification.from_pretrained(checkpoint).eval()
    text = "the meeting of council began"
    with torch.inference_mode():
        logits = model(
            **{k: v for k, v in tokenizer(text, return_tensors="pt").items() if k != "token_type_ids"}
        ).logits
    expected = torch.softmax(logits, -1)[0, 1:-1, 1].numpy()
    (scores,) = LLMLingua2(checkpoint, device="cpu").scores(of(text), "")
    assert np.allclose(scores, expected, atol=1e-5)


def test_forced_words_and_phrases_come_first(bert):
    compressor = LLMLingua2(bert, device="cpu", force_tokens=("?", "the meeting", "council"))
    (words,) = of("We saw the meeting? A councillor, the council and 3.5?x the\nmeeting")
    (scores,) = compressor.scores([words], "")
    assert [word for word, score in zip(words.proper, scores, strict=True) if score == 1.0] == [
        "the",
        "meeting",
        "?",
        "council",
    ]
    assert [words.proper[a:b] for a, b in forced_spans(words, frozenset({"3.5", "x"}))] == []


def test_digits_count_as_kept_by_token(bert):
    words = of("We read 2019 and a17b")
    free, reserved = (LLMLingua2(bert, device="cpu", reserve_digits=on).scores(words, "")[0] for on in (False, True))
    assert reserved[2] == 1.0 > free[2]
    assert free[4] < reserved[4] < 1.0
    assert [free[i] for i in (0, 1, 3)] == [reserved[i] for i in (0, 1, 3)]


def test_a_repeated_force_token_stays_only_with_a_word_between(bert, counter):
    words = Words.of("Smith read. was need. . We")
    options = {"device": "cpu", "force_tokens": (".",)}
    plain, dropping = (LLMLingua2(bert, drop_consecutive=on, **options).scores([words], "")[0] for on in (False, True))
    assert [plain[i] for i in (2, 5, 6)] == [1.0, 1.0, 1.0]
    assert [dropping[i] for i in (2, 5, 6)] == [1.0, max(plain[3:5]), 0.0]
    best = max((3, 4), key=lambda i: plain[i])
    order = WordSource(words, dropping, counter).order
    assert order.index(best) < order.index(5)


def test_texts_that_matter_least_go_first(bert):
    texts = of(*RECORDED["texts"])
    free = LLMLingua2(bert, device="cpu").scores(texts, "")
    filtered = LLMLingua2(bert, device="cpu", keep_texts=0.5).scores(texts, "")
    by_mean = sorted(range(len(texts)), key=lambda i: np.mean(free[i]))
    dropped = {i for i in range(len(texts)) if max(filtered[i]) < 0}
    assert dropped == set(by_mean[: len(texts) // 2])
    assert all(np.allclose(np.array(filtered[i]) + 2.0 * (i in dropped), free[i], atol=1e-6) for i in range(len(texts)))
    assert LLMLingua2(bert, device="cpu", keep_texts=0.5).scores(texts[:1], "") == free[:1]


def test_threads_are_put_back(bert):
    import torch

    before = torch.get_num_threads()
    LLMLingua2(bert, device="cpu", threads=before + 1).scores(of("the meeting"), "")
    assert torch.get_num_threads() == before


def test_bfloat16_ranks_nearly_alike(checkpoint, counter):
    texts = of(*RECORDED["texts"])
    assert agreement(checkpoint, texts, "bfloat16", counter) >= 0.97


def test_int8_ranks_nearly_alike_and_is_converted_once(bert, counter, tmp_path, monkeypatch):
    for package in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(package, reason=f"the extra onnx is not installed: no {package}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    texts = of(*RECORDED["texts"])
    assert agreement(bert, texts, "int8", counter) >= 0.85
    (made,) = tmp_path.rglob("*.onnx")
    stamp = made.stat().st_mtime_ns
    LLMLingua2(bert, device="cpu", precision="int8").scores(texts[:1], "")
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("*.onnx")] == [stamp]


def agreement(checkpoint: Path, texts: list[Words], precision: str, counter) -> float:
    """Share of the words for which half of each text is decided alike."""
    first, second = (
        LLMLingua2(checkpoint, device="cpu", precision=p).scores(texts, "") for p in ("float32", precision)
    )
    differing = sum(
        len(kept(words, a, len(words) // 2, counter) ^ kept(words, b, len(words) // 2, counter))
        for words, a, b in zip(texts, first, second, strict=True)
    )
    return 1 - differing / sum(map(len, texts))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"architectures": ["BertModel"]}, "no token classifier"),
        ({"architectures": None}, "no known kind"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}, "3 labels"),
        ({"model_type": "unheard-of"}, "config.json"),
    ],
)
def test_a_model_of_another_kind_is_refused(change, said, bert, tmp_path):
    folder = Path(shutil.copytree(bert, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFound, match=said):
        LLMLingua2(folder).scores(of("a b"), "")


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", Path("nowhere"), "nobody/no-such-model"])
def test_a_model_that_is_not_there_is_a_typed_error(name):
    with pytest.raises(ModelError, match=r"nowhere|such"):
        LLMLingua2(name).scores(of("a b"), "")


def test_a_missing_package_names_the_extra(bert, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    with pytest.raises(MissingExtra, match="local"):
        LLMLingua2(bert).scores(of("a b"), "")


@pytest.mark.parametrize(
    "options",
    [
        {"keep_texts": 0},
        {"keep_texts": 1.5},
        {"token_to_word": "max"},
        {"force_tokens": ".,"},
        {"precision": "float8"},
        {"threads": 0},
    ],
)
def test_wrong_options_are_refused(options, bert):
    with pytest.raises(ValueError, match=next(iter(options))):
        LLMLingua2(bert, **options).scores(of("a b"), "")
