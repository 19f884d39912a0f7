"""LlamaIndex: a retriever over an index, a node postprocessor that spends one budget, a memory block that shrinks.

Raises MissingExtra where llama-index-core is not installed.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ctxkit.errors import MissingExtra

if find_spec("llama_index") is None or find_spec("llama_index.core") is None:
    raise MissingExtra("llama-index-core", "llama-index")

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemoryBlock
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from ctxkit.compression import TextCompressor, compress
from ctxkit.pipeline import best_offline
from ctxkit.protocols import Counter
from ctxkit.retrieval import Hit
from ctxkit.retrieval.searchable import Searchable
from ctxkit.tokens import EstimatingCounter
from ctxkit_connectors.shared import hit_metadata

_SCORES = ["rank", "relevance", "score"]  # say nothing to a model
_MODELS = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


class CtxkitRetriever(BaseRetriever):
    """The passages of an index that answer a query, as nodes scored by their relevance, best first.

    index: an `Index` or whatever else is `Searchable`. k: how many. search: mode, where, sources of `Index.search`.
    """

    def __init__(self, index: Searchable, k: int = 10, **search: Any) -> None:
        super().__init__()
        self.index = index
        self.k = k
        self.search = search

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [node_of(hit) for hit in self.index.search(query_bundle.query_str, self.k, **self.search)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)  # an index may be shared by threads


def node_of(hit: Hit) -> NodeWithScore:
    """A hit as LlamaIndex's node; its scores are not shown to models."""
    node = TextNode(
        id_=hit.chunk.id,
        text=hit.chunk.text,
        metadata=hit_metadata(hit),
        excluded_embed_metadata_keys=_SCORES,
        excluded_llm_metadata_keys=_SCORES,
    )
    return NodeWithScore(node=node, score=hit.relevance)


class NodeCompressor(BaseNodePostprocessor):
    """Gives the texts of nodes in at most `max_tokens` tokens together, or in the share `rate`.

    The budget goes to what answers the query, wherever it stands. What is left of a node are slices of its text, in
    order; its id, metadata and score stay. A node for which there is no room is left out, one without text stays.
    Metadata that a prompt shows are not counted.

    max_tokens, rate: give one. compressor: a method of `ctxkit.compression`; by default sentences by BM25 and by the
    packaged encoder, which needs the extra "retrieval". counter: the target model's; without one tokens are an upper
    bound for all common models.
    """

    max_tokens: int | None = Field(default=None, ge=0)
    rate: float | None = Field(default=None, ge=0, le=1)
    compressor: TextCompressor = Field(default_factory=best_offline, exclude=True)
    counter: Any = Field(default=None, exclude=True)

    model_config = _MODELS

    @model_validator(mode="after")
    def _one_limit(self) -> NodeCompressor:
        if (self.max_tokens is None) == (self.rate is None):
            raise ValueError("give either `max_tokens` or `rate`")
        return self

    @classmethod
    def class_name(cls) -> str:
        return "NodeCompressor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        texts = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        made = compress(
            texts,
            self.compressor,
            tokens=self.max_tokens,
            rate=self.rate,
            question=query_bundle.query_str if query_bundle else "",
            counter=self.counter or EstimatingCounter(),
        )
        shortened = zip(nodes, texts, made.texts, strict=True)
        return [_with_text(node, text) for node, given, text in shortened if text or not given]


def _with_text(given: NodeWithScore, text: str) -> NodeWithScore:
    node = given.node.model_copy()
    if text != given.node.get_content(metadata_mode=MetadataMode.NONE):
        node.set_content(text)
    return NodeWithScore(node=node, score=given.score)


class CompressingMemoryBlock(BaseMemoryBlock[str]):
    """What left the short-term memory, word for word while there is room, and in its best sentences where there is not.

        Memory.from_defaults(token_limit=4_000, memory_blocks=[CompressingMemoryBlock(name="earlier")])

    `Memory` asks for fewer tokens where its limit is passed; what is left then are slices of what was said, chosen by
    the latest message of the user. Nothing stored is lost: the next turn may show other parts of it.

    compressor, counter: as of NodeCompressor. Pass `tokenizer_fn=lambda text: range(counter.count(text))` to `Memory`,
    so that both count alike.
    """

    priority: int = 1  # 0 would mean: never shrink
    compressor: TextCompressor = Field(default_factory=best_offline, exclude=True)
    counter: Any = Field(default=None, exclude=True)
    _said: list[str] = PrivateAttr(default_factory=list)
    _question: str = PrivateAttr(default="")

    model_config = _MODELS

    async def _aget(self, messages: Sequence[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        asked = [message.content or "" for message in messages or () if message.role == "user"]
        self._question = asked[-1] if asked else ""
        return "\n\n".join(self._said)

    async def _aput(self, messages: Sequence[ChatMessage]) -> None:
        self._said += [f"{message.role.value}: {message.content}" for message in messages if message.content]

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """The content with so many tokens less; None where nothing is left."""
        counter: Counter = self.counter or EstimatingCounter()
        tokens = counter.count(content) - tokens_to_truncate
        if tokens <= 0:
            return None
        made = await asyncio.to_thread(
            compress, [content], self.compressor, tokens=tokens, question=self._question, counter=counter
        )
        return made.texts[0] or None
