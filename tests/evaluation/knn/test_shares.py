"""A bank that is divided over ranks gives the neighbours of the whole bank, on every rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.small_runs import on_ranks
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn import search as search_module
from siamtransfer.evaluation.knn.config import NeighbourMetric
from siamtransfer.evaluation.knn.search import search, search_over_ranks, search_shares
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.top import Neighbours
from siamtransfer.utils.errors import UserError

RANKS = 3


def banks() -> dict[str, tuple[Tensor, Tensor | None, int, NeighbourMetric]]:
    """(bank, queries or None for leave-one-out, k, metric) by name. Products of rows of `exact` are whole
    numbers, so no shape of a product rounds them differently."""
    generator = torch.Generator().manual_seed(0)
    exact = torch.randint(2, (61, 4), generator=generator).float()
    exact = torch.cat([exact, 1 - exact], dim=1)  # of length 2
    random = torch.randn(61, 8, generator=generator)
    return {
        "exact": (exact, exact[:20], 15, "cosine"),
        "duplicates, euclidean": (exact, exact[:20], 15, "euclidean"),
        "leave-one-out": (exact, None, 9, "cosine"),
        "random": (random, torch.randn(20, 8, generator=generator), 5, "cosine"),
        "random euclidean": (random, random[5:25], 5, "euclidean"),
        "more neighbours than a share": (random, random[:7], 61, "cosine"),
        "fewer rows than ranks": (exact[:2], exact[:7], 2, "cosine"),
        "fewer rows than ranks, euclidean": (random[:2], random[:7], 1, "euclidean"),
        "fewer queries than ranks": (random, random[:1], 3, "cosine"),
        "close neighbours": (random * 0.01 + 7e4 * torch.eye(8)[0], random[:9] * 0.01, 4, "cosine"),
        "half precision": (F.normalize(random).half(), random[:9], 4, "cosine"),
        "pixels": ((random * 40 + 128).byte(), (random[:9] * 40 + 128).byte(), 4, "cosine"),
    }


def search_all(runtime: Runtime) -> dict[str, Any]:
    """The neighbours of all banks, how often the hook was called, and the error of one rank's bad values."""
    search_module.GATHERED_BYTES = 4 * 8 * 2 * RANKS  # two queries a rank at once
    calls: list[int] = []
    found: dict[str, Any] = {}
    for name, (bank, queries, k, metric) in banks().items():
        options = SearchOptions(metric, between_chunks=lambda: calls.append(1))
        found[name] = search_over_ranks(
            bank,
            bank if queries is None else queries,
            k,
            leave_one_out=queries is None,
            options=options,
            runtime=runtime,
        )
    found["calls"] = len(calls)
    share = torch.eye(4)
    if runtime.rank == 1:
        share[0, 0] = torch.nan
    try:
        search_shares(
            share,
            torch.eye(4),
            2,
            sizes=(12, 12),
            leave_one_out=False,
            options=SearchOptions(),
            runtime=runtime,
        )
    except UserError as error:
        found["error"] = str(error)
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return on_ranks(search_all, world_size=RANKS)


@pytest.mark.parametrize("name", list(banks()))
def test_shares_give_the_neighbours_of_the_whole_bank(found: list[dict[str, Any]], name: str) -> None:
    bank, queries, k, metric = banks()[name]
    leave_out = torch.arange(len(bank)) if queries is None else None
    expected = search(bank, bank if queries is None else queries, k, leave_out=leave_out, metric=metric)
    for rank in found:
        ours: Neighbours = rank[name]
        if name != "duplicates, euclidean":  # the centre that float64 subtracts is no whole number
            assert torch.equal(ours[1], expected[1])
        assert ours[0].dtype == expected[0].dtype
        tolerance = 0 if name.startswith(("exact", "leave")) else 2e-6
        torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=tolerance)


def test_the_hook_is_called_equally_often_and_an_error_of_one_is_one_of_all(
    found: list[dict[str, Any]],
) -> None:
    assert len({rank["calls"] for rank in found}) == 1
    assert found[0]["calls"] > 20
    assert all("not finite" in rank["error"] for rank in found)


def test_what_the_hook_raises_ends_the_search() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    alone = Runtime(torch.device("cpu"), torch.float32)
    with pytest.raises(KeyboardInterrupt):
        search_over_ranks(
            torch.eye(4),
            torch.eye(4),
            2,
            leave_one_out=False,
            options=SearchOptions(between_chunks=stop),
            runtime=alone,
        )
