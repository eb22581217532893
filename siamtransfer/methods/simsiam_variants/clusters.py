"""Clusters of images, computed during the run, so that similar images can serve as views of each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.methods.base import StepInfo
from siamtransfer.methods.parts.precision import l2_normalize
from siamtransfer.utils.checks import above, at_least, changed, within
from siamtransfer.utils.errors import UserError

NONE = -1
"""The cluster of an image that has none yet."""


@dataclass
class ClusterConfig:
    """Targets from other images of the same cluster (ours)."""

    fraction: float = 0.0
    """Probability ρ that an image's target is replaced by that of another one of its cluster in the batch; 0
    is SimSiam."""
    kind: Literal["k-means", "dbscan"] = "k-means"
    """k-means, which gives every image a cluster; or DBSCAN (Ester et al. 1996), which finds the number of
    clusters and leaves images in sparse places without one, so that they keep their own targets."""
    count: int = 100
    """Number of clusters of k-means."""
    neighbours: int = 4
    """Of DBSCAN: an image is in a dense place where so many others are within its radius."""
    dense: float = 0.3
    """Of DBSCAN: the fraction of images that are in dense places. The radius is this quantile of the images'
    distances to their neighbour of the number `neighbours`, computed anew in every round."""
    every: int = 1
    """Epochs between two rounds of clustering, over the features that the images had when last seen. The
    first round is after so many epochs; until then nothing is replaced. It keeps images x D numbers."""

    def check(self) -> None:
        within("simsiam_variants.clusters.fraction", self.fraction, 0, 1)
        at_least("simsiam_variants.clusters.count", self.count, 2)
        at_least("simsiam_variants.clusters.neighbours", self.neighbours, 1)
        above("simsiam_variants.clusters.dense", self.dense, 0)
        within("simsiam_variants.clusters.dense", self.dense, 0, 1)
        at_least("simsiam_variants.clusters.every", self.every, 1)
        owners = {"count": "k-means", "neighbours": "dbscan", "dense": "dbscan"}
        for name in changed(self, *owners):
            kind = owners[name]
            if self.kind != kind:
                raise UserError(
                    f"simsiam_variants.clusters.{name} belongs to {kind}, and simsiam_variants.clusters.kind "
                    f"is {self.kind}: set that to {kind}, or leave {name} out"
                )
        for name in () if self.fraction else changed(self, "kind", *owners, "every"):
            raise UserError(
                f"simsiam_variants.clusters.{name} {getattr(self, name)} changes nothing while "
                f"simsiam_variants.clusters.fraction is 0: raise that, or leave {name} out"
            )


class PseudoLabels(nn.Module):
    """Replaces targets by those of other images in the same cluster; keeps every image's features of unit
    length and its cluster in buffers.

    `agreement` is the normalised mutual information between the last two rounds, over the images that have a
    cluster in both; 0 before.
    """

    features: Tensor
    cluster: Tensor
    agreement: Tensor

    def __init__(self, images: int, width: int, config: ClusterConfig):
        super().__init__()
        self.config = config
        self.register_buffer("features", torch.zeros(images, width))
        self.register_buffer("cluster", torch.full((images,), NONE))
        self.register_buffer("agreement", torch.zeros(()))

    def before_forward(self, info: StepInfo) -> None:
        """Computes new clusters at the start of every `config.every`-th epoch."""
        epochs, within_epoch = divmod(info.step, info.steps_per_epoch)
        if epochs and not within_epoch and epochs % self.config.every == 0:
            self.fit(seed=epochs)

    @torch.no_grad()
    def fit(self, seed: int) -> None:
        """Clusters the images seen so far, on rank 0; every rank gets the result."""
        from sklearn.metrics import normalized_mutual_info_score

        seen = self.features.any(dim=1)
        cluster = torch.full_like(self.cluster, NONE)
        if collectives.rank() == 0:
            rows = self.features[seen].cpu().numpy()
            if self.config.kind == "dbscan":
                labels = dense_clusters(rows, self.config.neighbours, self.config.dense)
            else:
                labels = equal_clusters(rows, self.config.count, seed)
            cluster[seen] = torch.from_numpy(labels).to(cluster)
        cluster = collectives.broadcast(cluster)
        both = (cluster != NONE) & (self.cluster != NONE)
        if both.any():
            score = normalized_mutual_info_score(self.cluster[both].cpu(), cluster[both].cpu())
            self.agreement.fill_(score)
        self.cluster.copy_(cluster)

    @torch.no_grad()
    def numbers(self) -> dict[str, Tensor]:
        """`cluster_agreement`; of DBSCAN also `cluster_count` and `cluster_none`, the fraction of all images
        that have no cluster."""
        numbers = {"cluster_agreement": self.agreement}
        if self.config.kind == "dbscan":
            numbers["cluster_count"] = self.cluster.max() + 1
            numbers["cluster_none"] = (self.cluster == NONE).float().mean()
        return numbers

    @torch.no_grad()
    def partners(self, index: Tensor) -> Tensor:
        """int64[N]: for each row of this rank, the row of the global batch whose target it gets. With
        probability ρ that is another row of its cluster, drawn uniformly; else it is the row itself."""
        rows = collectives.all_gather(index)
        own = collectives.local_rows(len(index), index.device)
        chance, position = collectives.broadcast(torch.rand(2, len(rows), device=index.device))[:, own]
        label, labels = self.cluster[index], self.cluster[rows]
        alike = (label[:, None] == labels) & (label != NONE)[:, None]
        alike[torch.arange(len(own), device=own.device), own] = False
        candidates = alike.sum(dim=1)
        ordinal = (position * candidates).long() + 1  # of the drawn row among the row's candidates, from 1
        drawn = ((alike.cumsum(dim=1) == ordinal[:, None]) & alike).int().argmax(dim=1)
        return torch.where((chance < self.config.fraction) & (candidates > 0), drawn, own)

    def forward(self, targets: list[Tensor], h: Tensor, index: Tensor) -> list[Tensor]:
        """Each view's targets[N,d], some replaced by those of other images in the same view; h[N,D] are the
        features to keep."""
        with torch.no_grad():
            self.features[collectives.all_gather(index)] = collectives.all_gather(l2_normalize(h)).to(
                self.features.dtype
            )
        own, chosen = collectives.local_rows(len(index), index.device), self.partners(index)
        replaced = (chosen != own)[:, None]
        return [torch.where(replaced, collectives.all_gather(t)[chosen], t) for t in targets]


def equal_clusters(rows: npt.NDArray[np.floating], count: int, seed: int) -> npt.NDArray[np.integer]:
    """The cluster of each row by k-means with at most `count` clusters."""
    from sklearn.cluster import KMeans

    return KMeans(min(count, len(rows)), n_init=1, random_state=seed % 2**32).fit_predict(rows)


def dense_clusters(rows: npt.NDArray[np.floating], neighbours: int, dense: float) -> npt.NDArray[np.integer]:
    """The cluster of each row by DBSCAN, NONE for rows that no dense one reaches.

    A row is dense where at least `neighbours` others are within the radius. With r_i the distance of row i to
    its neighbour of that number, the radius is the `dense` quantile of all r_i, so that this fraction of rows
    is dense. Fewer rows than a dense one needs have no cluster.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    if len(rows) <= neighbours:
        return np.full(len(rows), NONE)
    distances, _ = NearestNeighbors(n_neighbors=neighbours).fit(rows).kneighbors()  # without the row itself
    radius = float(np.quantile(distances[:, -1], dense))
    # scikit-learn refuses a radius of 0, which collapsed features have.
    return DBSCAN(eps=max(radius, 1e-12), min_samples=neighbours + 1).fit_predict(rows)
