"""The processes that decode and crop while the device trains."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch.utils.data import DataLoader, Sampler

from siamtransfer.utils.workers import worker_init
from siamtransfer.views.dataset import ViewBatch, ViewSet, identity_collate
from siamtransfer.views.sampler import SampleKey
from siamtransfer.views.shared_memory import PREFETCH


def build_loader(
    views: ViewSet,
    sampler: Iterable[list[SampleKey]],
    *,
    workers: int,
    pin_memory: bool,
    prefetch: int = PREFETCH,
) -> DataLoader[ViewBatch]:
    """Batches of `views` in the sampler's order, made by `workers` processes (0: by this one).

    The processes live as long as one pass over the loader, which in pretraining is the whole run. Each has
    `prefetch` batches ready or in hand.
    """
    return DataLoader(
        views,
        batch_sampler=cast(Sampler[list[SampleKey]], sampler),  # torch takes any iterable of batches
        num_workers=workers,
        collate_fn=identity_collate,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=worker_init() if workers else None,
    )
