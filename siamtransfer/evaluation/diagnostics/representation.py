"""All diagnostics of one representation by name, and those of two representations of the same images.

Legend: N images of width d, n sampled ones, q views of each of m images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.knn.search import search
from siamtransfer.metrics.spread import centre_norm, effective_rank, output_std
from siamtransfer.utils.files import atomic_write

NEIGHBOURS = 10
"""Of each image, for the agreement between two representations."""

GUIDE = {
    "std": "1 isotropic, 0 collapsed",
    "centre_norm": "0 balanced, 1 collapsed",
    "effective_rank_singular": "higher, at most d",
    "effective_rank_covariance": "higher, at most d",
    "rankme": "higher, within a method",
    "stable_rank": "higher, at most d",
    "participation_ratio": "higher, at most d",
    "nesum": "higher, at most d",
    "alpha_req": "near 1; large when few directions matter",
    "log_condition": "lower",
    "off_diagonal_correlation": "0 decorrelated, 1 redundant",
    "self_cluster": "0 uniform, 1 collapsed",
    "uniformity": "lower; about -4 uniform, 0 collapsed",
    "tolerance": "higher: classes hold together",
    "kmeans_nmi": "1 clusters are classes",
    "kmeans_ari": "1 clusters are classes, 0 chance",
    "kmeans_ami": "1 clusters are classes, 0 chance",
    "kmeans_accuracy": "percent",
    "kmeans_balance": "1 clusters of one size",
    "alignment": "lower; 0 views coincide",
    "lidar": "higher, within a method",
}
"""The diagnostics in the order of a table, and how to read them."""


@dataclass(eq=False)
class Representation:
    """Features of one layer of a network: `rows`[N, d] of all images with their `labels`, the rows `sampled`
    int64[n] for what needs pairs and clusters, and `views`[m, q, d] where there are such."""

    rows: measures.Matrix
    labels: Tensor
    sampled: np.ndarray
    views: Tensor | None

    def sample(self) -> tuple[Tensor, Tensor]:
        """float32[n, d] and their labels."""
        indices = torch.from_numpy(self.sampled)
        if isinstance(self.rows, np.ndarray):
            return torch.from_numpy(np.asarray(self.rows[self.sampled], np.float32)), self.labels[indices]
        return self.rows[indices].float(), self.labels[indices]

    @property
    def has_classes(self) -> bool:
        """Whether every image has one label and the sampled ones are of two classes or more."""
        return self.labels.ndim == 1 and len(self.labels[torch.from_numpy(self.sampled)].unique()) > 1


def measure(
    representation: Representation,
    eigenvalues: Tensor,
    device: torch.device,
    *,
    restarts: int,
    seed: int,
) -> dict[str, float]:
    """The diagnostics of GUIDE: those without labels, with classes also `tolerance` and (unless `restarts` is
    0) k-means, and those of views where there are such.

    `eigenvalues` are those of the covariance of `representation.rows`.
    """
    x, y = representation.sample()
    x = x.to(device)
    singular = measures.singular_values(x)
    numbers = {
        "std": output_std(x),
        "centre_norm": centre_norm(x),
        "effective_rank_singular": effective_rank(x),
        "effective_rank_covariance": measures.covariance_effective_rank(eigenvalues),
        "rankme": measures.rankme(singular),
        "stable_rank": measures.stable_rank(singular),
        "participation_ratio": measures.participation_ratio(eigenvalues),
        "nesum": measures.nesum(eigenvalues),
        "alpha_req": measures.alpha_req(eigenvalues),
        "log_condition": measures.log_condition(eigenvalues),
        "off_diagonal_correlation": measures.off_diagonal_correlation(x),
        "self_cluster": measures.self_cluster(x),
        "uniformity": measures.uniformity(x),
    }
    if representation.has_classes:
        numbers["tolerance"] = measures.tolerance(representation.rows, representation.labels, device)
        if restarts:
            agreement = measures.cluster_agreement(x, y, restarts=restarts, seed=seed)
            numbers |= {f"kmeans_{name}": value for name, value in agreement.items()}
    if representation.views is not None:
        views = representation.views.to(device)
        numbers |= {"alignment": measures.alignment(views), "lidar": measures.lidar(views)}
    return numbers


def measure_protocol(restarts: int, seed: int) -> dict[str, object]:
    """What the numbers of `measure` and `compare_representations` depend on, for the record."""
    return {
        "spectrum, tolerance and CKA": "all rows",
        "ranks of singular values": "sampled rows, not centred",
        "rankme": {"epsilon": measures.EPSILON},
        "alpha_req": {"places": list(measures.PLACES), "weights": "1/k"},
        "uniformity": {"t": measures.T},
        "alignment": {"power": measures.POWER},
        "lidar": {"delta": measures.DELTA, "epsilon": measures.EPSILON},
        "kmeans": {"start": "k-means++", "restarts": restarts, "rows": "unit length", "seed": seed},
        "neighbour_agreement": {"k": NEIGHBOURS, "similarity": "cosine"},
    }


def compare_representations(
    representations: Sequence[Representation], device: torch.device
) -> dict[tuple[int, int], dict[str, float]]:
    """For each two representations of the same images: CKA on all of them, and how far nearest neighbours
    within the sampled ones are the same."""
    nearest = []
    for representation in representations:
        x = representation.sample()[0].to(device)
        k, rows = min(NEIGHBOURS, len(x) - 1), torch.arange(len(x), device=device)
        nearest.append(search(x, x, k, leave_out=rows)[1])
    numbers = {}
    for a, b in combinations(range(len(representations)), 2):
        first, second = representations[a].rows, representations[b].rows
        numbers[a, b] = {
            "cka": measures.linear_cka(first, second, device=device),
            "cka_unbiased": measures.linear_cka(first, second, unbiased=True, device=device),
            "neighbour_agreement": measures.neighbour_agreement(nearest[a], nearest[b]),
        }
    return numbers


def write_spectra(path: Path, spectra: Mapping[str, Tensor]) -> None:
    """Draws λ_k / Σλ over k for each name as a PNG, both axes logarithmic. Eigenvalues below measures.FLOOR,
    which are rounding errors, are left out; a dotted line has the slope of α = 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for name, eigenvalues in spectra.items():
        fractions = (eigenvalues / eigenvalues.sum()).cpu().numpy()
        fractions = fractions[fractions > measures.FLOOR * fractions[0]]
        axes.loglog(np.arange(1, len(fractions) + 1), fractions, label=name)
    k = np.array([1, max(2, *(len(eigenvalues) for eigenvalues in spectra.values()))])
    axes.loglog(k, 0.1 / k, color="grey", linestyle=":", label="alpha = 1")
    axes.set(xlabel="k", ylabel="fraction of the k-th eigenvalue of the covariance")
    axes.legend(fontsize="small")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
