"""Build hook: a wheel carries the compiled kernels where there is a compiler, else they compile on demand."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("kernels/ctxkit_kernels")


class KernelBuildHook(BuildHookInterface[Any]):
    """Compiles the C++ sources into the wheel and tags the wheel with the platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        compiler = _compiler_module(Path(self.root) / KERNELS / "compiler.py")
        library = Path(self.root) / KERNELS / compiler.packaged_name()
        try:
            compiler.compile_to(compiler.find_compiler(), library)
        except RuntimeError as error:
            self.app.display_warning(f"a wheel without compiled kernels: {error}")
            return
        build_data["artifacts"].append(str(KERNELS / library.name))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        for made in build_data["artifacts"]:
            (Path(self.root) / made).unlink(missing_ok=True)


def _compiler_module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("ctxkit_kernels_compiler", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
