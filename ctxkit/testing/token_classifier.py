"""Small token classifiers with random weights, BERT and XLM-RoBERTa, written to a folder as the real ones are."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ctxkit.models.extras import require_local

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["bert", "xlm-roberta"]

_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + "äöüßéñ中文字日本語"
_PIECES = tuple("ing ed er est ly s tion ment al un re in 20 19 00".split())
_SPECIAL = {
    "bert": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "xlm-roberta": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
}


def tiny_token_classifier(
    folder: Path, kind: Kind = "bert", *, words: Sequence[str] = (), seed: int = 0, **config: Any
) -> Path:
    """Writes a keep-or-drop classifier: 2 layers, 2 heads, hidden size 32 unless `config` says otherwise.

    words: that are one token. The weights are the same for the same seed on every machine. The rows of "<s>", "</s>"
    and "<unk>" are one: llmlingua puts "<unk>" around windows, and comparing with it must not depend on that.
    """
    require_local("torch", "transformers")
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification, PreTrainedTokenizerFast

    tokenizer = _word_piece(words) if kind == "bert" else _unigram(words)
    special = _SPECIAL[kind]
    names = {f"{role}_token": token for role, token in special.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, **config}
    made = AutoConfig.for_model(
        kind,
        vocab_size=tokenizer.get_vocab_size(),
        max_position_embeddings=512 if kind == "bert" else 514,
        pad_token_id=tokenizer.token_to_id(special["pad"]),
        num_labels=2,
        **sizes,
    )
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForTokenClassification.from_config(made)
    _fill(model, seed)
    table = model.get_input_embeddings().weight.data
    if kind == "xlm-roberta":
        table[[tokenizer.token_to_id(special[role]) for role in ("cls", "sep")]] = table[
            tokenizer.token_to_id(special["unk"])
        ].clone()
    model.save_pretrained(folder)
    return folder


def _fill(model: Any, seed: int) -> None:
    """Weights of a generator that numpy has frozen; wide enough that probabilities differ from word to word."""
    import numpy as np
    import torch

    draw = np.random.RandomState(seed)
    for name, weight in sorted(model.named_parameters()):
        if "LayerNorm" in name:
            continue
        scale = 0.0 if name.endswith("bias") else 1.0 if "embeddings" in name else weight.shape[-1] ** -0.5
        weight.data = torch.from_numpy((draw.standard_normal(tuple(weight.shape)) * scale).astype(np.float32))


def _word_piece(words: Sequence[str]) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.decoders import WordPiece as WordPieceDecoder
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing

    inner = [f"##{piece}" for piece in (*_CHARACTERS, *_PIECES)]
    pieces = dict.fromkeys([*_SPECIAL["bert"].values(), *_CHARACTERS, *_PIECES, *inner, *words])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer: Any = Tokenizer(WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def _unigram(words: Sequence[str]) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.decoders import Metaspace as MetaspaceDecoder
    from tokenizers.models import Unigram
    from tokenizers.normalizers import NFKC, Replace
    from tokenizers.normalizers import Sequence as Normalizers
    from tokenizers.pre_tokenizers import Metaspace
    from tokenizers.processors import TemplateProcessing

    special = _SPECIAL["xlm-roberta"]
    first = [special[role] for role in ("cls", "pad", "sep", "unk")]
    pieces = dict.fromkeys([*first, "▁", *_CHARACTERS, *_PIECES, *(f"▁{word}" for word in words), special["mask"]])
    scores = [0.0 if piece in special.values() else -1.0 if len(piece) > 1 else -9.0 for piece in pieces]
    tokenizer: Any = Tokenizer(Unigram(list(zip(pieces, scores, strict=True)), unk_id=first.index(special["unk"])))
    tokenizer.normalizer = Normalizers([NFKC(), Replace("\n", " ")])
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.decoder = MetaspaceDecoder()
    ends = [(token, first.index(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return tokenizer
