"""kNN at any scale of features gives what the same features give in float64 with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.knn.config import NeighbourMetric
from siamtransfer.evaluation.knn.search import search, search_over_ranks
from siamtransfer.evaluation.knn.searchers import SearchOptions
from siamtransfer.evaluation.knn.vote import knn_scores
from siamtransfer.utils.errors import UserError

N, Q, D, CLASSES, K, TEMPERATURE = 600, 300, 64, 10, 20, 0.07
BANK_LABELS, QUERY_LABELS = np.arange(N) % CLASSES, np.arange(Q) % CLASSES


def overlapping_classes() -> tuple[np.ndarray, np.ndarray]:
    """Features of which about half of the queries are predicted rightly, so that every neighbour counts."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, D))
    bank, queries = (centres[y] + 5 * rng.normal(size=(len(y), D)) for y in (BANK_LABELS, QUERY_LABELS))
    return bank, queries


def judge(bank: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """The predicted classes by NumPy in float64."""
    a, b = (x.astype(np.float64) for x in (bank, queries))
    if metric == "cosine":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        s = b @ a.T
    else:
        s = -np.sqrt(((b[:, None] - a[None]) ** 2).sum(axis=2))
    neighbours = np.argsort(-s, axis=1, kind="stable")[:, :K]
    best = np.take_along_axis(s, neighbours, axis=1)
    weights = np.exp((best - best[:, :1]) / TEMPERATURE) if metric == "cosine" else 1 / (1e-5 - best)
    votes = np.zeros((len(b), CLASSES))
    for c in range(CLASSES):
        votes[:, c] = (weights * (BANK_LABELS[neighbours] == c)).sum(axis=1)
    return votes.argmax(axis=1)


def product(bank: np.ndarray, queries: np.ndarray, metric: NeighbourMetric = "cosine") -> np.ndarray:
    labels = torch.from_numpy(BANK_LABELS), torch.from_numpy(QUERY_LABELS)
    arrays = torch.from_numpy(bank), torch.from_numpy(queries)
    scores = knn_scores(
        arrays[0], labels[0], arrays[1], labels[1], [K], [TEMPERATURE], metric=metric
    ).predictions
    return next(iter(scores.values()))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1, 1e10, 3e18, 1e20, 1e30, 1e-6, 1e-13, 1e-20, 1e-25])
def test_the_scale_of_the_features_changes_no_prediction(scale, metric):
    bank, queries = ((x * scale).astype(np.float32) for x in overlapping_classes())
    if metric == "euclidean" and scale < 1e-6:
        return  # votes of 1 / (distance + 1e-5) are all alike there
    assert (product(bank, queries, metric) == judge(bank, queries, metric)).mean() >= 1 - 1 / Q


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_features_that_only_float64_holds_are_not_made_infinite(scale):
    bank, queries = (x * scale for x in overlapping_classes())
    assert (product(bank, queries) == judge(bank / scale, queries / scale, "cosine")).mean() >= 1 - 1 / Q


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("constant", [10, 300, 1000, 3000, 1e4, 7e4, 1e6])
def test_a_large_constant_feature_changes_no_prediction(constant, metric):
    bank, queries = (
        np.column_stack([x, np.full(len(x), constant)]).astype(np.float32) for x in overlapping_classes()
    )
    assert (product(bank, queries, metric) == judge(bank, queries, metric)).mean() >= 1 - 2 / Q


def test_two_groups_that_are_far_apart_are_told_apart_inside():
    """The mean of all rows is about zero, so only the neighbours of a query show that they are too close."""
    bank, queries = overlapping_classes()
    for x in (bank, queries):
        x[::2, 3] += 7e4
        x[1::2, 3] -= 7e4
    bank, queries = bank.astype(np.float32), queries.astype(np.float32)
    assert (product(bank, queries) == judge(bank, queries, "cosine")).all()


def test_ordinary_features_are_searched_once_and_in_float32():
    bank, queries = (torch.from_numpy(x.astype(np.float32)) for x in overlapping_classes())
    similarities, indices = search(bank, queries, K)
    assert similarities.dtype == torch.float32
    unit = torch.nn.functional.normalize
    expected = (unit(queries) @ unit(bank).T).sort(dim=1, descending=True, stable=True)
    assert torch.equal(similarities, expected.values[:, :K])
    assert torch.equal(indices, expected.indices[:, :K])


def test_close_neighbours_come_in_float64_and_without_the_query_itself():
    bank, _ = overlapping_classes()
    bank[:, 0] += 7e4
    x = torch.from_numpy(bank.astype(np.float32))
    runtime = Runtime(torch.device("cpu"), torch.float32)
    similarities, indices = search_over_ranks(
        x, x, K, leave_one_out=True, options=SearchOptions(), runtime=runtime
    )
    assert similarities.dtype == torch.float64
    unit = x.double() / x.double().norm(dim=1, keepdim=True)
    expected = (unit @ unit.T).fill_diagonal_(-2).sort(dim=1, descending=True, stable=True)
    assert (indices == expected.indices[:, :K]).double().mean() > 0.999
    assert not bool((indices == torch.arange(len(x))[:, None]).any())


def test_duplicates_and_rows_of_zeros_keep_the_order_of_their_index():
    bank = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))[[0, 1, 0, 0, 2, 0, 3, 4]]
    bank[6:] = 0
    similarities, indices = search(bank, torch.cat([bank[:1], torch.zeros(1, 5)]), 3)
    assert indices.tolist() == [[0, 2, 3], [0, 1, 2]]
    assert similarities.dtype == torch.float32


def test_values_that_are_not_finite_are_refused_in_every_type():
    for dtype in (torch.float16, torch.float32, torch.float64):
        for value in (float("inf"), float("nan")):
            x = torch.ones(4, 3, dtype=dtype)
            x[2, 1] = value
            with pytest.raises(UserError, match="not finite"):
                search(x, torch.ones(1, 3, dtype=dtype), 2)
