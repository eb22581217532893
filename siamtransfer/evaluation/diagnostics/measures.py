"""Measures of a representation: from features alone, from views of the same image, or with labels.

Legend: x[N, d] features, z = n(x) its rows scaled to unit length, σ the singular values of x (not centred),
λ the eigenvalues of its covariance (centred), both in falling order, and k their rank from 1. All arithmetic
is float64. A matrix is a tensor on any device or an array mapped from a file, of any floating-point type.
Measures that need only sums over rows (covariance, tolerance, CKA) read it in chunks and never hold all of
it; the others are for samples. The measures that also watch a training run are in metrics/spread.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor

from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.utils.errors import UserError

Matrix = Tensor | np.ndarray

EPSILON = 1e-7  # added to fractions by RankMe and LiDAR
DELTA = 1e-4  # added to the covariance of views by LiDAR
PLACES = (6, 100)  # first and last rank in the spectrum that α-ReQ is fitted to
T, POWER = 2.0, 2.0  # of uniformity and alignment
FLOOR = 1e-12  # of the largest eigenvalue; what lies below is rounding errors
WIDEST = 16384  # side of a matrix that is decomposed: 2 GiB
ROWS = 8192  # of a chunk
_PAIRS = 2**24  # held at once


def sample(count: int, size: int, seed: int) -> np.ndarray:
    """int64[min(count, size)]: a random sample of `count` rows by `seed`, in rising order; size 0: all."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(count)
    return np.sort(order[: size or count])


# Spectra.


def singular_values(x: Matrix, device: torch.device | None = None) -> Tensor:
    """σ, float64[min(N, d)], of x as it is."""
    return _eigenvalues(_scatter(x, _identity, device)).sqrt()


def covariance_eigenvalues(x: Matrix, device: torch.device | None = None) -> Tensor:
    """λ, float64[min(N, d)], of XᵀX / N with centred columns; without the d - N that are zero for N < d."""
    return _eigenvalues(_scatter(x, _centring(x, device), device)) / len(x)


def rankme(singular: Tensor, epsilon: float = EPSILON) -> float:
    """exp of the entropy of p = σ / Σσ + ε (Garrido et al. 2023, equation 2).

    The paper takes 25,600 projections of training images; larger is better among runs of one method.
    """
    return _entropy_rank(singular, epsilon)


def stable_rank(singular: Tensor) -> float:
    """Σσ² / σ₁²: 1 for a line, min(N, d) when all directions are alike."""
    return float(singular.square().sum() / singular[0].square())


def covariance_effective_rank(eigenvalues: Tensor) -> float:
    """exp of the entropy of p = λ / Σλ (Roy and Vetterli 2007, here of the covariance; `effective_rank` of
    diagnostics.py is that of singular values)."""
    return _entropy_rank(eigenvalues, 0.0)


def participation_ratio(eigenvalues: Tensor) -> float:
    """(Σλ)² / Σλ²: how many directions carry the variance."""
    return float(eigenvalues.sum().square() / eigenvalues.square().sum())


def nesum(eigenvalues: Tensor) -> float:
    """Σλ / λ₁, the normalised eigenvalue sum (He and Ozay 2022)."""
    return float(eigenvalues.sum() / eigenvalues[0])


def log_condition(eigenvalues: Tensor) -> float:
    """log₁₀ of λ₁ over the smallest eigenvalue above FLOOR λ₁."""
    above = eigenvalues[eigenvalues > FLOOR * eigenvalues[0]]
    return float((above[0] / above[-1]).log10()) if len(above) else math.nan


