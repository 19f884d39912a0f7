"""Guards of the layout: who may import whom, what must not shadow, what is public."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ctxkit

PACKAGES = {
    "ctxkit": "ctxkit",
    "ctxkit_connectors": "connectors/ctxkit_connectors",
    "ctxkit_agents": "agents/ctxkit_agents",
    "ctxkit_kernels": "kernels/ctxkit_kernels",
}

# Layer of each package, lowest first. A module imports from its own package and from lower layers only.
LAYERS = [
    {"ctxkit_kernels"},
    {"ctxkit.errors"},
    {"ctxkit.protocols"},
    {"ctxkit.tokens"},
    {"ctxkit.context"},
    {"ctxkit.documents"},
    {"ctxkit.retrieval", "ctxkit.compression", "ctxkit.models"},
    {"ctxkit.testing"},
    {"ctxkit.pipeline", "ctxkit.session", "ctxkit.notebook"},
    {"ctxkit_agents", "ctxkit_connectors"},
    {"ctxkit.server"},
    {"ctxkit.cli"},
    {"ctxkit.__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def package_of(module: str) -> str:
    head = module.split(".")
    return ".".join(head[:2]) if head[0] == "ctxkit" and len(head) > 1 else head[0]


def modules(repository: Path) -> list[tuple[str, Path]]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted((repository / folder).rglob("*.py")):
            inner = path.relative_to(repository / folder).with_suffix("").as_posix().replace("/", ".")
            found.append((f"{package}.{inner}".removesuffix(".__init__"), path))
    return found


def imported(path: Path, module: str) -> set[str]:
    names: set[str] = set()
    base = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = base.split(".")[: len(base.split(".")) - node.level + 1] if node.level else []
            names.add(".".join([*up, *([node.module] if node.module else [])]))
    return names


def test_imports_go_down_only(repository: Path) -> None:
    wrong = []
    for module, path in modules(repository):
        own = package_of(module)
        if own == "ctxkit":  # the facade: its imports at run time are checked below
            continue
        for name in imported(path, module):
            target = package_of(name)
            if target == own or target.split(".")[0] not in PACKAGES or target == "ctxkit" and name == "ctxkit":
                continue
            if LEVEL[target] >= LEVEL[own]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_every_package_has_a_layer(repository: Path) -> None:
    assert {package_of(module) for module, _ in modules(repository)} - {"ctxkit"} <= LEVEL.keys()


def test_no_folder_of_ours_shadows_a_package_of_others(repository: Path) -> None:
    """With an __init__.py, a start from the root would import ours in place of `agents`, `kernels` or `tests`."""
    for folder in ("agents", "connectors", "kernels", "tests"):
        assert not (repository / folder / "__init__.py").exists(), f"{folder}/ must stay without __init__.py"
        assert folder == "tests" or not list((repository / folder).glob("*.py"))


def test_every_package_is_typed(repository: Path) -> None:
    assert all((repository / folder / "py.typed").is_file() for folder in PACKAGES.values())


def test_the_public_list_is_sorted_and_real() -> None:
    assert ctxkit.__all__ == sorted(ctxkit.__all__)
    for name in ctxkit.__all__:
        assert getattr(ctxkit, name) is not None
    public = {name for name in vars(ctxkit) if not name.startswith("_")}
    inner = {"annotations", "import_module", "TYPE_CHECKING", "Any"}
    packages = {name.split(".")[1] for name in sys.modules if name.startswith("ctxkit.")}
    assert public - inner - packages <= set(ctxkit.__all__)


@pytest.mark.parametrize("module", ["ctxkit", "ctxkit.cli"])
def test_importing_pulls_in_nothing_heavy(module: str) -> None:
    heavy = {"torch", "transformers", "sentence_transformers", "faiss", "numpy", "httpx", "tokenizers", "pydantic"}
    allowed = {"pydantic"} if module == "ctxkit.cli" else set()
    code = f"import sys, {module}; print(*[name for name in sys.modules if '.' not in name])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not (heavy - allowed) & set(run.stdout.split())


def test_no_module_prints_pickles_or_evaluates(repository: Path) -> None:
    wrong = []
    for module, path in modules(repository):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        wrong.extend(f"{module}: {name}" for name in calls & {"print", "eval", "exec"})
        wrong.extend(f"{module}: {name}" for name in imported(path, module) & {"pickle", "dill", "shelve"})
    assert not wrong
