"""LocalModel: a transformers causal language model behind ctxkit's `Model` and `Counter` protocols."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from ctxkit.errors import PromptError
from ctxkit.models.catalog import DEFAULT_MODEL
from ctxkit.models.local.answer import Answer
from ctxkit.models.local.auto import Choice, Task, auto
from ctxkit.models.local.batching import Scheduler
from ctxkit.models.local.encoder import CausalEncoder, Pooling
from ctxkit.models.local.engine import Engine
from ctxkit.models.local.forms import Forms
from ctxkit.models.local.loading import eos_ids_of, load_weights
from ctxkit.models.local.policies.base import Policy, Span
from ctxkit.models.local.session import LocalSession
from ctxkit.models.local.speculation import Speculation, reversible
from ctxkit.models.local.window_attention import window_attention
from ctxkit.models.prepare import resolve
from ctxkit.models.requests import GREEDY, Promptable, as_request, check_window
from ctxkit.models.streams import AsyncPieceStream, PieceStream, adrain, drain
from ctxkit.protocols import Located, PromptMessage, Rendering, Reply, Sampling, Tool
from ctxkit.tokens import TemplateCounter
from ctxkit.tokens.blocks import is_media

logger = logging.getLogger(__name__)


class LocalModel:
    """A model on this machine. Also a `Counter`: it counts with its own tokenizer and chat template.

    model: the transformers model; is put into eval mode.
    counter: its tokenizer and chat template.
    name: shown in replies and plans; the counter's name by default.
    window_tokens: prompt and answer together; the model's `max_position_embeddings` by default.
    eos_ids: tokens that end an answer; read from the model and the tokenizer by default.
    policy: how its memory is kept and seen; full attention by default. One that bounds what a token sees
        (`StreamingLLM`) also lifts the window: prompts and sessions may then be of any length. "auto" picks for each
        answer by its length, the window and memory (`choose`), and logs what it picked and why.
    prefill_tokens, kv_dtype, max_kv_bytes, host_kv_bytes, prefix_bytes, cuda_graphs: as `Engine` says.
    speculation: how tokens are drafted, `NGram()` or `Draft(smaller_model)`; the answers stay what they are. May be set
        at any time, for the answers that begin after it.

    Several streams may be open at once, also from several threads: those that wait at the same time share passes.
    """

    capabilities = frozenset({"score", "logits", "embeds", "fork", "crop", "sync_text", "attention_evidence"})

    def __init__(
        self,
        model: PreTrainedModel,
        counter: TemplateCounter,
        *,
        name: str | None = None,
        window_tokens: int | None = None,
        eos_ids: Collection[int] | None = None,
        policy: Policy | Literal["auto"] | None = None,
        prefill_tokens: int = 512,
        kv_dtype: torch.dtype | None = None,
        max_kv_bytes: int | None = None,
        host_kv_bytes: int | None = None,
        prefix_bytes: int | None = None,
        cuda_graphs: bool | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        self.chooses = policy == "auto"
        self.engine = Engine(
            model,
            policy=None if isinstance(policy, str) else policy,
            prefill_tokens=prefill_tokens,
            kv_dtype=kv_dtype,
            max_kv_bytes=max_kv_bytes,
            host_kv_bytes=host_kv_bytes,
            prefix_bytes=prefix_bytes,
            cuda_graphs=cuda_graphs,
        )
        self.scheduler = Scheduler(self.engine)
        self.counter = counter
        self.name = name or counter.name
        self.window_tokens = window_tokens or int(model.config.get_text_config().max_position_embeddings)
        self.eos_ids = frozenset(eos_ids_of(model, counter) if eos_ids is None else eos_ids)
        self.speculation = speculation
        self._not_speculated: set[str] = set()  # policies of which the log says so already

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = DEFAULT_MODEL,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        cache_dir: str | Path | None = None,
        policy: Policy | Literal["auto"] | None = None,
        kv_dtype: torch.dtype | None = None,
        max_kv_bytes: int | None = None,
        host_kv_bytes: int | None = None,
        prefix_bytes: int | None = None,
        cuda_graphs: bool | None = None,
    ) -> LocalModel:
        """Loads a known model, a local folder or a model of the Hugging Face hub.

        device: "cuda", "cpu", ...; CUDA where there is one, else the CPU.
        dtype: "float32", "bfloat16" or a torch dtype; as stored by default, float32 where the CPU has no bfloat16.
        policy, kv_dtype, max_kv_bytes, host_kv_bytes, prefix_bytes, cuda_graphs: as the class says.
        Raises ModelNotPrepared, ModelNotFound.
        """
        folder = resolve(name_or_path, cache_dir)
        counter = TemplateCounter.from_folder(folder, name=str(name_or_path))
        weights = load_weights(folder, device=device, dtype=dtype)
        return cls(
            weights,
            counter,
            policy=policy,
            kv_dtype=kv_dtype,
            max_kv_bytes=max_kv_bytes,
            host_kv_bytes=host_kv_bytes,
            prefix_bytes=prefix_bytes,
            cuda_graphs=cuda_graphs,
        )

    def __repr__(self) -> str:
        weights = self.model
        return f"LocalModel({self.name!r}, window_tokens={self.window_tokens}, {weights.device}, {weights.dtype})"

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model."""
        return self.engine.model

    @property
    def speculation(self) -> Speculation | None:
        """How tokens are drafted. Setting it raises ValueError where its tokens are not this model's."""
        return self._speculation

    @speculation.setter
    def speculation(self, speculation: Speculation | None) -> None:
        if speculation is not None:
            speculation.check(self)
        self._speculation = speculation

    # --- Counter -----------------------------------------------------------------------------------------------

    @property
    def exact(self) -> bool:
        return self.counter.exact

    def count(self, text: str) -> int:
        return self.counter.count(text)

    def count_batch(self, texts: Sequence[str]) -> list[int]:
        return self.counter.count_batch(texts)

    def render(self, messages: Sequence[PromptMessage], *, tools: Sequence[Tool] = ()) -> Rendering:
        return self.counter.render(messages, tools=tools)

    # --- Model -------------------------------------------------------------------------------------------------

    def generate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """Answers. Raises PromptError where prompt and `max_tokens` do not fit into the window together."""
        return drain(self.stream(prompt, sampling))

    def stream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> PieceStream:
        """Answers piece by piece. Every piece is computed when it is asked for."""
        return PieceStream(self._answer(prompt, sampling))

    async def agenerate(self, prompt: Promptable, sampling: Sampling = GREEDY) -> Reply:
        """As `generate`, in a worker thread. Cancelling it stops the computation."""
        return await adrain(self.astream(prompt, sampling))

    def astream(self, prompt: Promptable, sampling: Sampling = GREEDY) -> AsyncPieceStream:
        """As `stream`, for `async for`."""
        return AsyncPieceStream(self.stream(prompt, sampling))

    def speculates(self, policy: Policy) -> Speculation | None:
        """How tokens are drafted under this policy; None where they are not, or a draft could not be taken back."""
        if self.speculation is None or reversible(policy):
            return self.speculation
        if repr(policy) not in self._not_speculated:
            self._not_speculated.add(repr(policy))
            logger.warning("%s answers without speculation: what %r keeps or selects cannot be undone", self, policy)
        return None

    def prompt_ids(self, prompt: Promptable) -> tuple[int, ...]:
        """The exact ids that `generate` would feed. A plan made with this model's counter keeps its own."""
        request = as_request(prompt, {self.name, self.counter.name})
        kinds = {str(block.get("type")) for message in request.messages for block in message.blocks if is_media(block)}
        if kinds:
            raise PromptError(f"{self.name} reads text only; leave out the blocks of type {', '.join(sorted(kinds))}")
        ids = self.render(request.messages, tools=request.tools).ids if request.ids is None else request.ids
        return self._valid(ids or ()) if self.chooses else self._checked(ids or ())

    def prompt_spans(
        self, prompt: Promptable, pinned_roles: Collection[str]
    ) -> tuple[tuple[int, ...], tuple[Span, ...]]:
        """The ids of a prompt and where its messages stand among them. Raises PromptError."""
        ids = self.prompt_ids(prompt)
        request = as_request(prompt, {self.name, self.counter.name})
        starts = self.counter.message_starts(request.messages, tools=request.tools)
        spans, round_id = [], ""
        for number, (message, start, end) in enumerate(
            zip(request.messages, starts, [*starts[1:], len(ids)], strict=True)
        ):
            if message.role != "tool":  # results belong to the message that called
                round_id = f"message {number}"
            spans.append(Span(start, end, message.role in pinned_roles, round_id))
        head = [Span(0, starts[0], True, "template")] if starts and starts[0] else []
        return ids, (*head, *spans)

    def session(self, policy: Policy | None = None) -> LocalSession:
        """An empty text in this model's memory, under the model's policy or another."""
        return LocalSession(self, policy)

    def encoder(self, pooling: Pooling = "last", **settings: Any) -> CausalEncoder:
        """This model as an `Encoder` for an `Index`; settings as `CausalEncoder` takes them."""
        return CausalEncoder(self, pooling, **settings)

    # --- capabilities ------------------------------------------------------------------------------------------

    def score(self, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> np.ndarray:
        """Log-probability (natural) of each continuation token given all before it, float32 [n].

        Raises PromptError for an empty prompt, an id outside the vocabulary, or more ids than the window holds.
        """
        if not continuation_ids:
            return np.zeros(0, dtype=np.float32)
        fed = self._checked((*prompt_ids, *continuation_ids))[:-1]
        if not prompt_ids:
            raise PromptError("`prompt_ids` is empty; the first token has nothing to be predicted from")
        targets = torch.tensor(list(continuation_ids), device=self.model.device)
        rows, done = [], 0
        for logits in self.engine.logits(fed, last=len(continuation_ids)):
            chosen = targets[done : done + len(logits), None]  # [n, 1]
            rows.append(logits.log_softmax(-1).gather(-1, chosen)[:, 0])
            done += len(logits)
        return torch.cat(rows).cpu().numpy()

    def logits(self, ids: Sequence[int], *, last: int = 1) -> np.ndarray:
        """Logits after each of the last `last` ids, float32 [last, vocabulary]. Raises PromptError."""
        if not 1 <= last <= len(ids):
            raise PromptError(f"`last` must be from 1 to the number of ids, {len(ids)}; got {last!r}")
        return torch.cat(list(self.engine.logits(self._checked(ids), last))).cpu().numpy()

    def locate(self, prompt: str) -> Located:
        """The ids that `generate(prompt)` would feed, and where each begins in `prompt`. Raises PromptError."""
        return self.counter.locate(prompt)

    def window_attention(
        self, ids: Sequence[int], *, window: int, first_layer: int = 0, lookahead_tokens: int = 0
    ) -> np.ndarray:
        """What the last `window` ids attend to, float32 [window + looked ahead, ids]; see `WindowAttention`.

        Exact: read from the passes that the model makes, with at most [heads in a group, window, ids] of it in memory
        at once. Raises PromptError as `logits` does, ValueError for a layer the model has not, and ModelError where
        its attention is not torch's scaled_dot_product_attention.
        """
        if not 1 <= window <= len(ids):
            raise PromptError(f"`window` must be from 1 to the number of ids, {len(ids)}; got {window!r}")
        layers = int(self.model.config.get_text_config().num_hidden_layers)
        if not 0 <= first_layer < layers:
            raise ValueError(f"`first_layer` must be in [0, {layers}), the layers of {self.name}; got {first_layer!r}")
        if lookahead_tokens < 0:
            raise ValueError(f"`lookahead_tokens` must be 0 or more, got {lookahead_tokens!r}")
        ids = self._checked(ids)
        check_window(len(ids), lookahead_tokens, self.window_tokens)
        rows = window_attention(
            self.engine,
            ids,
            window=window,
            first_layer=first_layer,
            lookahead_tokens=lookahead_tokens,
            eos_ids=self.eos_ids,
        )
        return rows.cpu().numpy()

    @cached_property
    def _forms(self) -> Forms:
        vocabulary = int(self.model.config.get_text_config().vocab_size)
        return Forms(self.counter, vocabulary, self.eos_ids)

    def _answer(self, prompt: Promptable, sampling: Sampling) -> Answer:
        request = as_request(prompt, {self.name, self.counter.name})
        ids = self.prompt_ids(request)
        if not self.chooses:
            self.check_length(len(ids), self.engine.policy, sampling.max_tokens)
            return self.answer_to(ids, request.tools, sampling)
        choice = self.choose(len(ids), sampling.max_tokens)
        logger.info("%s: %s", self.name, choice.reason)
        return self.answer_to(ids, request.tools, sampling, policy=choice.policy)

    def answer_to(
        self,
        ids: Sequence[int],
        tools: Sequence[Tool],
        sampling: Sampling,
        *,
        policy: Policy | None = None,
        session: LocalSession | None = None,
    ) -> Answer:
        """The answer to a prompt of these ids, not yet begun."""
        constraint = self._forms.constraint(tools, sampling)
        reader = self._forms.reader(ids, tools, sampling, constrained=constraint is not None)
        return Answer(self, ids, sampling, reader, constraint, policy=policy, session=session)

    def choose(self, prompt_tokens: int, answer_tokens: int, *, task: Task | None = None) -> Choice:
        """The policy that `policy="auto"` picks for texts of these lengths, and why. Raises as `auto`."""
        return auto(
            self.engine.shape,
            window_tokens=self.window_tokens,
            prompt_tokens=prompt_tokens,
            answer_tokens=answer_tokens,
            memory_bytes=self.engine.pool.max_bytes,
            kv_dtype=self.engine.kv_dtype,
            pass_tokens=self.engine.prefill_tokens,
            task=task,
        )

    def _checked(self, ids: Sequence[int]) -> tuple[int, ...]:
        return self.checked(ids, 0, self.engine.policy)

    def checked(self, ids: Sequence[int], before: int, policy: Policy) -> tuple[int, ...]:
        """`ids`, where they may follow `before` tokens under the policy. Raises PromptError."""
        valid = self._valid(ids)
        self.check_length(before + len(ids), policy)
        return valid

    def _valid(self, ids: Sequence[int]) -> tuple[int, ...]:
        if not ids:
            raise PromptError("the prompt has no tokens; give at least one")
        size = int(self.model.config.get_text_config().vocab_size)
        if not 0 <= min(ids) <= max(ids) < size:
            raise PromptError(
                f"ids must be in [0, {size}), got {min(ids)} to {max(ids)}; were they made for this model?"
            )
        return tuple(ids)

    def check_length(self, tokens: int, policy: Policy, max_tokens: int = 0) -> None:
        """Raises PromptError where a text is longer than the window, and the policy does not bound what it sees."""
        if not self.engine.endless(policy):
            check_window(tokens, max_tokens, self.window_tokens)
