"""How far a layout can be trusted: a plane cannot hold what lies in hundreds of dimensions.

Legend: N images, K neighbours.
"""

from __future__ import annotations

import numpy as np

TRUST_SAMPLE = 2000  # images whose order by distance is compared; all pairs of 10,000 take minutes
TRUST_NEIGHBOURS = 8


def layout_quality(
    x: np.ndarray, positions: np.ndarray, neighbours: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, float]:
    """What is kept of the features x float32[N,D] (rows of length one) at `positions` float32[N,2], where
    `neighbours` int32[N,K] are the nearest by x, and labels int64[N] -1 where there is none.

    Returns percentages: `trustworthiness` (Venna and Kaski 2001) of 8 neighbours in a sample;
    `neighbours_kept`, the share of the K neighbours that are among the K nearest positions; with labels
    `same_class` and `same_class_on_map`, the shares of the neighbours by features and by position that have
    the image's label. What so few images do not allow is left out.
    """
    from sklearn.manifold import trustworthiness
    from sklearn.neighbors import NearestNeighbors

    found: dict[str, float] = {}
    count, k = neighbours.shape
    sample = np.sort(np.random.default_rng(seed).permutation(count)[:TRUST_SAMPLE])
    if len(sample) > 2 * TRUST_NEIGHBOURS:
        trust = trustworthiness(x[sample], positions[sample], n_neighbors=TRUST_NEIGHBOURS)
        found["trustworthiness"] = 100 * float(trust)
    if k == 0:
        return found
    near = NearestNeighbors(n_neighbors=k).fit(positions).kneighbors(return_distance=False)
    kept = (neighbours[:, :, None] == near[:, None, :]).any(axis=2)
    found["neighbours_kept"] = 100 * float(kept.mean())
    known = labels >= 0
    if known.any() and len(np.unique(labels[known])) > 1:
        for name, rows in (("same_class", neighbours), ("same_class_on_map", near)):
            found[name] = 100 * float((labels[rows] == labels[:, None])[known].mean())
    return found


def typicality(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float32[N]: the mean cosine of each row of x (of length one) and the others of its label, or all others
    for a label of -1; NaN where there is no other."""
    typical = np.full(len(x), np.nan, np.float32)
    unlabelled = np.flatnonzero(labels < 0)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    for rows, others in [(unlabelled, np.arange(len(x))), *((group, group) for group in groups)]:
        if len(others) < 2 or not len(rows):
            continue
        members, total = x[rows].astype(np.float64), x[others].sum(axis=0, dtype=np.float64)
        cosines = members @ total - (members**2).sum(axis=1)
        typical[rows] = cosines / (len(others) - 1)
    return typical
