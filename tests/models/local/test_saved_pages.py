"""Saved pages give what reading the text would have given, here, elsewhere, and from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ctxkit.errors import PolicyError, StoreError
from ctxkit.models import LocalModel
from ctxkit.models.local.paging import context as paging
from ctxkit.models.local.policies import Full, StreamingLLM
from ctxkit.testing import tiny_llama, tiny_model

IDS = list(np.random.default_rng(0).integers(3, 270, 200))


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return tiny_model()


def test_a_saved_beginning_need_not_be_read_again(model: LocalModel, tmp_path: Path) -> None:
    with model.session() as session:
        session.step(IDS[:150])
        session.save_pages(tmp_path / "document.safetensors")
        wanted = session.step(IDS[150:])
    with model.session() as session:
        assert session.load_pages(tmp_path / "document.safetensors") == 150
        np.testing.assert_allclose(session.step(IDS[150:]), wanted, atol=1e-4)


def test_a_stretch_stands_where_it_is_put(model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only distances count: a text behind 7 more tokens that nobody sees is the text itself."""
    monkeypatch.setattr(paging, "FRAME_TOKENS", 64)  # the stretch goes over several frames
    with model.session() as session:
        session.step(IDS[:150])
        session.save_pages(tmp_path / "document.safetensors")
        wanted = session.step(IDS[150:160])
    with model.session() as session:
        session.step([9] * 7)
        session.load_pages(tmp_path / "document.safetensors")
        for track in session.context.tracks:
            track.keep(track.runs.since(7))
        np.testing.assert_allclose(session.step(IDS[150:160]), wanted, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
def test_pages_are_saved_as_they_are_stored(dtype: torch.dtype, tmp_path: Path) -> None:
    model = LocalModel(tiny_llama(), tiny_model().counter, kv_dtype=dtype)
    with model.session() as session:
        session.step(IDS[:50])
        session.save_pages(tmp_path / "p", 10, 50)
        wanted = session.step(IDS[50:60])
        session.crop(10)
        session.load_pages(tmp_path / "p")
        np.testing.assert_allclose(session.step(IDS[50:60]), wanted, atol=1e-4)


def test_the_policy_of_the_reader_decides_what_is_kept(model: LocalModel, tmp_path: Path) -> None:
    with model.session() as session:
        session.step(IDS)
        session.save_pages(tmp_path / "p")
    with model.session(StreamingLLM(4, 30)) as session:
        session.load_pages(tmp_path / "p")
        assert session.context.tracks[0].tokens < 4 + 30 + session.context.slack_tokens


def test_what_was_dropped_cannot_be_saved(model: LocalModel, tmp_path: Path) -> None:
    with model.session(StreamingLLM(4, 30)) as session:
        session.step(IDS)
        with pytest.raises(PolicyError, match="capture before they leave"):
            session.save_pages(tmp_path / "p")
        with pytest.raises(ValueError, match="within the text's 200"):
            session.save_pages(tmp_path / "p", 10, 201)
    assert not list(tmp_path.iterdir())


def test_pages_of_another_model_or_another_file_are_refused(model: LocalModel, tmp_path: Path) -> None:
    with model.session() as session:
        session.step(IDS[:9])
        session.save_pages(tmp_path / "p")
    for other in (
        LocalModel(tiny_llama(1), model.counter, name="other"),
        LocalModel(tiny_llama(), model.counter, kv_dtype=torch.int8),
    ):
        with other.session(Full()) as session, pytest.raises(PolicyError, match="read the text anew"):
            session.load_pages(tmp_path / "p")
    (tmp_path / "q").write_bytes(b"nothing of the kind")
    with model.session() as session, pytest.raises(StoreError, match="cannot be read as saved pages"):
        session.load_pages(tmp_path / "q")
