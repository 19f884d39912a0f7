"""Preparing a model: once, whole or not at all, whoever else does it at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from ctxkit.errors import MissingExtra, ModelError, ModelNotFound, ModelNotPrepared
from ctxkit.models import CATALOG, CatalogEntry, available, prepare, resolve
from ctxkit.models.gguf import repair_tokenizer, tokenizer_config
from ctxkit.testing import tiny_tokenizer

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


class Converter:
    """Writes a folder of the right names, or dies in the middle."""

    def __init__(self, *, fail_after: int | None = None) -> None:
        self.calls = 0
        self.fail_after = fail_after

    def __call__(self, source: Path, folder: Path) -> None:
        self.calls += 1
        for n, name in enumerate(FILES):
            if n == self.fail_after:
                raise OSError("disk full")
            (folder / name).write_text(f"{{}} from {source.name}")


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, CatalogEntry]:
    package = tmp_path / "site" / "packed_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package must not be imported')")
    (package / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(package.parent))
    entry = CatalogEntry("tiny", "packed_model", "packed-model", "tiny.gguf", window_tokens=64, licence="MIT")
    return {"tiny": entry}


def _models(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir())


def test_it_converts_once_and_is_found_again(tmp_path: Path, catalog: dict[str, CatalogEntry]) -> None:
    convert = Converter()
    folder = prepare("tiny", tmp_path, convert=convert, catalog=catalog)
    assert folder == tmp_path / "models" / "tiny" == resolve("tiny", tmp_path, catalog=catalog)
    assert prepare("tiny", tmp_path, convert=convert, catalog=catalog) == folder
    assert convert.calls == 1
    assert _models(tmp_path) == ["tiny"]
    assert folder.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("fail_after", range(len(FILES)))
def test_a_converter_that_fails_leaves_nothing(
    tmp_path: Path, catalog: dict[str, CatalogEntry], fail_after: int
) -> None:
    with pytest.raises(OSError, match="disk full"):
        prepare("tiny", tmp_path, convert=Converter(fail_after=fail_after), catalog=catalog)
    assert _models(tmp_path) == []
    with pytest.raises(ModelNotPrepared, match="ctxkit models prepare tiny"):
        resolve("tiny", tmp_path, catalog=catalog)
    prepare("tiny", tmp_path, convert=Converter(), catalog=catalog)


def test_a_converter_that_forgets_a_file_is_an_error(tmp_path: Path, catalog: dict[str, CatalogEntry]) -> None:
    with pytest.raises(ModelError, match=r"did not write config.json"):
        prepare("tiny", tmp_path, convert=lambda source, folder: None, catalog=catalog)
    assert _models(tmp_path) == []


def test_a_process_killed_while_converting_leaves_no_model(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from ctxkit.models import CatalogEntry, prepare
class Here(CatalogEntry):
    source = Path("x")
def die(source, folder):
    for name in {FILES!r}:
        (folder / name).write_text("{{}}")
    os._exit(9)
prepare("tiny", {str(tmp_path)!r}, convert=die, catalog={{"tiny": Here("tiny", "p", "p", "x", 64, "MIT")}})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    (left,) = _models(tmp_path)
    assert left.startswith(".tiny-")
    entry = CatalogEntry("tiny", "p", "p", "x", 64, "MIT")
    assert not available(tmp_path, catalog={"tiny": entry})[0].prepared


def test_what_a_killed_process_left_is_swept_after_a_day(tmp_path: Path, catalog: dict[str, CatalogEntry]) -> None:
    old, recent = tmp_path / "models" / ".tiny-old", tmp_path / "models" / ".tiny-recent"
    old.mkdir(parents=True)
    recent.mkdir()
    os.utime(old, (0, 0))
    prepare("tiny", tmp_path, convert=Converter(), catalog=catalog)
    assert _models(tmp_path) == [".tiny-recent", "tiny"]


def test_a_folder_that_is_not_whole_is_not_used_but_replaced(tmp_path: Path, catalog: dict[str, CatalogEntry]) -> None:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelNotPrepared):
        resolve("tiny", tmp_path, catalog=catalog)
    prepare("tiny", tmp_path, convert=Converter(), catalog=catalog)
    assert resolve("tiny", tmp_path, catalog=catalog) == folder
    assert _models(tmp_path) == ["tiny"]


def test_two_at_once_both_get_the_whole_model(tmp_path: Path, catalog: dict[str, CatalogEntry]) -> None:
    both_inside = threading.Barrier(2)

    def convert(source: Path, folder: Path) -> None:
        both_inside.wait(10)
        Converter()(source, folder)

    got: list[Path] = []

    def run() -> None:
        got.append(prepare("tiny", tmp_path, convert=convert, catalog=catalog))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [tmp_path / "models" / "tiny"] * 2
    assert _models(tmp_path) == ["tiny"]


def test_the_list_says_what_is_there(tmp_path: Path, catalog: dict[str, CatalogEntry]) -> None:
    (before,) = available(tmp_path, catalog=catalog)
    assert (before.name, before.prepared, before.where, before.size_bytes) == ("tiny", False, None, 0)
    folder = prepare("tiny", tmp_path, convert=Converter(), catalog=catalog)
    (after,) = available(tmp_path, catalog=catalog)
    assert (after.prepared, after.where, after.window_tokens, after.licence) == (True, folder, 64, "MIT")
    assert after.size_bytes > 0


def test_an_unknown_name_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=", ".join(sorted(CATALOG))):
        prepare("nothing", tmp_path)


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    entry = CatalogEntry("gone", "no_such_package_here", "no-such-package", "x.gguf", 64, "MIT")
    with pytest.raises(MissingExtra, match="no-such-package"):
        prepare("gone", tmp_path, convert=Converter(), catalog={"gone": entry})


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "no/such-model-here", "two//bad"])
def test_what_is_nowhere_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="nowhere|no model"):
        resolve(name, tmp_path)


def test_a_local_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path) == resolve(str(tmp_path)) == tmp_path


def test_the_package_is_imported_without_torch_and_http() -> None:
    code = "import sys, ctxkit.models, ctxkit.testing; print({'torch', 'transformers', 'httpx'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"


SMOLLM = {
    "general.architecture": "llama",
    "llama.context_length": 8192,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
}


def _as_converted() -> Tokenizer:
    """With GPT-2's rule only, as transformers builds it from a GGUF file."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokenizer = tiny_tokenizer()
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    return tokenizer


def test_the_pre_tokeniser_that_the_file_names_is_put_back() -> None:
    text = "a  12"
    assert _as_converted().encode(text).tokens == ["a", "Ġ", "Ġ", "1", "2"]
    assert repair_tokenizer(_as_converted(), SMOLLM).encode(text).tokens == ["a", "ĠĠ", "1", "2"]


def test_an_unknown_pre_tokeniser_is_an_error() -> None:
    with pytest.raises(ModelError, match="'newer'"):
        repair_tokenizer(_as_converted(), {**SMOLLM, "tokenizer.ggml.pre": "newer"})


def test_a_sentencepiece_vocabulary_is_left_alone() -> None:
    before = _as_converted().to_str()
    assert repair_tokenizer(_as_converted(), {**SMOLLM, "tokenizer.ggml.model": "llama"}).to_str() == before


def test_the_tokenizer_config_names_special_tokens_and_window() -> None:
    config = tokenizer_config(SMOLLM)
    assert (config["bos_token"], config["eos_token"], config["unk_token"]) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    assert config["model_max_length"] == 8192
    assert "pad_token" not in config