def alpha_req(eigenvalues: Tensor, first: int = PLACES[0], last: int = PLACES[1]) -> float:
    """The α of λ_k ∝ k^-α (Agrawal et al. 2022): least squares of log λ on log k, weighted by 1 / k, over the
    places first … last. Near 1 is best; a large α is dimensional collapse.

    The default places are those of the public port (reptrix, main branch; its release 0.1.0 begins at 11).
    Eigenvalues that are rounding (below FLOOR λ₁) are left out; NaN when fewer than two remain.
    """
    k = torch.arange(1, len(eigenvalues) + 1, dtype=torch.float64, device=eigenvalues.device)
    chosen = (k >= first) & (k <= last) & (eigenvalues > FLOOR * eigenvalues[0])
    if int(chosen.sum()) < 2:
        return math.nan
    k, y = k[chosen].log(), eigenvalues[chosen].log()
    weight = (-k).softmax(dim=0)  # 1 / k, to the sum 1
    k, y = k - weight @ k, y - weight @ y
    return -float((weight * k) @ y / ((weight * k) @ k))


# One matrix.


def uniformity(x: Tensor, t: float = T) -> float:
    """log of the mean of exp(-t ‖z_i - z_j‖²) over all pairs i ≠ j (Wang and Isola 2020).

    0 when all rows point one way, about -2t when they spread over the sphere; lower is better.
    """
    z = unit_rows(x.double(), torch.float64)
    rows, total = max(1, _PAIRS // len(z)), z.new_zeros(())
    for begin in range(0, len(z), rows):  # some rows against themselves and all later ones
        cosine = z[begin : begin + rows] @ z[begin:].T
        total += cosine.sub_(1).clamp_max_(0).mul_(2 * t).exp_().triu_(1).sum()
    return float((total / (len(z) * (len(z) - 1) / 2)).log())


def self_cluster(x: Matrix, device: torch.device | None = None) -> float:
    """(d ‖ZZᵀ‖² - N (N + d - 1)) / ((d - 1) (N - 1) N), squared Frobenius norm (Tsitsulin et al. 2023).

    0 is expected for directions that are uniform on the sphere; 1 when all rows point one way; NaN for a
    single row or feature.
    """
    n, d = x.shape
    if min(n, d) < 2:
        return math.nan
    z = _scatter(x, _unit, device)
    return float((d * z.square().sum() - n * (n + d - 1)) / ((d - 1) * (n - 1) * n))


def off_diagonal_correlation(x: Matrix, device: torch.device | None = None) -> float:
    """Mean square of the correlations between two different features; constant features are left out. 0 when
    features say different things, 1 when all say the same. NaN for fewer than two."""
    centre = _centring(x, device)
    length = sum(centre(chunk).square().sum(dim=0) for chunk in _chunks(x, device)).sqrt()  # type: ignore[union-attr]
    varying = int((length > 0).sum())
    if varying < 2:
        return math.nan
    length[length == 0] = math.inf
    total = _scatter(x, lambda chunk: centre(chunk) / length, device).square().sum()
    return float((total - varying) / (varying * (varying - 1)))


# Views of the same image: e[n, q, d], q views of each of n images.


def alignment(views: Tensor, power: float = POWER) -> float:
    """Mean of ‖z - z'‖^power over all pairs of views of the same image (Wang and Isola 2020).

    0 when all views of an image are one point; lower is better. With power 2 it is 2 - 2 cos.
    """
    n, q, _ = views.shape
    first, second = torch.triu_indices(q, q, 1, device=views.device)
    total = views.new_zeros((), dtype=torch.float64)
    for chunk in views.split(max(1, ROWS // q)):
        z = unit_rows(chunk.double(), torch.float64)
        squared = (2 - 2 * z @ z.mT)[:, first, second].clamp_min(0)
        total += squared.pow(power / 2).sum()
    return float(total / (n * len(first)))


def lidar(views: Tensor, delta: float = DELTA, epsilon: float = EPSILON) -> float:
    """exp of the entropy of p = λ / Σλ + ε, where λ are the eigenvalues of Σ_w^-½ Σ_b Σ_w^-½ (Thilak et al.
    2023): the rank of the differences between images, in units of the differences between views of an image.

    Σ_b is the covariance of the images' means, Σ_w the mean covariance of an image's views, plus δ on the
    diagonal. The paper takes about 1,000 images and 50 views; n images bound the rank by n - 1, and fewer
    than d views too many (n (q - 1) < d) leave Σ_w to δ.

    Raises:
        UserError: the features are too wide for a covariance in memory.
    """
    n, q, d = views.shape
    _require_width(d)
    within, means = views.new_zeros(d, d, dtype=torch.float64), []
    for chunk in views.split(max(1, ROWS // q)):
        mean = chunk.double().mean(dim=1)
        deviation = (chunk - mean[:, None]).flatten(0, 1)
        within += deviation.T @ deviation / (n * q)
        means.append(mean)
    mean = torch.cat(means)
    mean = mean - mean.mean(dim=0)
    between = mean.T @ mean / n
    within.diagonal().add_(delta)
    root = torch.linalg.cholesky(within)  # L⁻¹ Σ_b L⁻ᵀ has the same eigenvalues
    half = torch.linalg.solve_triangular(root, between, upper=False)
    return _entropy_rank(_eigenvalues(torch.linalg.solve_triangular(root, half.T, upper=False)), epsilon)


# With labels int64[N].


def tolerance(x: Matrix, labels: Tensor, device: torch.device | None = None) -> float:
    """Mean cosine over all pairs of different rows of the same class (Wang and Liu 2021); NaN where no class
    has two."""
    device = x.device if device is None and isinstance(x, Tensor) else device
    classes, y = torch.unique(labels.to(device), return_inverse=True)
    count = torch.bincount(y).double()
    if count.max() < 2:
        return math.nan
    sums, begin = torch.zeros(len(classes), x.shape[1], dtype=torch.float64, device=device), 0
    for chunk in _chunks(x, device):
        sums.index_add_(0, y[begin : begin + len(chunk)], _unit(chunk))
        begin += len(chunk)
    pairs = count * (count - 1)  # ‖Σz‖² counts each pair twice, and each row with itself
    return float((sums.square().sum(dim=1) - count).sum() / pairs.sum())


def cluster_agreement(x: Tensor, labels: Tensor, *, restarts: int = 10, seed: int = 0) -> dict[str, float]:
    """How well the clusters of k-means on z agree with the K classes. K-means has K clusters and starts
    `restarts` times by k-means++ with `seed`; the best run is taken (scikit-learn).

    `nmi` is 2 I / (H + H), `ari` and `ami` are adjusted for chance, `accuracy` is the percentage of rows in
    the cluster that the best one-to-one assignment gives to their class, `balance` the entropy of the
    clusters' sizes over ln K: 1 when all are of one size.

    Raises:
        UserError: the labels name fewer than two classes.
    """
    y = labels.cpu().numpy()
    count = len(np.unique(y))
    if count < 2:
        raise UserError("clusters can be compared with classes only where the labels name two or more")
    z = unit_rows(x, torch.float32).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer points than clusters: see `balance`
        clusters = KMeans(count, init="k-means++", n_init=restarts, random_state=seed % 2**32).fit_predict(z)
    table = contingency_matrix(y, clusters)
    correct = table[linear_sum_assignment(table, maximize=True)].sum()
    sizes = torch.from_numpy(np.bincount(clusters)).double() / len(y)
    return {
        "nmi": float(normalized_mutual_info_score(y, clusters)),
        "ari": float(adjusted_rand_score(y, clusters)),
        "ami": float(adjusted_mutual_info_score(y, clusters)),
        "accuracy": 100 * float(correct) / len(y),
        "balance": float(torch.special.entr(sizes).sum()) / math.log(count),
    }


# Two representations of the same images.


def linear_cka(x: Matrix, y: Matrix, *, unbiased: bool = False, device: torch.device | None = None) -> float:
    """‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) with centred columns (Kornblith et al. 2019): 1 for representations that are the
    same up to rotation and scale.

    With few rows for the width all representations look alike; `unbiased` puts HSIC₁ (Song et al. 2012) for
    each squared norm, which is 0 on average for what is independent. Of a linear kernel it needs no
    minibatches: with centred columns only the rows' lengths enter beside the norms. NaN where a
    representation does not vary (or, unbiased, not more than its noise).

    Raises:
        UserError: the rows are not of the same images, or so few images have so wide features that neither
            side fits.
    """
    if len(x) != len(y):
        raise UserError(f"CKA compares the same images, and there are {len(x)} rows and {len(y)}")
    xy, xx, yy = (_hsic(a, b, unbiased, device) for a, b in ((x, y), (x, x), (y, y)))
    return xy / math.sqrt(xx * yy) if xx > 0 and yy > 0 else math.nan


def neighbour_agreement(first: Tensor, second: Tensor) -> float:
    """Mean over rows of the Jaccard index of two sets of neighbours, int64[N, k] each: 1 for the same."""
    shared = (first[:, :, None] == second[:, None, :]).any(dim=2).sum(dim=1).double()
    return float((shared / (2 * first.shape[1] - shared)).mean())


def _hsic(x: Matrix, y: Matrix, unbiased: bool, device: torch.device | None) -> float:
    """‖YᵀX‖² with centred columns; unbiased, less what the diagonals of the kernels XXᵀ and YYᵀ add to it."""
    n, d_x, d_y = len(x), x.shape[1], y.shape[1]
    centre_x, centre_y = _centring(x, device), _centring(y, device)
    if n * n < d_x * d_y:
        cross = (_scatter(x, centre_x, device, gram=True) * _scatter(y, centre_y, device, gram=True)).sum()
    else:
        _require_width(math.isqrt(d_x * d_y))
        pairs = zip(_chunks(x, device), _chunks(y, device), strict=True)
        cross = sum(centre_x(a).T @ centre_y(b) for a, b in pairs).square().sum()  # type: ignore[union-attr]
    if not unbiased:
        return float(cross)
    k = torch.cat([centre_x(chunk).square().sum(dim=1) for chunk in _chunks(x, device)])
    m = torch.cat([centre_y(chunk).square().sum(dim=1) for chunk in _chunks(y, device)])
    return float(cross - n / (n - 2) * (k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)))


def _entropy_rank(values: Tensor, epsilon: float) -> float:
    return float(torch.special.entr(values / values.sum() + epsilon).sum().exp())


def _eigenvalues(symmetric: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(symmetric).clamp_min(0).flip(0)


Prepare = Callable[[Tensor], Tensor]
"""A change of rows float64[n, d] before they are summed."""

_unit: Prepare = partial(unit_rows, dtype=torch.float64)


def _identity(chunk: Tensor) -> Tensor:
    return chunk


def _centring(x: Matrix, device: torch.device | None) -> Prepare:
    mean = sum(chunk.sum(dim=0) for chunk in _chunks(x, device)) / len(x)
    return lambda chunk: chunk - mean


def _scatter(x: Matrix, prepare: Prepare, device: torch.device | None, gram: bool | None = None) -> Tensor:
    """XᵀX float64[d, d] by chunks, or with `gram` XXᵀ float64[N, N] at once. None: the smaller one, because
    both have the same norm and the same eigenvalues except zeros."""
    n, d = x.shape
    gram = n < d if gram is None else gram
    _require_width(n if gram else d)
    if gram:
        rows = prepare(torch.cat(list(_chunks(x, device))))
        return rows @ rows.T
    return sum(rows.T @ rows for rows in map(prepare, _chunks(x, device)))  # type: ignore[return-value]


def _chunks(x: Matrix, device: torch.device | None) -> Iterator[Tensor]:
    """x as float64[n, d], ROWS rows at a time, on `device` or, for None, where x is.

    Raises:
        UserError: a value is not finite.
    """
    for begin in range(0, len(x), ROWS):
        rows = x[begin : begin + ROWS]
        rows = torch.from_numpy(np.array(rows)) if isinstance(rows, np.ndarray) else rows
        rows = rows.to(device).double()
        if not bool(torch.isfinite(rows.sum())):
            raise UserError("the features hold values that are not finite, so they cannot be measured")
        yield rows


def _require_width(side: int) -> None:
    if side > WIDEST:
        raise UserError(
            f"a matrix of {side:,} x {side:,} would have to be decomposed, and {WIDEST:,} is the most: take "
            "narrower features (of pixels: a smaller crop) or fewer images"
        )
