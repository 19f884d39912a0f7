"""LocalSession: one text in a local model's memory, to be read on, gone back in and branched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ctxkit.errors import PromptError
from ctxkit.models.local.paging.context import KVContext
from ctxkit.models.local.paging.saved import SavedPages, capture
from ctxkit.models.local.policies.base import Policy, Span
from ctxkit.models.local.prefixes import common_tokens
from ctxkit.models.requests import GREEDY, Promptable
from ctxkit.models.streams import PieceStream, drain
from ctxkit.protocols import Reply, Sampling, Tool

if TYPE_CHECKING:
    from ctxkit.models.local.model import LocalModel

EMBEDDED = -1
"""The id of a token that was read as an input embedding."""


@dataclass(frozen=True)
class Synced:
    """What a sync did: tokens that were there already, and tokens that were read."""

    reused: int
    read: int


class LocalSession:
    """A text that the model has read, token by token, under one policy.

    `step` reads on, `crop` goes back, `fork` branches, and `sync_text` makes the text another one at the cost of what
    differs. Nothing is read twice that is still in memory. Not for several threads at once; several sessions are.

    with model.session() as session: closes it, which gives its memory back.
    """

    def __init__(self, model: LocalModel, policy: Policy | None = None, *, context: KVContext | None = None) -> None:
        self.model = model
        self.engine = model.engine
        self.context = context if context is not None else self.engine.new_context(policy)
        self._logits: Tensor | None = None

    def __repr__(self) -> str:
        return f"LocalSession({self.model.name!r}, {self.policy!r}, {len(self):,} tokens, {self.kv_bytes:,} bytes)"

    def __len__(self) -> int:
        """Tokens of the text, whether or not they are still in memory."""
        return len(self.context)

    def __enter__(self) -> LocalSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def policy(self) -> Policy:
        return self.context.policy

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self.context.ids)

    @property
    def whole_from(self) -> int:
        """Going back to fewer tokens than this means to read the text again from its beginning."""
        return self.context.exact_from

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values in memory; pages shared with a fork count in both."""
        return self.context.used_bytes

    @property
    def bytes_touched(self) -> int:
        """Bytes of keys, values and what stands for them that all passes together have read."""
        return self.context.bytes_touched

    @property
    def logits(self) -> np.ndarray:
        """Logits after the last token, float32 [vocabulary]. Raises PromptError before the first token."""
        if not len(self):
            raise PromptError("nothing was read yet; give `step` at least one id")
        if self._logits is None:  # after a crop: the last token is read again
            self._reread(self.ids)
        assert self._logits is not None
        return self._logits.cpu().numpy()

    # --- reading -----------------------------------------------------------------------------------------------

    def step(self, ids: Sequence[int]) -> np.ndarray:
        """Reads ids; the logits after the last, float32 [vocabulary]. Raises PromptError, MemoryInsufficient."""
        ids = self.model.checked(ids, len(self), self.policy)
        self.engine.check(self.context, len(ids))
        self._logits = self.engine.prefill(ids, self.context)
        return self.logits

    def step_embeddings(self, vectors: np.ndarray | Tensor) -> np.ndarray:
        """Reads input embeddings [n, hidden size] in place of tokens, which have the id -1; logits as `step`."""
        vectors = torch.as_tensor(vectors)
        self.model.check_length(len(self) + len(vectors), self.policy)
        self.engine.check(self.context, len(vectors))
        self._logits = self.engine.forward([EMBEDDED] * len(vectors), self.context, embeddings=vectors)[-1]
        return self.logits

    def generate(self, sampling: Sampling = GREEDY, *, tools: Sequence[Tool] = ()) -> Reply:
        """Answers the text as it stands, and has the answer in it then; see `stream`."""
        return drain(self.stream(sampling, tools=tools))

    def stream(self, sampling: Sampling = GREEDY, *, tools: Sequence[Tool] = ()) -> PieceStream:
        """Answers piece by piece, as `LocalModel.stream` does, from what is in memory.

        The text then ends with the answer, but for what the model says only to end it. tools: of the prompt, so that a
        call in the answer is known as one. Raises PromptError, MemoryInsufficient.
        """
        if not len(self):
            raise PromptError("nothing was read yet; give `step` or `sync_prompt` something to answer")
        self.model.check_length(len(self), self.policy, sampling.max_tokens)
        return PieceStream(self.model.answer_to(self.ids, tools, sampling, session=self))

    @contextmanager
    def answering(self, max_tokens: int) -> Iterator[tuple[KVContext, Tensor]]:
        """For an answer that is being made: the context, which it appends to, and the logits after the text."""
        self.engine.check(self.context, max_tokens)
        logits = torch.from_numpy(self.logits)
        self._logits = None
        yield self.context, logits

    def end_turn(self) -> None:
        """Tells the policy that a turn is over: some keep less then."""
        self.engine.settle(self.context, "turn")

    def score(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probability (natural) of each of `ids` after the text, float32 [n]; the text stays as it is."""
        if not ids:
            return np.zeros(0, np.float32)
        first = torch.from_numpy(self.logits)[None]
        with self.fork() as branch:
            rest = (
                branch.engine.forward(ids[:-1], branch.context, keep=len(ids) - 1).cpu() if len(ids) > 1 else first[:0]
            )
        logits = torch.cat([first, rest]).log_softmax(-1)
        return logits.gather(-1, torch.tensor(list(ids))[:, None])[:, 0].numpy()

    # --- pages that outlive it ---------------------------------------------------------------------------------

    def save_pages(self, path: str | Path, start: int = 0, end: int | None = None) -> None:
        """Writes the keys and values of tokens start .. end - 1 to a file, for `load_pages` here or in another process.

        Raises PolicyError where the policy has dropped one of them.
        """
        end = len(self) if end is None else end
        if not 0 <= start < end <= len(self):
            raise ValueError(f"`start` and `end` must be within the text's {len(self):,}, got {start!r} and {end!r}")
        capture(self.context, start, end, self.model.name).save(path)

    def load_pages(self, path: str | Path) -> int:
        """Appends what `save_pages` wrote, without reading a token; how many there are.

        The stretch stands wherever it is put: its keys know no place. But its tokens saw what stood before them when
        they were saved, not what stands before them now. Raises StoreError, PolicyError and as `step`.
        """
        saved = SavedPages.load(path)
        self.model.check_length(len(self) + len(saved), self.policy)
        self.engine.attach(self.context, saved, self.model.name)
        self._logits = None
        return len(saved)

    # --- making it another text --------------------------------------------------------------------------------

    def sync_ids(self, ids: Sequence[int], *, spans: Sequence[Span] = ()) -> Synced:
        """Makes the text `ids`: keeps the longest common beginning that is still whole in memory, and reads the rest.

        spans: the messages in it, for a policy that keeps or drops whole messages.
        """
        ids = self.model.checked(ids, 0, self.policy)
        kept = self._go_back(common_tokens(self.context.ids, ids), ids)
        self.context.spans = tuple(spans)
        if kept < len(ids):
            self.engine.check(self.context, len(ids) - kept)
            self._logits = self.engine.prefill(ids[kept:], self.context)
        return Synced(kept, len(ids) - kept)

    def sync_rows(self, ids: Sequence[int], last: int) -> np.ndarray:
        """As `sync_ids`; logits after each of the last `last` ids, float32 [last, vocabulary].

        These are read, also where they are in memory: so a draft is judged in one pass.
        """
        ids = self.model.checked(ids, 0, self.policy)
        if not 1 <= last <= len(ids):
            raise PromptError(f"`last` must be from 1 to the number of ids, {len(ids)}; got {last!r}")
        kept = self._go_back(min(common_tokens(self.context.ids, ids), len(ids) - last), ids)
        self.engine.check(self.context, len(ids) - kept)
        if len(ids) - kept > max(last, self.engine.prefill_tokens):
            self.engine.prefill(ids[kept:-last], self.context)
            kept = len(ids) - last
        rows = self.engine.forward(ids[kept:], self.context, keep=last)
        self._logits = rows[-1]
        return rows.cpu().numpy()

    def sync_text(self, text: str) -> Synced:
        """`sync_ids` of the text's tokens, as plain text: no template, no special tokens."""
        return self.sync_ids(self.model.counter.tokenizer.encode(text, add_special_tokens=False).ids)

    def sync_prompt(self, prompt: Promptable, *, pinned_roles: Sequence[str] = ("system",)) -> Synced:
        """`sync_ids` of a prompt as `generate` would feed it; its messages are the spans.

        pinned_roles: whose messages a ledger policy may never drop.
        """
        ids, spans = self.model.prompt_spans(prompt, pinned_roles)
        return self.sync_ids(ids, spans=spans)

    def crop(self, tokens: int) -> None:
        """Back to the first `tokens` tokens. What a policy has dropped since then is read again."""
        if not 0 <= tokens <= len(self):
            raise ValueError(f"`tokens` must be from 0 to the text's {len(self):,}, got {tokens!r}")
        ids = self.ids[:tokens]
        if tokens < len(self):
            kept = self._go_back(tokens, ids)
            self._logits = self.engine.prefill(ids[kept:], self.context) if ids else None

    def fork(self) -> LocalSession:
        """The same text twice, for different ways on; memory is shared until they differ."""
        other = LocalSession(self.model, context=self.engine.fork(self.context))
        other._logits = self._logits
        return other

    def close(self) -> None:
        """Gives the memory back; the text is empty then."""
        self.engine.close(self.context)
        self._logits = None

    def _go_back(self, common: int, ids: Sequence[int]) -> int:
        """Crops to at most `common` tokens of `ids`; how many are left. One is left to read, for its logits."""
        if common == len(self) == len(ids) and self._logits is not None:
            return common
        kept = min(common, max(len(ids) - 1, 0))
        if EMBEDDED in ids[kept:] or (kept < self.context.exact_from and EMBEDDED in ids):
            raise PromptError("input embeddings would have to be read again, and are not kept; fork before going back")
        self._logits = None
        if not self.engine.crop(self.context, kept):
            self.engine.close(self.context)
            return 0
        return kept

    def _reread(self, ids: tuple[int, ...]) -> None:
        kept = self._go_back(len(ids) - 1, ids)
        self._logits = self.engine.prefill(ids[kept:], self.context)
