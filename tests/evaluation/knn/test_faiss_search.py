"""FAISS behind the class that GPUs use, by its index for the CPU; and what happens where FAISS cannot."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from siamtransfer.evaluation.knn import faiss_search
from siamtransfer.evaluation.knn.config import KnnConfig
from siamtransfer.evaluation.knn.faiss_search import FaissSearch, choose_devices
from siamtransfer.evaluation.knn.search import nearest, search
from siamtransfer.evaluation.knn.searchers import LocalSearch, SearchOptions
from siamtransfer.evaluation.knn.top import Neighbours, top
from siamtransfer.utils.errors import UserError

faiss = pytest.importorskip("faiss")
pytest.importorskip("faiss.contrib.torch_utils")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_search, "_REMARKED", set())


@pytest.fixture(scope="module")
def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Unit rows with many duplicates, whose cosines are 0, 1/2 and 1 without rounding, and random ones."""
    generator = torch.Generator().manual_seed(0)
    four_ones = torch.randint(2, (300, 4), generator=generator).float()
    exact = F.normalize(torch.cat([four_ones, 1 - four_ones], dim=1))
    return exact, F.normalize(torch.randn(300, 8, generator=generator))


@pytest.mark.parametrize("devices", [1, 3])
@pytest.mark.parametrize("k", [1, 7, 300])
def test_it_is_the_top_of_the_product_with_its_ties(
    rows: tuple[torch.Tensor, torch.Tensor], devices: int, k: int
) -> None:
    exact, random = rows
    for bank in (exact, random):
        found = FaissSearch(faiss, bank, choose_devices(CPU, devices), most=2048).search(bank[:50], k)
        assert found is not None
        expected = top(bank[:50] @ bank.T, k)
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6)
        if bank is exact:
            assert torch.equal(found[1], expected[1])


def test_more_devices_than_rows() -> None:
    found = FaissSearch(faiss, torch.eye(3), choose_devices(CPU, 5), most=9).search(torch.eye(3)[1:], 2)
    assert found is not None
    assert found[1].tolist() == [[1, 0], [2, 0]]


@pytest.mark.parametrize("devices", [1, 2])
def test_the_search_by_faiss_is_the_search_by_the_product(
    rows: tuple[torch.Tensor, torch.Tensor], devices: int
) -> None:
    bank = rows[1]
    options = SearchOptions(backend="faiss", faiss_devices=devices, budget=8 * 20 * 100)
    found = nearest(LocalSearch(bank, options), bank[:20], 5, leave_out=torch.arange(20))
    expected = search(bank, bank[:20], 5, leave_out=torch.arange(20))
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0])


def test_too_many_neighbours_for_a_gpu_are_left_to_the_product(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    index = FaissSearch(faiss, torch.eye(9), [CPU], most=4)
    assert index.search(torch.eye(9), 3) is not None
    assert index.search(torch.eye(9), 4) is None, "the one more that shows ties does not fit"
    assert index.search(torch.eye(9), 5) is None
    assert caplog.text.count("FAISS gives at most 4 neighbours") == 2


class FullIndex:
    """An index on a device that is full at once, or once it searches."""

    def __init__(self, where: str, error: Exception):
        self.where, self.error = where, error

    def add(self, x: torch.Tensor) -> None:
        if self.where == "add":
            raise self.error

    def search(self, x: torch.Tensor, k: int) -> Neighbours:
        raise self.error


@pytest.mark.parametrize("where", ["add", "search"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "Error: 'err == cudaSuccess' failed: StandardGpuResources: alloc fail; cudaMalloc error"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("std::bad_alloc"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_want_of_memory_is_left_to_the_product_and_said_once(
    where: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    library = SimpleNamespace(IndexFlatIP=lambda width: FullIndex(where, error))
    monkeypatch.setattr(faiss_search, "_import_faiss", lambda: library)
    bank = torch.randn(500, 6)
    options = SearchOptions(backend="faiss", budget=6 * 20 * 100)
    found, expected = nearest(LocalSearch(bank, options), bank[:9], 4), search(bank, bank[:9], 4)
    assert torch.equal(found[1], expected[1])
    assert caplog.text.count("too little memory") == 1


def test_other_errors_of_faiss_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(IndexFlatIP=lambda width: FullIndex("search", RuntimeError("invalid device")))
    monkeypatch.setattr(faiss_search, "_import_faiss", lambda: library)
    with pytest.raises(RuntimeError, match="invalid device"):
        nearest(LocalSearch(torch.eye(3), SearchOptions(backend="faiss")), torch.eye(3), 1)


def test_faiss_that_was_asked_for_and_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss_search, "_import_faiss", lambda: None)
    with pytest.raises(UserError, match="--backend faiss needs"):
        nearest(LocalSearch(torch.eye(3), SearchOptions(backend="faiss")), torch.eye(3), 1)
    assert nearest(LocalSearch(torch.eye(3), SearchOptions()), torch.eye(3), 1)[1].tolist() == [[0], [1], [2]]


def test_devices_of_faiss_are_not_dropped_in_silence() -> None:
    with pytest.raises(UserError, match="--faiss-devices 2 needs FAISS"):
        nearest(LocalSearch(torch.eye(3), SearchOptions(faiss_devices=2)), torch.eye(3), 1)
    with pytest.raises(UserError, match="--metric cosine only"):
        KnnConfig(backend="faiss", metric="euclidean").check()


def test_gpu_resources_are_made_once_and_bounded() -> None:
    made: list[int] = []
    library = SimpleNamespace(
        StandardGpuResources=lambda: SimpleNamespace(setTempMemory=made.append),
        GpuIndexFlatConfig=SimpleNamespace,
        GpuIndexFlatIP=lambda resources, width, options: (resources, width, options.device),
    )
    library = Hashable(library)
    first, second = (faiss_search._empty_index(library, 8, torch.device("cuda", index)) for index in (0, 1))
    assert made == [faiss_search.TEMPORARY_BYTES]
    assert first[0] is second[0]  # type: ignore[index]
    assert (first[2], second[2]) == (0, 1)  # type: ignore[index]


class Hashable:
    """The attributes of a namespace, as a module has them."""

    def __init__(self, namespace: SimpleNamespace):
        self.__dict__.update(namespace.__dict__)
