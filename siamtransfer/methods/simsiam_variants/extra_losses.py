"""Extra losses beside SimSiam's, each with a weight: labels of a few images, rotations, a weak contrast.
Puzzles and colours are in pretexts.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.data.subset import draw_by_class
from siamtransfer.distributed import collectives
from siamtransfer.methods.parts.precision import l2_normalize, no_tf32, to_float32
from siamtransfer.utils.checks import above, at_least, changed, within
from siamtransfer.utils.errors import UserError

UNLABELLED = -1
MOST_PERMUTATIONS = 1000
"""Of a puzzle of 3 x 3 patches; as many as arXiv 1603.09246 tries."""


@dataclass
class TermsConfig:
    """Extra losses (ours); a weight of 0 leaves one out."""

    labels: float = 0.0
    """Weight of semi-supervised learning: the cross-entropy of a linear classifier of features, over those
    images of the batch that carry labels."""
    labelled_fraction: float = 0.1
    """Fraction of every class that carries labels, always the same images; at least one of each."""
    labels_reach_backbone: bool = True
    """False keeps the classifier's gradient out of the backbone: then it is an online probe."""
    rotation: float = 0.0
    """Weight of predicting by how many quarter turns view 1 was rotated (Gidaris et al., arXiv
    1803.07728)."""
    jigsaw: float = 0.0
    """Weight of telling by which permutation the patches of view 1 were moved (Noroozi and Favaro, arXiv
    1603.09246; the moved patches are one picture, as in Carlucci et al., arXiv 1903.06864)."""
    jigsaw_grid: Literal[2, 3] = 2
    """Patches along a side of the puzzle."""
    jigsaw_permutations: int = 24
    """Number of permutations, which are the classes: at most all 24 of a grid of 2. They are chosen to differ
    from one another in as many places as they can."""
    colour: float = 0.0
    """Weight of predicting the colours of view 1 from a grey copy of it (colourisation, after Zhang et al.,
    arXiv 1603.08511): squared errors of the mean colour in each cell of a grid. Views lose colour at random,
    as their recipe says, and those of grey sets have none to learn from."""
    colour_grid: int = 4
    """Cells along a side of the grid of colours."""
    contrast: float = 0.0
    """Weight β of a weak contrast: the mean of max(0, cos(p, z') - margin) over targets z' of other images
    that are neither the most nor the least similar."""
    contrast_margin: float = 0.3
    """Cosine between a prediction and another image's target below which the loss is 0."""
    contrast_band: list[float] = field(default_factory=lambda: [0.25, 0.75])
    """Quantiles of an image's similarities to the others; the contrast takes the images between them."""
    lr_scale: float = 1.0
    """Learning rate of the extra losses' classifiers in units of the encoder's."""

    def check(self) -> None:
        for name in ("labels", "rotation", "jigsaw", "colour", "contrast"):
            at_least(f"simsiam_variants.terms.{name}", getattr(self, name), 0)
        most = math.factorial(self.jigsaw_grid**2) if self.jigsaw_grid == 2 else MOST_PERMUTATIONS
        within("simsiam_variants.terms.jigsaw_permutations", self.jigsaw_permutations, 2, most)
        at_least("simsiam_variants.terms.colour_grid", self.colour_grid, 1)
        above("simsiam_variants.terms.labelled_fraction", self.labelled_fraction, 0)
        within("simsiam_variants.terms.labelled_fraction", self.labelled_fraction, 0, 1)
        within("simsiam_variants.terms.contrast_margin", self.contrast_margin, -1, 1)
        at_least("simsiam_variants.terms.lr_scale", self.lr_scale, 0)
        band = self.contrast_band
        if not (len(band) == 2 and 0 <= band[0] < band[1] <= 1):
            raise UserError(
                f"simsiam_variants.terms.contrast_band is {band}, but must be two rising numbers from 0 to "
                "1, as [0.25, 0.75]"
            )
        self._refuse_idle()

    def _refuse_idle(self) -> None:
        """Refuses options of a loss that has no weight."""
        of_loss = {
            "labelled_fraction": "labels",
            "labels_reach_backbone": "labels",
            "jigsaw_grid": "jigsaw",
            "jigsaw_permutations": "jigsaw",
            "colour_grid": "colour",
            "contrast_margin": "contrast",
            "contrast_band": "contrast",
        }
        for name in changed(self, *of_loss):
            if not getattr(self, of_loss[name]):
                raise UserError(
                    f"simsiam_variants.terms.{name} changes nothing while simsiam_variants.terms."
                    f"{of_loss[name]} is 0: give that a weight, or leave {name} out"
                )
        trained = ("labels", "rotation", "jigsaw", "colour")
        if changed(self, "lr_scale") and not any(getattr(self, name) for name in trained):
            raise UserError(
                "simsiam_variants.terms.lr_scale changes nothing without an extra loss that trains a "
                f"classifier: give one of {', '.join(trained)} a weight, or leave lr_scale out"
            )


