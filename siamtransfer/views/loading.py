"""The processes that decode and cut while the device trains."""

from __future__ import annotations

import signal

import torch
from torch.utils.data import DataLoader, Sampler

from siamtransfer.views.dataset import Ticket, ViewBatch, ViewSet, keep


def build_loader(
    views: ViewSet, sampler: Sampler[list[Ticket]], *, workers: int, pin_memory: bool
) -> DataLoader[ViewBatch]:
    """Batches of `views` in the sampler's order, made by `workers` processes (0: by this one)."""
    return DataLoader(
        views,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=keep,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_quiet_worker,
    )


def _quiet_worker(_: int) -> None:
    """Ctrl-C and SIGTERM reach the whole process group; the main process decides when workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
