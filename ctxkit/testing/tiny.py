"""A real Llama with random weights and a byte-level tokenizer, built in code: true counts, true logits, no files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctxkit.models.extras import require_local
from ctxkit.tokens import TemplateCounter

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    from ctxkit.models.local import LocalModel

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MERGES = ("Ġ t", "h e", "Ġt he", "i n", "e r", "a n", "o n", "r e", "Ġ a", "Ġ s", "e s", "in g", "Ġ Ġ", "Ċ Ċ")

TINY_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}\n{{ call['function'] | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML, with tools and tool calls as JSON."""


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE: three special tokens, the 256 bytes and a few merges; digits are split one by one."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    merges = [(left, right) for left, right in (merge.split(" ") for merge in _MERGES)]
    pieces = [*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet()), *(left + right for left, right in merges)]
    tokenizer = Tokenizer(BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges))
    splitter = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    tokenizer.pre_tokenizer = splitter  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = ByteLevelDecoder()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def tiny_counter(name: str = "tiny-llama") -> TemplateCounter:
    """The exact counter of the tiny model."""
    variables = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    return TemplateCounter(tiny_tokenizer(), TINY_TEMPLATE, name=name, variables=variables)


def tiny_llama_config(window_tokens: int = 2048) -> LlamaConfig:
    """2 layers, 4 heads over 2 key-value heads, hidden size 64."""
    require_local("torch", "transformers")
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=tiny_tokenizer().get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window_tokens,
        initializer_range=0.2,  # wider than usual, so that the next token is seldom a near tie
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )


def tiny_llama(seed: int = 0, window_tokens: int = 2048) -> LlamaForCausalLM:
    """Random float32 weights, the same for the same seed. Leaves torch's global generator as it was."""
    config = tiny_llama_config(window_tokens)
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval()


def tiny_model(seed: int = 0, window_tokens: int = 2048, **options: Any) -> LocalModel:
    """The tiny Llama behind LocalModel, with its options: it answers gibberish, but exactly as a large model would."""
    weights = tiny_llama(seed, window_tokens)
    from ctxkit.models.local import LocalModel

    return LocalModel(weights, tiny_counter(), **options)
