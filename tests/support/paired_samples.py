"""Predictions of two classifiers for the same samples."""

from __future__ import annotations

import numpy as np


def pair(counts: tuple[int, int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """bool[Q] twice: only the first right, only the second, both, neither, as often as `counts` says."""
    kinds = np.random.default_rng(seed).permutation(np.repeat(np.arange(4), counts))
    return np.isin(kinds, (0, 2)), np.isin(kinds, (1, 2))
