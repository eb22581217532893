"""The processes that decode and crop while the device trains."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import cast

import torch
from torch.utils.data import DataLoader, Sampler

from siamtransfer.views.dataset import ViewBatch, ViewSet, identity_collate
from siamtransfer.views.sampler import SampleKey


def build_loader(
    views: ViewSet, sampler: Iterable[list[SampleKey]], *, workers: int, pin_memory: bool
) -> DataLoader[ViewBatch]:
    """Batches of `views` in the sampler's order, made by `workers` processes (0: by this one)."""
    return DataLoader(
        views,
        batch_sampler=cast(Sampler[list[SampleKey]], sampler),  # torch takes any iterable of batches
        num_workers=workers,
        collate_fn=identity_collate,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker,
    )


def _quiet_worker(_: int) -> None:
    """Ignores Ctrl-C and SIGTERM, which reach the whole process group: the main process ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
