"""Features to positions on a plane: principal components, then t-SNE (van der Maaten and Hinton 2008).

Legend: N images, D features; x[N,D] has rows of length one, so that near means what it means for neighbours.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass

import numpy as np

from siamtransfer.image_map.config import LayoutMethod

COMPONENTS = 50  # that t-SNE works on, as its authors do
STEPS = 500  # of t-SNE: 10,000 images were as trustworthy as after 750, in 0.6 of the time
FEWEST = 8  # images for which t-SNE has neighbours to keep; fewer are laid out by their components
THREADS = 2  # of t-SNE: sums of two threads do not depend on their order, so that positions repeat


@dataclass(frozen=True)
class LayoutSettings:
    """How a layout is made.

    Attributes:
        method: `tsne` or `pca`.
        perplexity: of t-SNE, before few images make it less.
        seed: of PCA's and t-SNE's random numbers.
    """

    method: LayoutMethod
    perplexity: float
    seed: int

    def of(self, images: int) -> LayoutSettings:
        """The settings that so many images are laid out with."""
        if self.method == "pca" or images < FEWEST:
            return LayoutSettings("pca", 0.0, self.seed)
        return LayoutSettings("tsne", min(self.perplexity, (images - 1) / 3), self.seed)

    def as_dict(self) -> dict[str, object]:
        """For a record."""
        if self.method == "pca":
            return {"method": "pca", "seed": self.seed}
        return {**asdict(self), "components": COMPONENTS, "steps": STEPS, "start": "components"}


def lay_out(x: np.ndarray, settings: LayoutSettings) -> tuple[np.ndarray, float]:
    """Positions float32[N,2] from 0 to 1, of one scale in both directions, and the share of the variance of
    x float32[N,D] in the components that they are made of.

    The same features and settings give the same positions on the same machine.
    """
    settings = settings.of(len(x))
    components, share = principal_components(x, COMPONENTS if settings.method == "tsne" else 2, settings.seed)
    if settings.method == "pca":
        return fill_square(components), share
    from sklearn.manifold import TSNE

    # The start is scaled as scikit-learn scales its own; all copies of one image have no spread to scale by.
    start = components[:, :2]
    spread = float(start[:, 0].std())
    if spread == 0:
        return fill_square(start), share
    tsne = TSNE(
        init=(start / spread * 1e-4).astype(np.float32),
        perplexity=settings.perplexity,
        max_iter=STEPS,
        random_state=settings.seed,
        n_jobs=THREADS,
    )
    return fill_square(tsne.fit_transform(components)), share


def principal_components(x: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    """float32[N, count] of the centred x, with columns of zeros where there are not so many, and their share
    of the variance; 1 where there is no variance."""
    from sklearn.decomposition import PCA

    components = np.zeros((len(x), count), np.float32)
    taken = min(count, len(x) - 1, x.shape[1])
    if taken < 1 or not np.ptp(x, axis=0).any():
        return components, 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a ratio of components that have no variance
        pca = PCA(taken, random_state=seed)
        components[:, :taken] = pca.fit_transform(x)
    return components, min(1.0, float(pca.explained_variance_ratio_.sum()))


def fill_square(positions: np.ndarray) -> np.ndarray:
    """float32[N,2] moved and scaled, alike in both directions, to the middle of the square from 0 to 1."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    size = float((high - low).max())
    if size == 0:
        return np.full(positions.shape, 0.5, np.float32)
    scaled = 0.5 + (positions.astype(np.float64) - (low + high) / 2) / size
    return np.clip(scaled, 0, 1).astype(np.float32)