@dataclass
class EncodedBatch:
    """The tensors of a batch that extra losses read.

    Attributes:
        backbone: the network that computed the features.
        views: images [N,3,S,S] of every view.
        features: h[N,D] of every view.
        predictions: p[N,d] of every view.
        targets: t[N,d] of every global view.
        index: int64[N], the number of each row's image; None where no option needs it.
    """

    backbone: nn.Module
    views: list[Tensor]
    features: list[Tensor]
    predictions: list[Tensor]
    targets: list[Tensor]
    index: Tensor | None


class LabelLoss(nn.Module):
    """The cross-entropy of a linear classifier of features over the labelled rows of all ranks and views."""

    table: Tensor

    def __init__(self, width: int, labels: Tensor | None, config: TermsConfig):
        super().__init__()
        if labels is None:
            raise UserError(
                "simsiam_variants.terms.labels learns from labels, and these images have none: choose a set "
                "with labels, or set it to 0"
            )
        self.config = config
        self.classifier = nn.Linear(width, int(labels.max()) + 1)
        table = torch.full_like(labels, UNLABELLED)
        known = torch.from_numpy(draw_by_class(labels.numpy(), config.labelled_fraction, seed=0))
        table[known] = labels[known]
        self.register_buffer("table", table)

    def forward(self, batch: EncodedBatch) -> Tensor:
        assert batch.index is not None
        label = self.table[batch.index]
        known = label != UNLABELLED
        losses = []
        for h in batch.features:
            h = h[known] if self.config.labels_reach_backbone else h[known].detach()
            losses.append(F.cross_entropy(to_float32(self.classifier(h)), label[known], reduction="sum"))
        # Gradients are averaged over ranks, so the count is, too.
        count = collectives.all_reduce(known.sum()).clamp(min=1) / collectives.world_size()
        return torch.stack(losses).mean() / count


class RotationLoss(nn.Module):
    """The cross-entropy of the four quarter turns of view 1; row i of the batch is turned i times."""

    def __init__(self, width: int):
        super().__init__()
        self.classifier = nn.Linear(width, 4)

    def forward(self, batch: EncodedBatch) -> Tensor:
        x = batch.views[0]
        turns = collectives.local_rows(len(x), x.device) % 4
        rotated = x.clone()
        for k in (1, 2, 3):
            rotated[turns == k] = x[turns == k].rot90(k, dims=(2, 3))
        return F.cross_entropy(to_float32(self.classifier(batch.backbone(rotated))), turns)


class ContrastLoss(nn.Module):
    """mean_k max(0, cos(p_i, z_k) - margin) over other images k of all ranks whose cosine with target i lies
    between two quantiles of the cosines of target i with all others."""

    def __init__(self, config: TermsConfig):
        super().__init__()
        self.margin, self.band = config.contrast_margin, config.contrast_band

    def forward(self, batch: EncodedBatch) -> Tensor:
        views = zip(batch.predictions, reversed(batch.targets), strict=False)
        return torch.stack([self.excess(l2_normalize(p), l2_normalize(t.detach())) for p, t in views]).mean()

    def excess(self, p: Tensor, t: Tensor) -> Tensor:
        """The mean over this rank's p[N,d], with targets t[N,d] of the other view, both of unit length."""
        others = collectives.all_gather(t)
        own = collectives.local_rows(len(t), t.device)
        with no_tf32(p):
            alike, cosines = t @ others.T, p @ others.T
        alike[torch.arange(len(own), device=own.device), own] = torch.nan
        low, high = alike.nanquantile(alike.new_tensor(self.band), dim=1)[..., None]
        secondary = (alike >= low) & (alike <= high)  # without the row itself, which is NaN
        excess = (cosines - self.margin).relu()
        return ((excess * secondary).sum(dim=1) / secondary.sum(dim=1).clamp(min=1)).mean()
