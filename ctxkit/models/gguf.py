"""From a GGUF file to a model folder that transformers and tokenizers read: config, weights, tokenizer, chat template.

transformers de-quantises the weights and rebuilds the vocabulary, but it ignores `tokenizer.ggml.pre`, the name of the
rule that splits text before byte-pair encoding, and always takes GPT-2's. With the wrong rule the same text gets other
ids than the model was trained on (for SmolLM2, white space before digits). The rule is put back here from the
file's own metadata; an unknown one is an error, not a guess.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxkit.errors import ModelError
from ctxkit.models.extras import require_local

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

SPECIAL_TOKENS = ("bos", "eos", "unknown", "padding")
_CONFIG_KEYS = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes config.json, generation_config.json, model.safetensors (bfloat16), tokenizer.json,
    tokenizer_config.json and chat_template.jinja into `folder`.

    Takes about 20 seconds and 1.1 GB of memory for 135 million parameters. Raises MissingExtra, ModelError.
    """
    require_local("torch", "transformers", "gguf", "accelerate")
    metadata = read_metadata(source)
    write_tokenizer(source, metadata, folder)
    write_weights(source, folder)


def read_metadata(source: Path) -> dict[str, Any]:
    """The file's key-value metadata, without its long lists except `tokenizer.ggml.tokens`."""
    from gguf import GGUFReader

    fields = GGUFReader(source).fields
    skipped = ("tokenizer.ggml.merges", "tokenizer.ggml.scores", "tokenizer.ggml.token_type")
    return {key: field.contents() for key, field in fields.items() if key not in skipped}


def write_weights(source: Path, folder: Path) -> None:
    """Saves the de-quantised weights as bfloat16, which keeps more bits than the 4 or 8 they come from."""
    from transformers import AutoModelForCausalLM

    with _no_bars():
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        delattr(model.config, "quantization_config")  # else save_pretrained looks for a quantiser that can save GGUF
        setattr(model, "hf_quantizer", None)  # noqa: B010
        model.config.name_or_path = ""
        model.bfloat16().save_pretrained(folder)


def write_tokenizer(source: Path, metadata: dict[str, Any], folder: Path) -> None:
    from transformers import AutoTokenizer

    converted = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    tokenizer = repair_tokenizer(converted.backend_tokenizer, metadata)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.dumps(tokenizer_config(metadata), indent=2, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(config + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(metadata["tokenizer.chat_template"], encoding="utf-8")


def repair_tokenizer(tokenizer: Tokenizer, metadata: dict[str, Any]) -> Tokenizer:
    """`tokenizer` with the pre-tokeniser that the metadata names. Changes it and returns it."""
    if metadata.get("tokenizer.ggml.model") != "gpt2":
        return tokenizer  # SentencePiece vocabularies have no such rule
    name = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if name not in _PRE_TOKENIZERS:
        raise ModelError(f"unknown GGUF pre-tokeniser {name!r}; known: {', '.join(sorted(_PRE_TOKENIZERS))}")
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[name]()  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def tokenizer_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """What tokenizer_config.json says: special tokens by role and the window, from the metadata's ids."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {role: metadata.get(f"tokenizer.ggml.{role}_token_id") for role in SPECIAL_TOKENS}
    special = {_CONFIG_KEYS[role]: tokens[index] for role, index in ids.items() if index is not None}
    window_tokens = metadata[f"{metadata['general.architecture']}.context_length"]
    return {
        **special,
        "clean_up_tokenization_spaces": False,
        "model_max_length": window_tokens,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _gpt2() -> PreTokenizer:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    from tokenizers.pre_tokenizers import Digits, Sequence

    return Sequence([Digits(individual_digits=True), _gpt2()])


_PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {"gpt-2": _gpt2, "smollm": _smollm}


@contextmanager
def _no_bars() -> Iterator[None]:
    """Silences the progress bars of the conversion: one of them has no switch, so standard error is kept back."""
    with redirect_stderr(io.StringIO()):
        yield
