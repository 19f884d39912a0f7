"""Answers of a given form: `Sampling.response_format` on the way in, a parser on the way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

Method = Literal["json_schema", "json_mode", "function_calling"]


def structured(
    model: BaseChatModel,
    schema: dict[str, Any] | type,
    method: Method,
    *,
    include_raw: bool,
    strict: bool | None = None,
) -> Runnable[LanguageModelInput, Any]:
    """The model, held to the form, and what reads its answer.

    include_raw: give {"raw", "parsed", "parsing_error"} instead, and raise nothing for an answer that cannot be read.
    strict: not needed; who asks for it has it by "json_schema" anyway.
    """
    told = {"kwargs": {"method": method}, "schema": schema}
    asked = model.bind(response_format=_response_format(schema, method), ls_structured_output_format=told)
    parser: Any = JsonOutputParser()
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        parser = PydanticOutputParser(pydantic_object=schema)
    read = RunnableGenerator(_uncut, _auncut) | parser
    if not include_raw:
        return asked | read
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | read, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=asked) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _response_format(schema: dict[str, Any] | type, method: Method) -> dict[str, Any]:
    if method == "json_mode":
        return {"type": "json_object"}
    if method != "json_schema":
        raise ValueError(f'`method` must be "json_schema", "json_mode" or "function_calling", got {method!r}')
    form = convert_to_json_schema(schema)
    return {"type": "json_schema", "json_schema": {"name": str(form.get("title", "answer")), "schema": form}}


def _uncut(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    for message in messages:
        yield _checked(message)


async def _auncut(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        yield _checked(message)


def _checked(message: AIMessage) -> AIMessage:
    """The parsers close what is open in half an object, and nobody would learn that the answer is half."""
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException("the answer was cut at `max_tokens`; raise it", llm_output=message.text)
    return message
