"""Tools: schemas from functions, arguments checked, failures told."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxkit.errors import RemoteUnavailable
from ctxkit_agents import FunctionTool
from ctxkit_agents.errors import ToolError
from ctxkit_agents.runtime.reading import first_json, json_values
from ctxkit_agents.runtime.tools import as_tools


def search(query: str, limit: int = 5, order: Literal["new", "old"] = "new") -> list[str]:
    """Finds files."""
    return [f"{query} {order}"] * limit


def call(tool: FunctionTool, arguments: object) -> str:
    return asyncio.run(tool.call(arguments))  # type: ignore[arg-type]


def test_the_schema_is_read_from_the_function() -> None:
    function = FunctionTool(search).schema["function"]
    assert function["name"] == "search" and function["description"] == "Finds files."
    assert function["parameters"]["required"] == ["query"]
    assert function["parameters"]["properties"]["order"]["enum"] == ["new", "old"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"query": ', "not JSON"),
        ('["query"]', "must be a JSON object"),
        ("{}", "query"),
        ('{"query": "a", "limit": "many"}', "limit"),
        ('{"query": "a", "colour": 1}', "colour"),
        ('{"query": "a", "order": "best"}', "order"),
    ],
)
def test_wrong_arguments_are_told_by_name(arguments: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        call(FunctionTool(search), arguments)


def test_results_are_text() -> None:
    assert call(FunctionTool(search), '{"query": "é", "limit": 2}') == '["é new", "é new"]'
    assert call(FunctionTool(lambda: "plain", name="say"), "") == "plain"


def test_async_functions_are_tools_too() -> None:
    async def later(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    assert call(FunctionTool(later), {"n": 1}) == "2"


def test_failures_time_outs_and_retries() -> None:
    tries = []

    def failing() -> str:
        tries.append(1)
        raise RemoteUnavailable("down") if len(tries) < 3 else ValueError("broken")

    with pytest.raises(ToolError, match="ValueError: broken"):
        call(FunctionTool(failing, retries=5), "{}")
    assert len(tries) == 3
    with pytest.raises(ToolError, match="within 0.02 seconds"):
        call(FunctionTool(lambda: time.sleep(0.1), name="slow", timeout_seconds=0.02), "{}")


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="search"):
        as_tools([search, FunctionTool(search)])


def test_a_function_whose_parameters_have_no_names_is_no_tool() -> None:
    with pytest.raises(ValueError, match="args"):
        _ = FunctionTool(lambda *args: args, name="any").schema


def test_json_is_found_in_what_a_model_wrote() -> None:
    assert first_json('Sure:\n```json\n{"a": [1, {"b": 2}]}\n``` and [3]') == {"a": [1, {"b": 2}]}
    assert list(json_values('{"a": 1} {broken [2]')) == [{"a": 1}, [2]]
    assert first_json("none { here") is None


@given(st.text(alphabet='{}[]":,ab1 '))
def test_any_text_can_be_read_for_json(text: str) -> None:
    assert all(isinstance(value, dict | list) for value in json_values(text))
