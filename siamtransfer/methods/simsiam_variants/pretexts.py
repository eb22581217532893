"""Extra losses that ask about a changed copy of view 1: how its patches were moved, and its colours."""

from __future__ import annotations

from functools import cache
from itertools import chain, permutations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.distributed import collectives
from siamtransfer.methods.parts.precision import to_float32
from siamtransfer.methods.simsiam_variants.extra_losses import EncodedBatch, TermsConfig
from siamtransfer.utils.errors import UserError


@cache
def distant_permutations(places: int, count: int) -> npt.NDArray[np.int64]:
    """`count` permutations of so many places, [count, places], the identity first.

    Each next one has the largest least Hamming distance to those before it, of these the largest mean one,
    and of these it is the first in lexicographic order (the greedy choice of arXiv 1603.09246, from another
    start).
    """
    numbers = chain.from_iterable(permutations(range(places)))
    everyone = np.fromiter(numbers, dtype=np.int8).reshape(-1, places).T.copy()  # [places, places!]
    chosen = [0]
    least = np.full(everyone.shape[1], places, dtype=np.int32)
    total = np.zeros_like(least)
    while len(chosen) < count:
        last = everyone[:, chosen[-1]]
        distance = np.zeros_like(least)
        for place, value in zip(everyone, last, strict=True):
            distance += place != value
        np.minimum(least, distance, out=least)
        total += distance
        # The total is at most places x count, so the least distance decides first.
        chosen.append(int(np.argmax(least * np.int32(places * count + 1) + total)))
    return everyone[:, chosen].T.astype(np.int64)


def move_patches(x: Tensor, order: Tensor, grid: int) -> Tensor:
    """x[N,C,H,W] with the patches of each row moved: place k shows patch order[n, k], counted row by row.

    Where grid does not divide a side, the pixels that are left over at its end stay.
    """
    n, channels, height, width = x.shape
    h, w = height // grid, width // grid
    inner = x[:, :, : grid * h, : grid * w]
    patches = inner.reshape(n, channels, grid, h, grid, w).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = patches[torch.arange(n, device=x.device)[:, None], order]
    result = x.clone()
    result[:, :, : grid * h, : grid * w] = (
        moved.unflatten(1, (grid, grid)).permute(0, 3, 1, 4, 2, 5).reshape(inner.shape)
    )
    return result


class JigsawLoss(nn.Module):
    """The cross-entropy of the permutation that moved the patches of view 1, drawn uniformly for each row
    from a fixed set. The moved patches go through the backbone as one picture of the view's size."""

    orders: Tensor

    def __init__(self, width: int, config: TermsConfig):
        super().__init__()
        self.grid = config.jigsaw_grid
        orders = distant_permutations(self.grid**2, config.jigsaw_permutations)
        self.register_buffer("orders", torch.from_numpy(orders), persistent=False)
        self.classifier = nn.Linear(width, len(orders))

    def forward(self, batch: EncodedBatch) -> Tensor:
        x = batch.views[0]
        rows = collectives.world_size() * len(x)
        drawn = collectives.broadcast(torch.randint(len(self.orders), (rows,), device=x.device))
        answer = drawn[collectives.local_rows(len(x), x.device)]
        puzzles = move_patches(x, self.orders[answer], self.grid)
        return F.cross_entropy(to_float32(self.classifier(batch.backbone(puzzles))), answer)


class ColourLoss(nn.Module):
    """The mean squared error of the colours that a linear layer of features finds in a grey copy of view 1.

    With a view's normalised channels r, g, b its grey is y = (r + g + b) / 3, which all three channels of the
    copy show, and its colour is (r - y, b - y). What is predicted is the mean colour of each of grid x grid
    equal cells, in units of the channels' standard deviations over the data.
    """

    def __init__(self, backbone: Backbone, config: TermsConfig):
        super().__init__()
        channels = getattr(backbone, "in_channels", 3)
        if channels != 3:
            raise UserError(
                f"simsiam_variants.terms.colour needs the three channels of colours, and these images have "
                f"{channels}: leave it out"
            )
        self.grid = config.colour_grid
        self.regressor = nn.Linear(backbone.dim, 2 * self.grid**2)

    def forward(self, batch: EncodedBatch) -> Tensor:
        grey, colours = self.split(batch.views[0])
        return F.mse_loss(to_float32(self.regressor(batch.backbone(grey))), to_float32(colours))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The grey copy of x[N,3,S,S], and the colours of its cells [N, 2 grid²]."""
        grey = x.mean(dim=1, keepdim=True)
        colours = F.adaptive_avg_pool2d((x - grey)[:, [0, 2]], self.grid)
        return grey.expand_as(x).contiguous(memory_format=torch.channels_last), colours.flatten(1)
