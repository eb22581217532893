"""What the SVMs take of the host's memory, and how many of them fit it.

Legend: N images of train, D features.
"""

from __future__ import annotations

from siamtransfer.utils.errors import UserError

OWN, SHARED, PER_FIT = 8, 8, 19
"""Bytes a number of features[N, D]: the features in float64, the file of them that processes share, and one
fit. LIBLINEAR keeps 16 bytes a number, and a fold of cross-validation is a copy (measured, docs/SCALE.md)."""


def jobs_within(gib: float, rows: int, dim: int, jobs: int) -> int:
    """How many of `jobs` processes fit their SVMs of features[N, D] at once in `gib` GiB.

    Raises:
        UserError: not even one does; it names a sample that fits.
    """
    numbers, budget = rows * dim, gib * 2**30
    if (OWN + PER_FIT) * numbers > budget:
        fitting = int(budget / ((OWN + PER_FIT) * dim))
        digits = 10 ** max(0, len(str(fitting)) - 2)
        needed = (OWN + PER_FIT) * numbers / 2**30
        raise UserError(
            f"an SVM of {rows:,} images with {dim:,} features takes {needed:.3g} GiB and "
            f"--memory allows {gib:g}: take --sample {fitting // digits * digits}, which fits them to a "
            "part of every class, or raise --memory"
        )
    return max(1, min(jobs, int((budget / numbers - OWN - SHARED) / PER_FIT)))
