"""Every diagnostic on matrices whose value is known, its invariances, and against other implementations."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import pdist
from scipy.special import ive
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.diagnostics.measures import (
    EPSILON,
    alignment,
    alpha_req,
    cluster_agreement,
    covariance_effective_rank,
    covariance_eigenvalues,
    lidar,
    linear_cka,
    log_condition,
    neighbour_agreement,
    nesum,
    off_diagonal_correlation,
    participation_ratio,
    rankme,
    sample,
    self_cluster,
    singular_values,
    stable_rank,
    tolerance,
    uniformity,
)
from siamtransfer.metrics.spread import view_cosine
from siamtransfer.utils.errors import UserError

SHAPES = [(40, 12), (12, 40), (20, 20)]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def skewed(n: int, d: int) -> Tensor:
    """Rows around a centre that is not zero, whose directions are not alike."""
    return noise(n, d) @ torch.diag(torch.arange(1, d + 1, dtype=torch.float64) ** -0.7) + 0.3


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(noise(d, d)).Q


@pytest.fixture(params=[7, 8192], ids=["chunks", "whole"])
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many rows are taken at once."""
    monkeypatch.setattr(measures, "ROWS", request.param)
    return request.param


# Spectra.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("rows")
def test_spectra_agree_with_decompositions_of_the_whole_matrix(shape: tuple[int, int]) -> None:
    x = skewed(*shape)
    torch.testing.assert_close(singular_values(x), torch.linalg.svdvals(x), rtol=1e-9, atol=1e-6)
    expected = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1][: min(shape)]
    np.testing.assert_allclose(covariance_eigenvalues(x), expected, rtol=1e-9, atol=1e-12)


def test_a_mapped_array_of_halves_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "ROWS", 16)
    x = skewed(100, 6).half().numpy()
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    y = torch.randint(0, 3, (100,))
    for measure in (singular_values, covariance_eigenvalues, self_cluster, off_diagonal_correlation):
        torch.testing.assert_close(measure(mapped), measure(torch.from_numpy(x)))
    assert tolerance(mapped, y) == tolerance(torch.from_numpy(x), y)
    assert linear_cka(mapped, torch.from_numpy(x).double()) == pytest.approx(1)


def test_values_that_are_not_finite_are_refused() -> None:
    x = noise(30, 4)
    x[17, 2] = math.inf
    for measure in (singular_values, covariance_eigenvalues, lambda x: linear_cka(x, noise(30, 2))):
        with pytest.raises(UserError, match="not finite"):
            measure(x)


def test_matrices_too_wide_to_decompose_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "WIDEST", 10)
    assert len(singular_values(noise(40, 10))) == len(singular_values(noise(10, 40))) == 10
    for measure in (
        lambda: singular_values(noise(40, 11)),
        lambda: covariance_eigenvalues(noise(11, 40)),
        lambda: lidar(noise(4, 3, 11)),
        lambda: linear_cka(noise(40, 11), noise(40, 12)),
    ):
        with pytest.raises(UserError, match="11 x 11 would have to be decomposed"):
            measure()


def test_ranks_of_a_spectrum_without_preference_are_its_length() -> None:
    spectrum = torch.full((32,), 0.37, dtype=torch.float64)
    for measure in (covariance_effective_rank, participation_ratio, nesum, stable_rank):
        assert measure(spectrum) == pytest.approx(32)
    assert log_condition(spectrum) == 0
    p = 1 / 32 + EPSILON
    assert rankme(spectrum) == pytest.approx(math.exp(-32 * p * math.log(p)), rel=1e-12)


def test_ranks_of_a_line_are_one() -> None:
    x = noise(50, 1) @ noise(1, 20)
    singular, eigenvalues = singular_values(x), covariance_eigenvalues(x)
    for value in (stable_rank(singular), participation_ratio(eigenvalues), nesum(eigenvalues)):
        assert value == pytest.approx(1)
    assert covariance_effective_rank(eigenvalues) == pytest.approx(1, abs=1e-9)
    assert rankme(singular) == pytest.approx(1, abs=1e-3)


