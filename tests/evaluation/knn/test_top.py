"""The largest of each row: what grouping leaves out is never among them."""

from __future__ import annotations

import pytest
import torch

from siamtransfer.evaluation.knn.top import GROUP, merge_any_order, top


def plain(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = x.sort(dim=1, descending=True, stable=True)
    return order.values[:, :k], order.indices[:, :k]


@pytest.mark.parametrize("columns", [1, GROUP, 64 * GROUP, 64 * GROUP + 1, 71 * GROUP + GROUP - 1, 3001])
@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("values", [3, 50, 10**6], ids=["many ties", "ties", "few ties"])
def test_it_is_a_stable_sort(columns: int, k: int, values: int) -> None:
    generator = torch.Generator().manual_seed(columns + k)
    x = torch.randint(values, (40, columns), generator=generator).float()
    k = min(k, columns)
    for found, expected in zip(top(x, k), plain(x, k), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("descending", [True, False])
def test_rows_in_order_are_the_worst_case_of_no_group(descending: bool) -> None:
    """All of the largest in neighbouring columns, or a group apart."""
    x = torch.arange(2000.0).sort(descending=descending).values[None]
    strided = x.view(GROUP, -1).T.reshape(1, -1)
    for row in (x, strided):
        for found, expected in zip(top(row, 30), plain(row, 30), strict=True):
            assert torch.equal(found, expected)


def test_results_in_any_order_are_merged_by_value_then_index() -> None:
    s = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.1]])
    i = torch.tensor([[7, 8, 2, 3, 1]])
    merged = merge_any_order(s, i, 3)
    assert merged[1].tolist() == [[3, 8, 2]]
    assert merged[0].tolist() == [pytest.approx([0.9, 0.9, 0.5])]
