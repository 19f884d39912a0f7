"""A chat model of LangChain over any model of ctxkit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field

from ctxkit.models.requests import Request
from ctxkit.protocols import Model, Reply, Sampling
from ctxkit.tokens import messages_from_dicts
from ctxkit_connectors.langchain.fitting import openai_tools
from ctxkit_connectors.langchain.messages import OpenAIForm, parsed_calls
from ctxkit_connectors.langchain.structured import Method, structured

_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty")
_OF_A_CALL = (*_SAMPLING, "response_format", "tool_choice")


class ChatCtxkit(BaseChatModel):
    """A ctxkit model (LocalModel, RemoteModel, any other `Model`) where LangChain wants a chat model.

    model: what answers. Nothing is cut on the way to it: a prompt that does not fit is refused as it refuses it; put
        `ContextBudgetMiddleware` or `fit_messages` before it, with `counter=model.counter`.
    max_tokens, temperature, top_p, top_k, seed, frequency_penalty, stop: as of `Sampling`. Each can be given with a
        call as well, and so can response_format.
    streaming: whether `invoke` streams as well; None: where somebody listens to the tokens.

    Streams, sync and async; a stream that is dropped stops the model. Tools by `bind_tools`, replies in a form by
    `with_structured_output`, where the model can. Raises what the model raises, and TypeError for an argument of a call
    that no model of ctxkit takes.
    """

    model: Model
    max_tokens: int = Field(default=256, ge=1)
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float = 0.0
    stop: list[str] | None = None
    streaming: bool | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    def _llm_type(self) -> str:
        return "ctxkit"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model.name, "stop": self.stop, **{name: getattr(self, name) for name in _SAMPLING}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop or self.stop, **{"model": self.model.name, **kwargs})

    def _resolve_model_profile(self) -> Any:
        """How long a prompt may be: LangChain's own middlewares ask for it."""
        return {"max_input_tokens": max(self.model.window_tokens - self.max_tokens, 0)}

    def get_num_tokens(self, text: str) -> int:
        return self.model.counter.count(text)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the whole prompt, template and tools included, by the model's own counter."""
        request = _request(messages, openai_tools(tools or ()))
        return self.model.counter.render(request.messages, tools=request.tools).tokens

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with these tools. tool_choice: "auto", "none", "any" ("required", True), or a tool's name."""
        return self.bind(tools=list(openai_tools(tools)), tool_choice=_tool_choice(tool_choice), **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers of a form: a dict for a JSON schema or TypedDict, an object for a Pydantic class.

        method: "json_schema" holds the model to the schema by `Sampling.response_format` (a local model needs the extra
            "structured" for it), "json_mode" to JSON alone, "function_calling" makes it call a tool.

        An answer that was cut at `max_tokens` is an OutputParserException, whatever can be read of it.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        return structured(self, schema, method, include_raw=include_raw, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(self.model.generate(*self._asked(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await self.model.agenerate(*self._asked(messages, stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with closing(self.model.stream(*self._asked(messages, stop, kwargs))) as stream:
            for piece in stream:
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield _last_chunk(stream.reply)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async with aclosing(self.model.astream(*self._asked(messages, stop, kwargs))) as stream:
            async for piece in stream:
                yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
            yield _last_chunk(stream.reply)

    def _asked(
        self, messages: list[BaseMessage], stop: list[str] | None, given: Mapping[str, Any]
    ) -> tuple[Request, Sampling]:
        """What the model is given: the prompt, and how to answer."""
        if unknown := given.keys() - {*_OF_A_CALL, "tools"}:
            raise TypeError(f"ChatCtxkit takes no {', '.join(map(repr, sorted(unknown)))}; it takes {_OF_A_CALL}")
        own = {name: getattr(self, name) for name in _SAMPLING}
        asked = {**own, **{name: given[name] for name in _OF_A_CALL if given.get(name) is not None}}
        request = _request(messages, openai_tools(given.get("tools") or ()))
        return request, Sampling(stop=tuple(self.stop or () if stop is None else stop), **asked)


def _request(messages: list[BaseMessage], tools: Sequence[Mapping[str, Any]]) -> Request:
    return Request(messages_from_dicts(OpenAIForm(messages).dicts), tuple(tools))


def _tool_choice(choice: str | bool | Mapping[str, Any] | None) -> str | Mapping[str, Any] | None:
    if choice is True or choice == "any":
        return "required"
    if choice is False:
        return None
    if isinstance(choice, str) and choice not in ("auto", "none", "required"):
        return {"type": "function", "function": {"name": choice}}
    return choice


def _result(reply: Reply) -> ChatResult:
    valid, invalid = parsed_calls(reply.tool_calls)
    message = AIMessage(reply.text, tool_calls=valid, invalid_tool_calls=invalid, **_about(reply))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _last_chunk(reply: Reply) -> ChatGenerationChunk:
    """What a stream ends with: the calls, which are known only then, and what it cost."""
    calls = [
        tool_call_chunk(
            name=call["function"]["name"], args=call["function"]["arguments"], id=call.get("id"), index=place
        )
        for place, call in enumerate(reply.tool_calls)
    ]
    message = AIMessageChunk(content="", tool_call_chunks=calls, chunk_position="last", **_about(reply))
    return ChatGenerationChunk(message=message)


def _about(reply: Reply) -> dict[str, Any]:
    usage = UsageMetadata(
        input_tokens=reply.prompt_tokens,
        output_tokens=reply.completion_tokens,
        total_tokens=reply.prompt_tokens + reply.completion_tokens,
    )
    said = {"finish_reason": reply.finish_reason, "model_name": reply.model, "model_provider": "ctxkit"}
    thought = {"reasoning_content": reply.reasoning} if reply.reasoning else {}
    return {"usage_metadata": usage, "response_metadata": said, "additional_kwargs": thought}
