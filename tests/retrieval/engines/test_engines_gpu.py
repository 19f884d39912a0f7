"""Where an index is placed, with a double of faiss: no GPU is needed, and none is measured."""

from __future__ import annotations

import logging
from typing import Any

import faiss
import numpy as np
import pytest

from ctxkit.errors import DeviceUnavailable
from ctxkit.retrieval.engines.faiss_ann import HnswEngine, IvfEngine
from ctxkit.retrieval.engines.faiss_flat import FlatEngine
from ctxkit.retrieval.engines.recipes import HnswOptions, IvfOptions


class GpuIndex:
    """A copy on a "GPU": the CPU index behind it answers. As classic faiss-gpu, it knows no filter and 2,048 rows."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.asked: list[tuple[int, Any]] = []

    def add(self, rows: np.ndarray) -> None:
        self.index.add(rows)

    def search(self, query: np.ndarray, take: int, params: Any = None) -> Any:
        assert take <= 2048 and getattr(params, "sel", None) is None
        assert getattr(params, "nprobe", 0) <= 2048
        self.asked.append((take, params))
        return self.index.search(query, take, params=params)


class Resources:
    def __init__(self) -> None:
        self.temporary_bytes = 0

    def setTempMemory(self, count: int) -> None:  # noqa: N802 - faiss's name
        self.temporary_bytes = count


class GpuFaiss:
    """faiss as a GPU build has it; all else is the faiss that is installed."""

    StandardGpuResources = Resources

    def __init__(self, gpus: int = 1, refuses: str = "") -> None:
        self.gpus, self.refuses = gpus, refuses
        self.copies: list[GpuIndex] = []
        self.numbers: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(faiss, name)

    def get_num_gpus(self) -> int:
        return self.gpus

    def index_cpu_to_gpu(self, resources: Resources, number: int, index: Any) -> GpuIndex:
        if self.refuses:
            raise RuntimeError(self.refuses)
        assert resources.temporary_bytes
        self.numbers.append(number)
        self.copies.append(GpuIndex(faiss.clone_index(index)))
        return self.copies[-1]


class CuvsFaiss(GpuFaiss):
    """With CAGRA: takes all rows when it is trained, and drops what is added."""

    class GpuIndexCagraConfig:
        device = 0

    class SearchParametersCagra:
        itopk_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.graphs: list[Cagra] = []

    def GpuIndexCagra(self, resources: Resources, dims: int, metric: int, config: Any) -> Cagra:  # noqa: N802
        assert metric == faiss.METRIC_INNER_PRODUCT
        self.graphs.append(Cagra(dims))
        return self.graphs[-1]


class Cagra:
    def __init__(self, dims: int) -> None:
        self.index = faiss.IndexFlatIP(dims)
        self.asked: list[tuple[int, int]] = []

    def train(self, rows: np.ndarray) -> None:
        self.index.add(rows)

    def search(self, query: np.ndarray, take: int, params: Any) -> Any:
        assert take <= params.itopk_size and params.itopk_size % 32 == 0
        self.asked.append((take, params.itopk_size))
        return self.index.search(query, take)


def filled(engine, clustered, count=400):
    engine.add(clustered(count))
    return engine


@pytest.mark.parametrize("device", [None, "auto", "cuda", "cuda:0"])
@pytest.mark.parametrize("make", [FlatEngine, lambda **to: IvfEngine(IvfOptions(flat_below_rows=100), **to)])
def test_a_gpu_answers_where_there_is_one(make, device, clustered):
    double = GpuFaiss()
    engine, plain = filled(make(device=device, faiss=double), clustered), filled(make(device="cpu"), clustered)
    query = clustered(1, seed=1).values
    assert engine.search(query, 10).positions.tolist() == plain.search(query, 10).positions.tolist()
    assert double.numbers == [0] and len(double.copies[0].asked) == 1


def test_rows_that_are_added_are_added_to_the_copy(clustered):
    double = GpuFaiss()
    engine = filled(FlatEngine(faiss=double), clustered)
    new = clustered(5, seed=3)
    engine.add(new)
    assert engine.search(new[2], 1).positions.tolist() == [402]
    assert len(double.copies) == 1 and double.copies[0].asked


def test_filters_are_answered_on_the_cpu(clustered):
    """faiss-gpu would ignore them: facebookresearch/faiss issue 3924."""
    for make in (FlatEngine, lambda **to: IvfEngine(IvfOptions(flat_below_rows=100), **to)):
        double = GpuFaiss()
        engine = filled(make(faiss=double), clustered)
        allowed = np.arange(400) % 2 == 0
        run = engine.search(clustered(1, seed=1).values, 10, allowed)
        assert len(run) == 10 and allowed[run.positions].all()
        assert not double.copies[0].asked


def test_more_rows_than_a_gpu_returns_are_fetched_on_the_cpu(clustered):
    double = GpuFaiss()
    engine = filled(FlatEngine(faiss=double), clustered, 2500)
    assert len(engine.search(clustered(1, seed=1).values, 2400)) == 2400
    assert not double.copies[0].asked


def test_new_lists_are_placed_again(clustered):
    double = GpuFaiss()
    engine = IvfEngine(IvfOptions(flat_below_rows=300), faiss=double)
    engine.add(clustered(200))
    engine.add(clustered(200, seed=2))
    assert [type(copy.index).__name__ for copy in double.copies] == ["IndexFlatIP", "IndexIVFFlat"]


def test_the_cpu_is_kept_where_it_is_asked_for_or_all_there_is(clustered):
    for device, double in (("cpu", GpuFaiss()), (None, GpuFaiss(gpus=0)), (None, faiss)):
        engine = filled(FlatEngine(device=device, faiss=double), clustered)
        assert len(engine.search(clustered(1).values, 3)) == 3
        assert not getattr(double, "copies", None)


def test_a_gpu_that_is_not_there_is_named_with_what_to_install():
    with pytest.raises(DeviceUnavailable, match="In place of `faiss-cpu` install `faiss-gpu-cuvs`"):
        FlatEngine(device="cuda", faiss=faiss)
    with pytest.raises(DeviceUnavailable, match="device='cuda:3': faiss sees 2 GPUs"):
        FlatEngine(device="cuda:3", faiss=GpuFaiss(gpus=2))
    for device in ("gpu", "cuda:x", ""):
        with pytest.raises(ValueError, match='`device` must be "auto", "cpu", "cuda"'):
            FlatEngine(device=device, faiss=GpuFaiss())


def test_an_index_that_a_gpu_does_not_take_stays_or_is_an_error(clustered, caplog):
    with caplog.at_level(logging.INFO, logger="ctxkit.retrieval.engines.gpu"):
        engine = filled(FlatEngine(faiss=GpuFaiss(refuses="not implemented for cuVS")), clustered)
    assert len(engine.search(clustered(1).values, 3)) == 3
    assert "IndexFlatIP stays on the CPU, GPU 0 does not take it: not implemented for cuVS" in caplog.text
    with pytest.raises(DeviceUnavailable, match='not implemented for cuVS. Choose device="cpu"'):
        filled(asked := FlatEngine(device="cuda", faiss=GpuFaiss(refuses="not implemented for cuVS")), clustered)
    assert len(asked) == 0


def test_the_choice_is_logged_once(clustered, caplog):
    with caplog.at_level(logging.INFO, logger="ctxkit.retrieval.engines.gpu"):
        for _ in range(3):
            filled(FlatEngine(device="cuda:6", faiss=GpuFaiss(gpus=8)), clustered)
    assert caplog.text.count("IndexFlatIP is searched on GPU 6") == 1


def test_a_graph_stays_on_the_cpu_without_cagra(clustered):
    double = GpuFaiss()
    engine = filled(HnswEngine(HnswOptions(links=4, flat_below_rows=100), faiss=double), clustered)
    assert len(engine.search(clustered(1).values, 3)) == 3
    assert not double.copies


def test_with_cagra_its_graph_answers_until_rows_are_added(clustered):
    """It takes no rows once it is made; a tenth more rows, and it is made anew."""
    double = CuvsFaiss()
    engine = filled(HnswEngine(HnswOptions(links=4, ef_search=40, flat_below_rows=100), faiss=double), clustered)
    query = clustered(1, seed=1).values
    engine.search(query, 3)
    assert double.graphs[0].asked == [(19, 64)]
    engine.search(query, 3, np.arange(400) % 2 == 0)
    assert len(double.graphs[0].asked) == 1  # filters are the CPU graph's
    new = clustered(20, seed=3)
    engine.add(new)
    assert engine.search(new[2], 1).positions.tolist() == [402]
    assert len(double.graphs) == 1 and len(double.graphs[0].asked) == 1
    engine.add(clustered(30, seed=4))
    assert engine.search(new[2], 1).positions.tolist() == [402]
    assert len(double.graphs) == 2 and len(double.graphs[1].asked) == 1


def test_a_restored_engine_is_placed_too(clustered):
    double = GpuFaiss()
    again = FlatEngine.restore(filled(FlatEngine(), clustered).state(), faiss=double)
    again.search(clustered(1).values, 3)
    assert len(double.copies[0].asked) == 1
