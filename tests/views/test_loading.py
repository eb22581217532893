"""The worker processes: same batches for any number of them, deaf to signals meant for the main one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import send

from siamtransfer.data import open_images
from siamtransfer.views.dataset import ViewBatch, ViewSet
from siamtransfer.views.loading import build_loader
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import StepSampler


class Reader:
    """Images of a folder; in a worker it first sends itself the signals that a terminal sends to all."""

    def __init__(self, root: Path):
        self.images, self.main = open_images("folder", root=root), os.getpid()

    def __call__(self, index: int) -> tuple[np.ndarray, list[Any]]:
        if os.getpid() != self.main:
            send(signal.SIGINT)
            send(signal.SIGTERM)
            assert torch.get_num_threads() == 1
        return self.images.image(index), []


def batches(root: Path, workers: int, *, start: int = 0) -> list[ViewBatch]:
    views = ViewSet(Reader(root), recipe("cifar-simsiam", size=16), 0, 40)
    sampler = StepSampler(40, 8, 8, seed=0, start=start)
    return list(build_loader(views, sampler, workers=workers, pin_memory=False))


def same(one: ViewBatch, other: ViewBatch) -> bool:
    crops = all(torch.equal(a, b) for a, b in zip(one.crops, other.crops, strict=True))
    return crops and np.array_equal(one.params, other.params) and torch.equal(one.index, other.index)


@pytest.mark.timeout(60)  # a worker that heeds the signal ends without a word, and the loader waits
@pytest.mark.parametrize(("workers", "start"), [(1, 0), (2, 0), (2, 3)])
def test_workers_make_the_batches_that_the_main_process_makes(
    workers: int, start: int, shapes_folder: Path
) -> None:
    alone = batches(shapes_folder, 0)[start:]
    shared = batches(shapes_folder, workers, start=start)
    assert len(shared) == 8 - start
    assert all(same(one, other) for one, other in zip(alone, shared, strict=True))
    assert not same(alone[0], alone[1])
