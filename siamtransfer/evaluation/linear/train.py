"""Training linear heads on a frozen backbone, epoch by epoch, from images or from kept features.

Legend: N samples of a batch, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.augmented_images import AugmentedImages
from siamtransfer.evaluation.linear.classifier_bank import Heads
from siamtransfer.training.epoch_checkpoint import EpochFile
from siamtransfer.training.progress import StepProgress, Stopwatch
from siamtransfer.utils.errors import UserError
from siamtransfer.views.sampler import epoch_order

OFTEN = 100  # steps between looks at the losses within a long epoch

Select = Callable[[Tensor, str], Tensor]
"""(h[N, D] of all layers, the name of a selection) -> its features."""


class Source(Protocol):
    """Batches of features with labels."""

    @property
    def batch(self) -> int:
        """How many samples an update sees, over all ranks."""

    @property
    def samples(self) -> int:
        """How many an epoch has."""

    def batches(self, start: int, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        """h[n, D] and labels int64[n] of this rank's share of every batch from epoch `start` to `epochs`."""


@dataclass
class KeptFeatures:
    """Features[N, D] that were extracted before; each rank takes its share of a batch, in the epoch's
    order."""

    features: Tensor
    labels: Tensor
    batch: int
    runtime: Runtime
    seed: int = 0

    @property
    def samples(self) -> int:
        return len(self.features)

    def batches(self, start: int, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        runtime = self.runtime
        for epoch in range(start, epochs):
            order = torch.from_numpy(epoch_order(self.samples, self.seed, epoch))
            for block in order.split(self.batch):
                mine = block[
                    runtime.rank * len(block) // runtime.world_size : (runtime.rank + 1)
                    * len(block)
                    // runtime.world_size
                ]
                yield self.features[mine].to(runtime.device), self.labels[mine].to(runtime.device)


@dataclass
class AugmentedFeatures:
    """Features of crops and flips, made by a frozen backbone in eval mode, `together` images at once."""

    backbone: nn.Module
    images: AugmentedImages
    together: int

    @property
    def batch(self) -> int:
        return self.images.batch

    @property
    def samples(self) -> int:
        return len(self.images.indices)

    def batches(self, start: int, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.backbone.eval()
        for x, y in self.images.batches(start, epochs):
            with torch.no_grad(), self.images.runtime.autocast():
                parts = [self.backbone(part).float() for part in x.split(self.together)]
            yield torch.cat(parts), y


def train_heads(
    heads: dict[str, Heads],
    source: Source,
    select: Select,
    decay: Callable[[int, float], float],
    epochs: int,
    runtime: Runtime,
    *,
    after_epoch: Callable[[int], dict[str, Any]] = lambda epoch: {},
    file: EpochFile | None = None,
    resume: bool = False,
) -> list[dict[str, Any]]:
    """Trains every bank of `heads`, by its selection of layers, and returns what `after_epoch` noted.

    `decay(epoch, done)` is the share of the initial rates in `epoch` (from 0), at the share `done` of all
    steps. Gradients are those of the mean over the whole batch, whatever the number of ranks.

    Raises:
        UserError: a loss is not finite under every head, which only features can be guilty of.
    """
    state = file.read(wanted=resume) if file else None
    notes: list[dict[str, Any]] = state["notes"] if state else []
    for name, bank in heads.items():
        if state:
            bank.load_state_dict(state["heads"][name])
    start = len(notes)
    per_epoch = -(-source.samples // source.batch)
    steps = epochs * per_epoch
    clock, progress = (
        Stopwatch(),
        StepProgress(steps, start * per_epoch, max(per_epoch, OFTEN), shown=runtime.is_main),
    )
    for number, (h, y) in enumerate(clock.watch(source.batches(start, epochs)), start * per_epoch):
        epoch, within = divmod(number, per_epoch)
        together = min(source.batch, source.samples - within * source.batch)
        losses = []
        for name, bank in heads.items():
            loss, weight, bias = bank.gradients(select(h, name), y, together)
            bank.update(
                collectives.all_reduce(weight), collectives.all_reduce(bias), decay(epoch, number / steps)
            )
            losses.append(collectives.all_reduce(loss))
        clock.images += together
        if (number + 1) % per_epoch and (number + 1) % OFTEN:
            continue
        best = float(torch.cat(losses).nan_to_num(nan=torch.inf).min())
        if not np.isfinite(best):
            raise UserError(
                f"the loss of every head is not finite in epoch {epoch + 1}: lower the learning rate"
            )
        speed, _ = clock.lap()
        text = f"epoch {(number + 1) / per_epoch:.1f}/{epochs} · best loss {best:.4f} · {speed:.0f} images/s"
        progress.update(number + 1, text)
        if (number + 1) % per_epoch == 0:
            notes.append(after_epoch(epoch))
            if file and runtime.is_main:
                file.write(
                    {"notes": notes, "heads": {name: bank.state_dict() for name, bank in heads.items()}}
                )
            clock.lap()
    progress.close()
    return notes
