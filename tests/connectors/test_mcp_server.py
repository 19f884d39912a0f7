"""The MCP server, asked by mcp's own client in memory, and by one over stdio."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

import mcp

from ctxkit.documents.chunk import Chunk
from ctxkit.retrieval import HashingEncoder, Index
from ctxkit.testing import WhitespaceCounter
from ctxkit_connectors.mcp import mcp_server

LONG = " ".join(f"word{n}" for n in range(200))
COUNTER = WhitespaceCounter()


@pytest.fixture
def index() -> Iterator[Index]:
    with Index.in_memory(encoder=HashingEncoder()) as opened:
        opened.add([Chunk(f"c{n}", f"{n}.md", f"River number {n} meets the sea.") for n in range(5)])
        yield opened


def asked(server: Any, ask: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with mcp.Client(server) as client:
            return await ask(client)

    return asyncio.run(run())


def call(server: Any, tool: str, **arguments: Any) -> Any:
    return asked(server, lambda client: client.call_tool(tool, arguments))


def told(result: Any) -> str:
    assert result.is_error
    return result.content[0].text


def test_search_is_offered_where_there_is_an_index(index: Index) -> None:
    async def names(client: Any) -> set[str]:
        return {tool.name for tool in (await client.list_tools()).tools}

    others = {"fit", "count_tokens", "expand"}
    assert asked(mcp_server(), names) == others
    assert asked(mcp_server(index=index), names) == {"search", *others}


def test_search_finds_what_the_index_finds(index: Index) -> None:
    found = call(mcp_server(index=index), "search", query="river number 3", k=2).structured_content["result"]
    assert [one["id"] for one in found] == [hit.chunk.id for hit in index.search("river number 3", 2)]
    assert found[0]["location"] == "3.md:1" and found[0]["text"] == "River number 3 meets the sea."
    only = call(mcp_server(index=index), "search", query="river", sources=["4.*"]).structured_content["result"]
    assert [one["id"] for one in only] == ["c4"]


def test_parts_are_fitted_and_what_is_left_out_comes_back() -> None:
    parts = [{"id": "log", "content": LONG}, {"kind": "question", "content": "Which word is the last?"}]

    async def fit_and_expand(client: Any) -> tuple[dict[str, Any], str]:
        made = (await client.call_tool("fit", {"budget_tokens": 80, "parts": parts})).structured_content
        given = {"fit_id": made["fit_id"], "ref": made["expandable"][0]}
        return made, (await client.call_tool("expand", given)).structured_content["result"]

    made, original = asked(mcp_server(counter=COUNTER), fit_and_expand)
    assert made["prompt_tokens"] <= 80 and made["exact"] and made["messages"] is None
    assert 'expand("log")' in made["text"] and made["text"].endswith("Which word is the last?")
    assert original == LONG


def test_a_conversation_keeps_its_tool_round_whole() -> None:
    messages = [
        {"role": "user", "content": "Read the log."},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": LONG},
        {"role": "user", "content": "What is wrong?"},
    ]
    arguments = {"budget_tokens": 90, "reserve_tokens": 10, "messages": messages, "explain": True}
    made = call(mcp_server(counter=COUNTER), "fit", **arguments).structured_content
    roles = [message["role"] for message in made["messages"]]
    assert roles.count("tool") == sum("tool_calls" in message for message in made["messages"])
    assert made["messages"][-1] == messages[-1] and made["prompt_tokens"] <= 80 and made["text"] is None
    assert len(made["report"].splitlines()) > 4


def test_tokens_are_counted_by_the_counter_of_the_server() -> None:
    server = mcp_server(counter=COUNTER)
    counted = call(server, "count_tokens", text="three small words").structured_content
    assert counted == {"tokens": 3, "exact": True, "counter": COUNTER.name}
    messages = [{"role": "user", "content": "three small words"}]
    assert call(server, "count_tokens", messages=messages).structured_content["tokens"] > 3
    assert not call(mcp_server(), "count_tokens", text="").structured_content["exact"]


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("fit", {"budget_tokens": 9}, "either `messages` or `parts`"),
        ("fit", {"budget_tokens": 3, "parts": [{"content": LONG, "pinned": True}]}, "Raise `budget_tokens` to 20"),
        ("fit", {"budget_tokens": 9, "parts": [{"kind": "poem", "content": "a"}]}, "`kind` must be one of"),
        ("fit", {"budget_tokens": 9, "parts": [{"id": "a"}]}, "needs `content`"),
        ("fit", {"budget_tokens": 9, "parts": [{"content": "a", "weight": 2}]}, "'weight'"),
        ("fit", {"budget_tokens": 9, "messages": []}, "empty"),
        ("fit", {"budget_tokens": 0, "parts": []}, "greater than or equal to 1"),
        ("count_tokens", {}, "either `text` or `messages`"),
        ("expand", {"fit_id": "another's", "ref": "a"}, "call `fit` again"),
        ("search", {"query": "a"}, "search"),
    ],
)
def test_a_mistake_is_answered_and_names_what_to_do(tool: str, arguments: dict[str, Any], says: str) -> None:
    assert says in told(call(mcp_server(counter=COUNTER), tool, **arguments))


def test_the_command_serves_over_stdio(repository: Path, tmp_path: Path) -> None:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    path = ":".join(str(repository / name) for name in ("", "connectors", "agents", "kernels"))
    given = {"command": sys.executable, "args": ["-m", "ctxkit", "mcp"], "cwd": tmp_path, "env": {"PYTHONPATH": path}}
    counted = call(stdio_client(StdioServerParameters(**given)), "count_tokens", text="two words")
    assert counted.structured_content["tokens"] >= 2 and not counted.is_error
