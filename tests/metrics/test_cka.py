"""Linear CKA against its formula with kernels, and what it is invariant to."""

import pytest
import torch

from siamtransfer.metrics.cka import linear_cka
from siamtransfer.utils.errors import UserError


def by_hsic(x: torch.Tensor, y: torch.Tensor) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = x xᵀ, L = y yᵀ and HSIC(K, L) =
    tr(K H L H) / (N - 1)² (Kornblith et al. 2019, section 3)."""
    x, y = x.double(), y.double()
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n

    def hsic(k: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.trace(k @ centring @ other @ centring) / (n - 1) ** 2

    k, other = x @ x.T, y @ y.T
    return float(hsic(k, other) / (hsic(k, k) * hsic(other, other)).sqrt())


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 8, generator=generator)
    return x + 3, x @ torch.randn(8, 12, generator=generator) + torch.randn(50, 12, generator=generator)


@pytest.mark.parametrize("images", [50, 10, 5])  # more and fewer images than numbers
def test_it_is_the_ratio_of_hsic(images, pair):
    x, y = pair[0][:images], pair[1][:images]
    assert linear_cka(x, y) == pytest.approx(by_hsic(x, y), abs=1e-12)
    assert 0.1 < linear_cka(x, y) < 0.99
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), abs=1e-12)


def test_rotations_factors_and_shifts_do_not_count_and_other_maps_do(pair):
    x, y = pair
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, 2.5 * x @ rotation - 7) == pytest.approx(1, abs=1e-6)
    assert linear_cka(0.1 * x @ rotation + 1, y) == pytest.approx(linear_cka(x, y), abs=1e-6)
    squeezed = x * torch.tensor([100.0, *[1] * 7])
    assert linear_cka(x, squeezed) < 0.6


def test_features_of_other_images_or_all_equal_are_refused(pair):
    x, y = pair
    with pytest.raises(UserError, match="not of 50 and 49"):
        linear_cka(x, y[1:])
    with pytest.raises(UserError, match="all images have the same features"):
        linear_cka(x, torch.ones(50, 3))
