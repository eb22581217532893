"""A queue of embeddings of earlier batches, the negatives of MoCo (arXiv 1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.methods.parts.precision import l2_normalize


class KeyQueue(nn.Module):
    """The last unit vectors [length,d] that were pushed; random ones fill it at the start.

    `rows` and `start`, the row of the oldest one, are buffers, and the same on every rank.
    """

    rows: Tensor
    start: Tensor

    def __init__(self, length: int, dim: int):
        super().__init__()
        self.register_buffer("rows", random_keys(length, dim))
        self.register_buffer("start", torch.zeros((), dtype=torch.int64))

    def push(self, keys: Tensor) -> None:
        """Replaces the oldest rows by keys[n,d], the same on every rank."""
        replace_oldest(self.rows, self.start, keys)


def random_keys(length: int, dim: int) -> Tensor:
    """Unit vectors [length,d] in random directions."""
    return l2_normalize(torch.randn(length, dim))


@torch.no_grad()
def replace_oldest(queue: Tensor, start: Tensor, keys: Tensor) -> None:
    """Writes keys[n,d] over the oldest rows of queue[length,d], from row `start` on, and moves `start`. Of
    more keys than the queue has rows, it takes the last."""
    keys = keys[-len(queue) :]
    rows = (start + torch.arange(len(keys), device=keys.device)) % len(queue)
    queue[rows] = keys.to(queue.dtype)
    start.add_(len(keys)).remainder_(len(queue))
