"""UniGrad's gradients against the published code at several batch sizes, widths and settings.

`golden/methods/unigrad_sizes.npz` holds what the losses of fundamentalvision/UniGrad (commit ede8e68) give in
float64, on one process, in the third of three batches: the loss, its gradients and F. Embeddings are drawn by
`embeddings`; `settings` of a case are N, d, λ, ρ, ε, τ and the seed. No line of that code is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.golden_methods import FOLDER, TinyBackbone, assert_close
from torch import Tensor

from siamtransfer.methods.unigrad import UniGrad, UniGradConfig

BATCHES = 3
ARRAYS = {
    name: torch.from_numpy(np.asarray(array)) for name, array in np.load(FOLDER / "unigrad_sizes.npz").items()
}
CASES = sorted({name.split("/")[0] for name in ARRAYS})
FAMILIES = {
    "unigrad": "unigrad",
    "contrastive": "simclr_grad_mm",
    "asymmetric": "byol_directpred_grad",
    "barlow-twins": "barlow_twins_grad_mm",
}


def embeddings(rng: np.random.RandomState, rows: int, dim: int) -> list[Tensor]:
    """Unit vectors of both views, then of both by the momentum encoder; those of one image resemble each
    other."""
    z1, z2, z1m, z2m = (rng.standard_normal((rows, dim)) for _ in range(4))
    z2 += z1
    pairs = (z1, z2, z1m + z1, z2m + z2)
    return [torch.from_numpy(z / np.linalg.norm(z, axis=1, keepdims=True)) for z in pairs]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_published_code_at_every_size(case: str, family: str) -> None:
    rows, dim, balance, rho, epsilon, temperature, seed = ARRAYS[f"{case}/settings"].tolist()
    options: dict[str, Any] = {"negative": family, "rho": rho, "epsilon": epsilon, "temperature": temperature}
    if family in ("unigrad", "barlow-twins"):
        options["balance"] = balance
    if family == "barlow-twins":
        options["plain_positive"] = True  # the published code leaves A out
    method = UniGrad(TinyBackbone(), UniGradConfig(hidden=4, dim=int(dim), **options)).double()
    rng = np.random.RandomState(int(seed))
    for _ in range(BATCHES):
        z1, z2, z1m, z2m = embeddings(rng, int(rows), int(dim))
        targets = z1m, z2m
        g1, g2 = method.gradients((z1, z2), targets, targets)
    loss = ((g1 * z1).sum(dim=1).mean() + (g2 * z2).sum(dim=1).mean()) / 2
    published = f"{case}/{FAMILIES[family]}"
    assert_close(loss, ARRAYS[f"{published}/loss"], torch.float64, "loss")
    for name, gradient in (("grad_z1", g1), ("grad_z2", g2)):
        assert_close(gradient / (2 * len(z1)), ARRAYS[f"{published}/{name}"], torch.float64, name)
    if family in ("unigrad", "asymmetric"):
        assert_close(method.correlation.matrix, ARRAYS[f"{published}/F"], torch.float64, "F")


def test_the_cases_are_small_and_large_batches_of_narrow_and_wide_embeddings() -> None:
    sizes = [tuple(ARRAYS[f"{case}/settings"][:2].int().tolist()) for case in CASES]
    assert sizes == [(2, 5), (5, 12), (24, 7), (13, 33), (40, 6)]
