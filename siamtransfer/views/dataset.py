"""From tickets to views: the data set that workers run, the batch they hand over, and its painting.

A worker decodes an image once, cuts all its views in 8 bits and passes the drawn numbers along; the process
that trains paints them on its device.

Legend: B samples in a batch, V views a sample, P numbers a view (`draw.Column`), S_v the side of view v.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from siamtransfer.views.augment import paint
from siamtransfer.views.crop import cut
from siamtransfer.views.random_params import COLUMNS, draw
from siamtransfer.views.recipes import Recipe

Ticket = tuple[int, int]
"""(epoch, image index)."""

Failure = tuple[str, str]
"""(where, why) of an image that could not be read."""

Read = Callable[[int], tuple[np.ndarray, list[Failure]]]
"""Image index to uint8[H,W,3] and the failures met on the way, when another image had to stand in."""

DECODED_AT_ONCE = 8  # images held decoded, so that large photographs do not fill a worker's memory


@dataclass(frozen=True)
class ViewBatch:
    """The cut but unpainted views of B samples.

    Attributes:
        crops: for each view, uint8[B,3,S_v,S_v].
        numbers: float32[B,V,P], what the painting needs; it plans on the CPU, so these never move.
        index: int64[B], the image that each ticket asked for, whichever stood in.
        unreadable: the failures in the order of the tickets; empty as a rule.
    """

    crops: list[Tensor]
    numbers: np.ndarray
    index: Tensor
    unreadable: list[Failure]

    def __len__(self) -> int:
        return len(self.index)

    def pin_memory(self) -> ViewBatch:
        """The same batch with crops from which a GPU can copy by itself; DataLoader calls this."""
        return replace(self, crops=[crops.pin_memory() for crops in self.crops])


class ViewSet(Dataset[ViewBatch]):
    """Views of `length` images by `recipe`; what a ticket yields depends on the ticket and `seed` alone.

    For a DataLoader with a batch sampler of tickets and `collate_fn=keep`: its fetcher calls `__getitems__`
    with all tickets of a batch.
    """

    def __init__(self, read: Read, recipe: Recipe, seed: int, length: int):
        self.read, self.recipe, self.seed, self.length = read, recipe, seed, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, ticket: Ticket) -> ViewBatch:
        return self.__getitems__([ticket])

    def __getitems__(self, tickets: Sequence[Ticket]) -> ViewBatch:
        views = self.recipe.views
        crops = [torch.empty(len(tickets), 3, view.size, view.size, dtype=torch.uint8) for view in views]
        epochs, indices = np.array(tickets, np.int64).reshape(-1, 2).T
        numbers, unreadable = [], []
        for start in range(0, len(tickets), DECODED_AT_ONCE):
            few = slice(start, start + DECODED_AT_ONCE)
            images = []
            for index in indices[few].tolist():
                image, failures = self.read(index)
                images.append(image)
                unreadable += failures
            sizes = np.array([image.shape[:2] for image in images])
            draws = draw(self.recipe, self.seed, epochs[few], indices[few], sizes)
            numbers.append(draws.paint)
            for n, image in enumerate(images):
                for v, view in enumerate(views):
                    out = crops[v][start + n]
                    cut(image, draws.box[n, v], view.size, view.interpolation, draws.flip[n, v], out)
        none = np.empty((0, len(views), COLUMNS), np.float32)  # a rank's share of a small batch may be empty
        return ViewBatch(
            crops, np.concatenate([none, *numbers]), torch.from_numpy(indices.copy()), unreadable
        )


def keep(batch: Any) -> Any:
    """The collate function of a DataLoader over a ViewSet, which makes whole batches itself."""
    return batch


def paint_batch(
    batch: ViewBatch,
    recipe: Recipe,
    device: torch.device | str = "cpu",
    *,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> list[Tensor]:
    """Moves a batch to `device` and paints it: for each view, `dtype`[B,3,S_v,S_v], normalised.

    Views of one size are painted together.
    """
    painted: dict[int, Tensor] = {}
    sizes = [view.size for view in recipe.views]
    for size in dict.fromkeys(sizes):
        members = [v for v, other in enumerate(sizes) if other == size]
        crops = torch.cat([batch.crops[v].to(device, non_blocking=True) for v in members])
        numbers = np.concatenate([batch.numbers[:, v] for v in members])
        together = paint(crops, numbers, recipe.mean, recipe.std, dtype=dtype, channels_last=channels_last)
        painted |= dict(zip(members, together.split(len(batch)), strict=True))
    return [painted[v] for v in range(len(sizes))]
