"""The worker processes of Detectron2's loaders, begun as those of ours are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from siamtransfer.utils.workers import worker_init


def with_worker_init(loader: Any) -> Any:
    """`loader`, whose workers do what Detectron2 asks of them and then what `worker_init` does.

    Detectron2 puts a DataLoader into data sets that group its samples; each of them names it `dataset`.
    """
    inner = loader
    while not isinstance(inner, DataLoader):
        if not hasattr(inner, "dataset"):
            return loader  # without processes
        inner = inner.dataset
    inner.worker_init_fn = functools.partial(_begin, inner.worker_init_fn, worker_init())
    return loader


def _begin(first: Callable[[int], None] | None, second: Callable[[int], None], worker: int) -> None:
    if first is not None:
        first(worker)
    second(worker)
