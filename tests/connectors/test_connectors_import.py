"""Nobody pays for a framework that is not used, and who misses one is told what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys
sys.modules["{package}"] = None
real = __import__("importlib.util").util.find_spec
__import__("importlib.util").util.find_spec = lambda name, *more: None if name == "{package}" else real(name, *more)
try:
    from ctxkit_connectors.langchain import {name}
except Exception as error:
    print(type(error).__name__, error)
"""


def run(code: str, repository: object) -> str:
    command = [sys.executable, "-c", code]
    path = f"{repository}/connectors:{repository}"
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path})
    return done.stdout


@pytest.mark.parametrize("module", ["", ".langchain", ".openai", ".lancedb", ".qdrant", ".pgvector", ".ray"])
def test_importing_a_connector_imports_no_framework(module, repository):
    code = f"import sys, ctxkit_connectors{module}; print(*[name for name in sys.modules if '.' not in name])"
    frameworks = {"langchain", "langchain_core", "langgraph", "openai", "anthropic", "lancedb", "pyarrow"}
    assert not (frameworks | {"qdrant_client", "psycopg", "ray", "torch"}) & set(run(code, repository).split())


def test_trimming_needs_langchain_core_alone(repository):
    code = "import sys, ctxkit_connectors.langchain as c; c.trim_messages, c.fit_messages; print(*sys.modules)"
    shown = run(code, repository).split()
    assert "langchain_core" in shown and "langchain" not in shown and "langgraph" not in shown


@pytest.mark.parametrize(
    ("package", "name"), [("langchain_core", "trim_messages"), ("langchain", "ContextBudgetMiddleware")]
)
def test_what_is_missing_is_named_with_the_extra(package, name, repository):
    shown = run(BLOCKED.format(package=package, name=name), repository)
    assert shown.startswith("MissingExtra") and package.replace("_", "-") in shown and "'.[langchain]'" in shown


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("mcp", "mcp", "mcp"),
        ("openai_agents", "agents", "openai-agents"),
        ("pydantic_ai", "pydantic_ai", "pydantic-ai"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
    ],
)
def test_a_framework_that_is_missing_is_named_with_its_extra(module, package, extra, repository):
    code = BLOCKED.replace("from ctxkit_connectors.langchain import {name}", f"import ctxkit_connectors.{module}")
    shown = run(code.format(package=package), repository)
    assert shown.startswith("MissingExtra") and f"'.[{extra}]'" in shown
