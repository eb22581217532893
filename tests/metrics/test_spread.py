"""Each number of the spread on matrices whose value is known, and its invariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from siamtransfer.metrics.spread import (
    centre_norm,
    effective_rank,
    output_std,
    projection_health,
    rank_share,
    view_cosine,
)


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64)).Q.float()


def test_std_of_an_isotropic_gaussian_is_one() -> None:
    assert output_std(torch.randn(4096, 256)) == pytest.approx(1, abs=0.01)
    assert output_std(torch.randn(4096, 256) * 17) == pytest.approx(1, abs=0.01)


def test_std_of_equal_rows_is_zero_and_of_two_opposite_ones_is_known() -> None:
    row = torch.randn(1, 64)
    assert output_std(row.expand(100, -1)) == pytest.approx(0, abs=1e-6)
    # n(z) is +v or -v, half of each: std of channel c is |v_c| sqrt(n / (n - 1)); v = 1/sqrt(d) everywhere.
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    assert output_std(signs * torch.ones(1, 64)) == pytest.approx(math.sqrt(100 / 99), abs=1e-5)


def test_std_of_one_image_unlike_all_others_is_two_over_the_root_of_the_batch() -> None:
    """What batch norm leaves of a collapsed network (see CollapseWatch)."""
    z = torch.ones(256, 64)
    z[7] = -1
    assert output_std(z) == pytest.approx(2 / math.sqrt(256), rel=0.01)


def test_centre_of_balanced_and_of_equal_rows() -> None:
    assert centre_norm(torch.cat([torch.eye(8), -torch.eye(8)])) == pytest.approx(0, abs=1e-7)
    assert centre_norm(torch.randn(1, 8).expand(20, -1) * torch.rand(20, 1)) == pytest.approx(1, abs=1e-6)
    assert centre_norm(torch.eye(16)) == pytest.approx(
        1 / 4
    )  # the mean of d unit vectors has length 1/sqrt(d)


@pytest.mark.parametrize("shape", [(6, 6), (6, 20), (20, 6)])
def test_effective_rank_counts_equal_directions(shape: tuple[int, int]) -> None:
    z = torch.zeros(shape)
    for row in range(shape[0]):
        z[row, row % 6] = row + 1.0  # lengths do not matter
    counts = torch.bincount(torch.arange(shape[0]) % 6).double().sqrt()
    share = counts / counts.sum()
    expected = math.exp(float(torch.special.entr(share).sum()))
    assert effective_rank(z) == pytest.approx(expected, rel=1e-9)
    if shape != (20, 6):
        assert expected == pytest.approx(6)


def test_effective_rank_of_one_line_is_one_and_of_two_unequal_ones_is_known() -> None:
    assert effective_rank(torch.randn(1, 32).expand(10, -1)) == pytest.approx(1, abs=1e-4)
    z = torch.cat([torch.tensor([[1.0, 0, 0]]).expand(9, -1), torch.tensor([[0, 1.0, 0]])])
    p = 3 / (3 + 1)  # singular values sqrt(9) and sqrt(1)
    assert effective_rank(z) == pytest.approx(
        math.exp(-p * math.log(p) - (1 - p) * math.log(1 - p)), rel=1e-9
    )


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_effective_rank_agrees_with_a_singular_value_decomposition(shape: tuple[int, int]) -> None:
    z = torch.randn(shape) @ torch.diag(torch.rand(shape[1]) ** 3)
    singular = torch.linalg.svdvals(torch.nn.functional.normalize(z.double(), dim=1))
    share = singular / singular.sum()
    assert effective_rank(z) == pytest.approx(math.exp(float(-(share * share.log()).sum())), rel=1e-6)


def test_rank_share_goes_from_nothing_to_all_directions() -> None:
    assert rank_share(effective_rank(torch.eye(16)), torch.eye(16)) == pytest.approx(1)
    assert rank_share(1.0, torch.zeros(16, 64)) == 0
    assert rank_share(4.0, torch.zeros(64, 16)) == pytest.approx(0.5)


def test_view_cosine() -> None:
    z = torch.randn(10, 8)
    assert view_cosine(z, z * 3) == pytest.approx(1, abs=1e-6)
    assert view_cosine(z, -z) == pytest.approx(-1, abs=1e-6)
    assert view_cosine(torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([[0.0, 1], [1, 1]])) == pytest.approx(
        0.5
    )


@pytest.mark.parametrize("measure", [output_std, centre_norm, effective_rank])
def test_order_and_lengths_of_rows_do_not_matter(measure: Callable[[Tensor], float]) -> None:
    z = torch.randn(40, 24) + 0.5
    expected = measure(z)
    assert measure(z[torch.randperm(40)]) == pytest.approx(expected, rel=1e-5)
    assert measure(z * torch.rand(40, 1).add(0.1)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("measure", [centre_norm, effective_rank])
def test_directions_do_not_matter(measure: Callable[[Tensor], float]) -> None:
    z = torch.randn(40, 24) + 0.5
    assert measure(z @ rotation(24)) == pytest.approx(measure(z), rel=1e-4)


def test_half_precision_is_measured_in_full() -> None:
    z1, z2 = torch.randn(2, 64, 128)
    full = projection_health(z1.bfloat16().float(), z2.bfloat16().float())
    assert projection_health(z1.bfloat16(), z2.bfloat16()) == pytest.approx(full, rel=1e-6)


def test_health_is_of_both_views_and_plain_numbers() -> None:
    z1, z2 = torch.randn(64, 16), torch.ones(64, 16)
    health = projection_health(z1, z2)
    assert health["health/std"] == pytest.approx(output_std(z1) / 2, rel=1e-5)
    assert health["health/effective_rank"] == effective_rank(z1)
    assert all(type(value) is float for value in health.values())
