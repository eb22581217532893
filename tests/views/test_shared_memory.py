"""The shared memory of the loader: counted as the loader takes it, and bounded before workers start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

from siamtransfer.utils.errors import UserError
from siamtransfer.views import shared_memory
from siamtransfer.views.shared_memory import affordable_prefetch, loader_shared_memory

SIDES, BATCH, WORKERS = [224, 224], 64, 8
MEASURE = """
import os, shutil, time
from siamtransfer.data.imageset import ArrayImages
import numpy as np
from siamtransfer.views.dataset import ViewSet
from siamtransfer.views.loading import build_loader
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import StepSampler
images = ArrayImages("made", "train", np.zeros((64, 32, 32, 3), np.uint8))
views = ViewSet(lambda index: (images.image(index), []), recipe("simsiam", size=224), 0, 64)
before = shutil.disk_usage("/dev/shm").used
batches = iter(build_loader(views, StepSampler(64, 16, 40, seed=0), workers=2, pin_memory=False, prefetch=2))
most, held = 0, None
for number in range(3):
    held = next(batches)
    time.sleep(0.3)
    most = max(most, shutil.disk_usage("/dev/shm").used - before)
print(most)
del batches  # ends the workers, which are deaf to SIGTERM
"""


def test_the_count_is_what_imagenet_takes() -> None:
    assert loader_shared_memory(SIDES, BATCH, 0) == 0
    assert loader_shared_memory(SIDES, BATCH, WORKERS) == 64 * (2 * 3 * 224**2 + 8) * (8 * 4 + 2)
    assert loader_shared_memory(SIDES, BATCH, WORKERS) / 2**30 == pytest.approx(0.61, abs=0.01)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm")
def test_the_loader_takes_no_more_than_counted() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, cwd=ROOT, check=True, env=os.environ
    )
    counted = loader_shared_memory(SIDES, 16, 2, 2)
    assert counted / 4 < int(done.stdout) < counted * 1.05 + 2**25  # other processes use it, too


def with_free(monkeypatch: pytest.MonkeyPatch, free: float | None) -> None:
    size = None if free is None else int(free)
    monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: size)


def test_prefetch_is_lowered_with_a_remark(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need = [loader_shared_memory(SIDES, BATCH, WORKERS, n) for n in range(5)]
    for free, expected in ((None, 4), (need[4], 4), (need[4] - 1, 3), (need[1], 1)):
        with_free(monkeypatch, free)
        assert affordable_prefetch(SIDES, BATCH, WORKERS) == expected
    with_free(monkeypatch, need[4] * 2 - 1)
    assert affordable_prefetch(SIDES, BATCH, WORKERS, ranks=2) == 3
    with_free(monkeypatch, 2**26)
    assert affordable_prefetch(SIDES, BATCH, 0) == 4
    with pytest.raises(UserError, match=r"0.06 GiB free.*docker run --shm-size \dg, or fewer --data.workers"):
        affordable_prefetch(SIDES, BATCH, WORKERS)