def test_ranks_of_a_spectrum_by_hand() -> None:
    eigenvalues = torch.tensor([4.0, 2, 1, 1], dtype=torch.float64)
    assert participation_ratio(eigenvalues) == pytest.approx(64 / 22)
    assert nesum(eigenvalues) == pytest.approx(2)
    assert stable_rank(eigenvalues.sqrt()) == pytest.approx(2)
    # the entropy of 1/2, 1/4, 1/8, 1/8 is 7/4 bits
    assert covariance_effective_rank(eigenvalues) == pytest.approx(2**1.75)
    assert rankme(eigenvalues, epsilon=0) == pytest.approx(2**1.75)
    assert log_condition(eigenvalues) == pytest.approx(math.log10(4))


def test_rankme_is_that_of_a_float32_decomposition() -> None:
    """The published definition, in its own precision: p = σ / ‖σ‖₁ + 1e-7."""
    x = skewed(300, 64).float()
    sigma = np.linalg.svd(x.numpy(), compute_uv=False)
    p = sigma / np.abs(sigma).sum() + 1e-7
    assert rankme(singular_values(x)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


def test_the_condition_leaves_rounding_out() -> None:
    assert log_condition(torch.tensor([1.0, 1e-3, 1e-13, 0], dtype=torch.float64)) == pytest.approx(3)
    assert math.isnan(log_condition(torch.zeros(4, dtype=torch.float64)))


@pytest.mark.parametrize("power", [0.5, 1, 2.25])
def test_alpha_of_a_power_law_is_its_exponent(power: float) -> None:
    spectrum = 3.7 * torch.arange(1, 513, dtype=torch.float64) ** -power
    assert alpha_req(spectrum) == pytest.approx(power, rel=1e-12)
    assert alpha_req(spectrum, first=11, last=50) == pytest.approx(power, rel=1e-12)
    spectrum[:5], spectrum[100:] = 9, 1e-9  # outside of the places that are fitted
    assert alpha_req(spectrum) == pytest.approx(power, rel=1e-12)


def test_alpha_is_the_weighted_least_squares_of_numpy() -> None:
    spectrum = covariance_eigenvalues(skewed(300, 128))
    k = np.arange(6, 101)
    slope, _ = np.polyfit(np.log(k), np.log(spectrum.numpy()[5:100]), 1, w=np.sqrt(1 / k))
    assert alpha_req(spectrum) == pytest.approx(-slope, rel=1e-10)


def test_alpha_is_that_of_the_public_port() -> None:
    """Golden: get_powerlaw of reptrix 0.1.0 over arange(5, 100) and arange(10, 100), counted from 0."""
    k = np.arange(1, 129)
    spectrum = torch.from_numpy(k**-1.1 * (1 + 0.3 * np.cos(k)))
    assert alpha_req(spectrum) == pytest.approx(1.1317304899767568, rel=1e-6)
    assert alpha_req(spectrum, first=11) == pytest.approx(1.1292712742341744, rel=1e-6)


def test_alpha_leaves_rounding_out_and_needs_two_eigenvalues() -> None:
    spectrum = torch.arange(1, 65, dtype=torch.float64) ** -1.5
    spectrum[20:] = 1e-17
    assert alpha_req(spectrum) == pytest.approx(1.5)
    assert not math.isnan(alpha_req(spectrum[:7]))
    assert math.isnan(alpha_req(spectrum[:6]))
    assert math.isnan(alpha_req(torch.zeros(64, dtype=torch.float64)))


# One matrix.


def test_uniformity_of_orthogonal_opposite_and_equal_directions() -> None:
    assert uniformity(torch.eye(16) * torch.rand(16, 1).add(0.1)) == pytest.approx(-4, abs=1e-6)
    assert uniformity(torch.eye(16), t=3) == pytest.approx(-6)
    assert uniformity(torch.tensor([[2.0, 0], [-1, 0]])) == pytest.approx(-8)
    assert uniformity(torch.ones(9, 5)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("t", [1, 2])
def test_uniformity_of_a_circle_is_a_bessel_function(t: float) -> None:
    """The mean of exp(-t (2 - 2 cos φ)) over the circle is exp(-2t) I₀(2t); of N points, without themselves,
    it is (N exp(-2t) I₀(2t) - 1) / (N - 1)."""
    n = 200
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    found = uniformity(torch.stack([angle.cos(), angle.sin()], dim=1), t=t)
    assert found == pytest.approx(math.log((n * ive(0, 2 * t) - 1) / (n - 1)), rel=1e-10)


@pytest.mark.parametrize("pairs", [1, 300, 2**24])
def test_uniformity_is_that_of_all_pairs(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_PAIRS", pairs)
    x = skewed(57, 5)
    distances = pdist(F.normalize(x, dim=1).numpy(), "sqeuclidean")
    assert uniformity(x) == pytest.approx(np.log(np.exp(-2 * distances).mean()), rel=1e-10)


@pytest.mark.usefixtures("rows")
def test_self_cluster_of_known_directions() -> None:
    assert self_cluster(torch.ones(30, 8) * torch.rand(30, 1).add(0.1)) == pytest.approx(1)
    assert self_cluster(torch.eye(16)) == pytest.approx(-1 / 15)
    assert self_cluster(noise(2000, 16)) == pytest.approx(0, abs=1e-3)
    assert self_cluster(noise(16, 2000)) == pytest.approx(0, abs=1e-2)
    assert math.isnan(self_cluster(noise(1, 5)))
    assert math.isnan(self_cluster(noise(5, 1)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("rows")
def test_off_diagonal_correlation_is_numpys(shape: tuple[int, int]) -> None:
    x = skewed(*shape)
    x[:, 3] = 1.25
    corr = np.corrcoef(np.delete(x.numpy(), 3, axis=1).T)
    others = corr[~np.eye(len(corr), dtype=bool)]
    assert off_diagonal_correlation(x) == pytest.approx((others**2).mean(), rel=1e-9)


def test_off_diagonal_correlation_of_redundant_and_of_orthogonal_features() -> None:
    assert off_diagonal_correlation(noise(50, 1) * torch.tensor([1.0, -3, 0.1])) == pytest.approx(1)
    signs = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert off_diagonal_correlation(signs) == 0
    assert math.isnan(off_diagonal_correlation(torch.ones(5, 3)))


# Views.


def test_alignment_of_equal_opposite_and_orthogonal_views() -> None:
    e = noise(10, 1, 8)
    assert alignment(torch.cat([e, 3 * e], dim=1)) == pytest.approx(0, abs=1e-12)
    assert alignment(torch.cat([e, -e], dim=1)) == pytest.approx(4)
    assert alignment(torch.cat([e, -e], dim=1), power=1) == pytest.approx(2)
    assert alignment(torch.eye(5).expand(7, 5, 5)) == pytest.approx(2)


@pytest.mark.usefixtures("rows")
def test_alignment_is_the_mean_over_pairs_of_views() -> None:
    e = noise(20, 4, 6)
    z = F.normalize(e, dim=2)
    for power in (1.0, 2.0, 3.0):
        pairs = [(z[:, a] - z[:, b]).norm(dim=1).pow(power).mean() for a, b in combinations(range(4), 2)]
        assert alignment(e, power) == pytest.approx(float(torch.stack(pairs).mean()), rel=1e-9)
    assert alignment(e[:, :2]) == pytest.approx(2 - 2 * view_cosine(e[:, 0], e[:, 1]), rel=1e-5)


def lidar_by_hand(e: np.ndarray, delta: float) -> float:
    n, q, d = e.shape
    mean = e.mean(axis=1)
    between, within = np.zeros((d, d)), delta * np.eye(d)
    for i in range(n):
        between += np.outer(mean[i] - mean.mean(axis=0), mean[i] - mean.mean(axis=0)) / n
        for j in range(q):
            within += np.outer(e[i, j] - mean[i], e[i, j] - mean[i]) / (n * q)
    whitening = scipy.linalg.inv(scipy.linalg.sqrtm(within).real)
    eigenvalues = np.linalg.eigvalsh(whitening @ between @ whitening)
    p = eigenvalues / eigenvalues.sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("delta", [1e-4, 0.3])
def test_lidar_is_that_of_the_papers_formula(delta: float) -> None:
    e = skewed(30, 9)[:, None] + 0.4 * noise(30, 5, 9)
    assert lidar(e, delta) == pytest.approx(lidar_by_hand(e.numpy(), delta), rel=1e-8)


def test_lidar_of_a_constructed_case() -> None:
    """Images lie at ±a_k on each axis, views at ±b around them on each axis: Σ_b = diag(a²) / d, and Σ_w =
    I b² / d, so the eigenvalues are as a²."""
    a = torch.tensor([2.0, 2**0.5, 1, 1], dtype=torch.float64)  # squares 4, 2, 1, 1: 7/4 bits
    images = torch.cat([torch.diag(a), -torch.diag(a)])
    spread = torch.cat([torch.eye(4), -torch.eye(4)]).double() * 0.3
    e = images[:, None] + spread
    assert lidar(e, delta=0, epsilon=0) == pytest.approx(2**1.75)
    # Without views that differ along the second and fourth axis these count for infinitely much, as 2 to 1.
    expected = math.exp(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    assert lidar(e[:, ::2], delta=1e-9, epsilon=0) == pytest.approx(expected, rel=1e-5)


def test_lidar_measures_images_in_units_of_their_views() -> None:
    """An invertible linear map of the features changes nothing, for it maps both; the covariance's rank does
    change."""
    e = noise(40, 1, 6) + 0.5 * noise(40, 8, 6)
    mapped = e @ torch.diag(torch.tensor([9.0, 4, 2, 1, 0.3, 0.1], dtype=torch.float64)) @ noise(6, 6)
    assert lidar(mapped, delta=0) == pytest.approx(lidar(e, delta=0), rel=1e-8)
    ranks = [covariance_effective_rank(covariance_eigenvalues(x.flatten(0, 1))) for x in (e, mapped)]
    assert ranks[1] < 0.6 * ranks[0]


def test_lidar_is_bounded_by_the_images() -> None:
    assert lidar(noise(5, 40, 30), epsilon=0) <= 4 + 1e-9


# With labels.


@pytest.mark.usefixtures("rows")
def test_tolerance_is_the_mean_cosine_within_classes() -> None:
    x, y = skewed(45, 6), torch.randint(0, 4, (45,)) * 10 - 7
    y[0] = 99  # a class of one has no pairs
    z = F.normalize(x, dim=1)
    cosines = [float(z[i] @ z[j]) for i, j in combinations(range(45), 2) if y[i] == y[j]]
    assert tolerance(x, y) == pytest.approx(np.mean(cosines), rel=1e-9)
    assert math.isnan(tolerance(x, torch.arange(45)))


def blobs(each: int = 20, classes: int = 4) -> tuple[Tensor, Tensor]:
    y = torch.arange(classes).repeat(each)
    return torch.eye(classes, 6)[y] + 0.05 * torch.randn(len(y), 6), y * 5 + 3


def test_clusters_that_are_the_classes() -> None:
    x, y = blobs()
    assert cluster_agreement(x * torch.rand(len(x), 1).add(0.1), y) == pytest.approx(
        {"nmi": 1, "ari": 1, "ami": 1, "accuracy": 100, "balance": 1}
    )


def test_clusters_are_scikit_learns() -> None:
    x, y = torch.randn(120, 5) + torch.randn(3, 5).repeat(40, 1), torch.arange(3).repeat(40)
    found = cluster_agreement(x, y, restarts=3, seed=5)
    z = F.normalize(x, dim=1).numpy()
    theirs = KMeans(3, n_init=3, random_state=5).fit_predict(z)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(y, theirs))
    assert 0 < found["nmi"] < 1
    right = max(
        sum(int(np.sum((theirs == c) & (y.numpy() == label))) for c, label in enumerate(order))
        for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    )
    assert found["accuracy"] == pytest.approx(100 * right / 120)
    shares = np.bincount(theirs) / 120
    assert found["balance"] == pytest.approx(-(shares * np.log(shares)).sum() / math.log(3))


def test_clusters_of_labels_that_mean_nothing_and_of_one_point() -> None:
    x, y = blobs()
    shuffled = cluster_agreement(x, y[torch.randperm(len(y))])
    assert abs(shuffled["ari"]) < 0.1
    assert abs(shuffled["ami"]) < 0.1
    collapsed = cluster_agreement(torch.ones(80, 6), y)
    assert collapsed == pytest.approx({"nmi": 0, "ari": 0, "ami": 0, "accuracy": 25, "balance": 0})
    with pytest.raises(UserError, match="two or more"):
        cluster_agreement(x, torch.zeros(len(x), dtype=torch.int64))


# Two representations.


def cka_by_hand(x: Tensor, y: Tensor) -> float:
    """HSIC with an explicit centring matrix."""
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    k, m = (centring @ matrix @ matrix.T @ centring for matrix in (x, y))
    return float((k * m).sum() / (k.norm() * m.norm()))


def unbiased_cka_by_hand(x: Tensor, y: Tensor) -> float:
    """HSIC₁ as Song et al. write it (equation 5), of kernels without their diagonals."""
    n = len(x)
    k, m = (matrix @ matrix.T - torch.diag((matrix**2).sum(dim=1)) for matrix in (x, y))
    one = torch.ones(n, dtype=torch.float64)

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        first = torch.trace(k @ m)
        second = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (first + second - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3))

    return float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt())


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(("n", "d", "other"), [(60, 8, 5), (20, 50, 8), (20, 30, 40), (30, 20, 25)])
def test_cka_is_that_of_explicit_kernels(n: int, d: int, other: int) -> None:
    x = skewed(n, d)
    y = x @ noise(d, other) + 2 * noise(n, other) + 5
    assert linear_cka(x, y) == pytest.approx(cka_by_hand(x, y), rel=1e-9)
    assert linear_cka(x, y, unbiased=True) == pytest.approx(unbiased_cka_by_hand(x, y), rel=1e-8)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y))


def test_cka_is_that_of_a_public_library() -> None:
    """Golden: ckatorch 1.0.3, cka_base with the linear kernel, of these matrices."""
    i, j = np.arange(40)[:, None], np.arange(12)
    x, y = (
        torch.from_numpy(np.sin(i * (j + 1))),
        torch.from_numpy(np.sin(i * (j[:7] + 1)) + np.cos(i * j[:7])),
    )
    assert linear_cka(x, y) == pytest.approx(0.4295158235325457, rel=1e-6)
    assert linear_cka(x, y, unbiased=True) == pytest.approx(0.2793479783117894, rel=1e-6)


@pytest.mark.parametrize("unbiased", [False, True])
def test_rotation_scale_and_shift_make_no_difference_to_cka(unbiased: bool) -> None:
    x, y = skewed(50, 6), skewed(50, 9)
    expected = linear_cka(x, y, unbiased=unbiased)
    assert linear_cka(x @ rotation(6) * 7 + 3, y, unbiased=unbiased) == pytest.approx(expected)
    assert linear_cka(x, x @ rotation(6) * 0.1, unbiased=unbiased) == pytest.approx(1)
    stretched = x * torch.tensor([30.0, 1, 1, 1, 1, 1], dtype=torch.float64)
    assert linear_cka(stretched, y, unbiased=unbiased) != pytest.approx(expected, abs=1e-3)


def test_unbiased_cka_knows_wide_noise_from_likeness() -> None:
    x, y = noise(50, 400), noise(50, 400)
    assert linear_cka(x, y) > 0.8
    assert linear_cka(x, y, unbiased=True) == pytest.approx(0, abs=0.1)


def test_cka_of_other_images_and_of_nothing() -> None:
    with pytest.raises(UserError, match="30 rows and 31"):
        linear_cka(noise(30, 4), noise(31, 4))
    assert math.isnan(linear_cka(torch.ones(30, 4), noise(30, 4)))


def test_neighbour_agreement_by_hand() -> None:
    one = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert neighbour_agreement(one, one.flip(1)) == 1
    assert neighbour_agreement(one, one + 10) == 0
    assert neighbour_agreement(one, torch.tensor([[3, 7, 1], [6, 8, 9]])) == pytest.approx(
        (2 / 4 + 1 / 5) / 2
    )


# What all share.


@pytest.mark.parametrize(
    "measure",
    [
        lambda x: rankme(singular_values(x)),
        lambda x: stable_rank(singular_values(x)),
        lambda x: alpha_req(covariance_eigenvalues(x)),
        lambda x: participation_ratio(covariance_eigenvalues(x)),
        uniformity,
        self_cluster,
        lambda x: alignment(x.view(16, 5, -1)),
        lambda x: lidar(x.view(16, 5, -1)),
        lambda x: tolerance(x, torch.arange(80) % 3),
        lambda x: cluster_agreement(x, torch.arange(80) % 3)["nmi"],
    ],
)
def test_directions_do_not_matter(measure: Any) -> None:
    x = skewed(80, 16)
    assert measure(x @ rotation(16)) == pytest.approx(measure(x), rel=1e-6)


def test_samples_are_seeded_sorted_and_without_repeats() -> None:
    chosen = sample(1000, 100, 0)
    assert chosen.dtype == np.int64
    assert len(set(chosen)) == 100
    assert (np.diff(chosen) > 0).all()
    assert 300 < chosen.mean() < 700
    assert (sample(1000, 100, 0) == chosen).all()
    assert (sample(1000, 100, 1) != chosen).any()
    assert set(sample(1000, 50, 0)) < set(chosen)
    assert (sample(10, 0, 3) == np.arange(10)).all()
    assert (sample(10, 99, 3) == np.arange(10)).all()
