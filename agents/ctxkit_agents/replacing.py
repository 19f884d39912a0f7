"""What stands in for a token that is left out: another one that could stand there."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Replacer(Protocol):
    """Words something else where a text has this. Equal input, the generator's state included, gives equal output."""

    def replacements(self, pieces: Sequence[str], places: Sequence[int], draw: Random) -> Sequence[str]:
        """A piece of text for each place. pieces: joined they are the text."""
        ...


class MaskedReplacer:
    """Replaces by what a masked language model finds likely, as ReAGent does (arXiv 2402.00794).

    model: a transformers masked language model (RoBERTa, BERT). tokenizer: its own, with a mask token.
    most: the likeliest tokens of which one is drawn, by probability; special tokens and the piece itself are none.

    A text with more tokens than the model takes is cut at its end; what lies behind stays as it is.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, most: int = 10) -> None:
        if tokenizer.mask_token is None:
            raise ValueError("`tokenizer` has no mask token; give the one of a masked language model")
        if most < 1:
            raise ValueError(f"`most` must be at least 1, got {most!r}")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.most = most

    def replacements(self, pieces: Sequence[str], places: Sequence[int], draw: Random) -> Sequence[str]:
        chosen = set(places)
        mask = str(self.tokenizer.mask_token)
        text = "".join(_space(piece) + mask if at in chosen else piece for at, piece in enumerate(pieces))
        rows = self._logits_at_masks(text)
        found = [self._drawn(row, pieces[place], draw) for place, row in zip(places, rows, strict=False)]
        return [*found, *(pieces[place] for place in places[len(found) :])]

    def _logits_at_masks(self, text: str) -> Any:
        """Logits at each mask in order, [masks, vocabulary]."""
        import torch

        tokenizer: Any = self.tokenizer
        longest = int(self.model.config.max_position_embeddings) - 2  # RoBERTa counts positions from 2
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=longest)
        with torch.inference_mode():
            logits = self.model(**encoded.to(self.model.device)).logits[0].float().cpu()
        return logits[encoded["input_ids"][0].cpu() == tokenizer.mask_token_id]

    def _drawn(self, logits: Any, piece: str, draw: Random) -> str:
        logits[list(self.tokenizer.all_special_ids)] = float("-inf")
        values, tokens = logits.softmax(-1).topk(min(self.most, len(logits)))
        words = [str(self.tokenizer.decode([int(token)])).strip().removeprefix("##") for token in tokens]
        likely = [
            (word, float(value)) for word, value in zip(words, values, strict=True) if word not in ("", piece.strip())
        ]
        if not likely:
            return piece
        return _space(piece) + draw.choices([word for word, _ in likely], [value for _, value in likely])[0]


def _space(piece: str) -> str:
    """The white space that a piece begins with."""
    return piece[: len(piece) - len(piece.lstrip())]
