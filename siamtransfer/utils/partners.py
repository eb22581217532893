"""Which image a batch's rows are mixed with: the rows of a batch in pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def partners(count: int, device: torch.device | str = "cpu") -> Tensor:
    """int64[count], the partner of each row: rows 2k and 2k + 1 are each other's, and the last of an odd
    number is its own.

    The order of a batch is random, so neighbours are a random pair. Rows that are split in even parts, over
    ranks or micro-batches, keep their partners.
    """
    return (torch.arange(count, device=device) ^ 1).clamp_(max=max(count - 1, 0))
