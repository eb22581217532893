"""Training linear classifiers: batches of any step, losses that are not finite, and signals on two ranks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.small_runs import on_ranks
from torch import Tensor

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.linear.classifier_bank import ClassifierBank, ClassifierSetting
from siamtransfer.evaluation.linear.train import ClassifierSchedule, KeptFeatures, train_heads
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError

ALONE = Runtime(torch.device("cpu"), torch.float32)
SCHEDULE = ClassifierSchedule(2, lambda epoch, done: 1.0)


def features(runtime: Runtime = ALONE) -> KeptFeatures:
    """22 samples in batches of 5: five steps an epoch, the last of two samples."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(22, 6, generator=generator)
    return KeptFeatures(h, torch.arange(22) % 3, 5, runtime)


def bank(*lrs: float) -> ClassifierBank:
    return ClassifierBank([ClassifierSetting("sgd", lr) for lr in lrs], 6, 3)


def whole(h: Tensor, name: str) -> Tensor:
    return h


def test_batches_of_any_step_are_those_of_the_whole_training() -> None:
    kept = features()
    all_steps = list(kept.batches(0, 10))
    assert [len(y) for _, y in all_steps] == [5, 5, 5, 5, 2] * 2
    for epoch in (0, 5):
        labels = torch.cat([y for _, y in all_steps[epoch : epoch + 5]])
        assert torch.equal(labels.bincount(), kept.labels.bincount())
    for start in range(10):
        later = list(kept.batches(start, 10))
        assert len(later) == 10 - start
        assert all(torch.equal(a[0], b[0]) for a, b in zip(later, all_steps[start:], strict=True))


def test_a_classifier_may_overflow_while_another_has_a_finite_loss() -> None:
    classifiers = bank(3e38, 0.1)
    train_heads({"output": classifiers}, features(), whole, SCHEDULE, ALONE)
    assert not bool(classifiers.weight[0].isfinite().all())
    assert bool(classifiers.weight[1].isfinite().all())


def test_without_a_finite_loss_the_training_ends_before_the_update() -> None:
    kept = features()
    kept.features[7] = float("nan")
    classifiers = bank(0.1, 0.2)
    with pytest.raises(UserError, match=r"the loss is not finite at step \d .*look at the features"):
        train_heads({"output": classifiers}, kept, whole, SCHEDULE, ALONE)
    assert bool(classifiers.weight.isfinite().all())


class Signalled(KeptFeatures):
    """Rank 1 gets SIGTERM when its batch of step 3 is made."""

    def batches(self, start: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(super().batches(start, steps), start):
            if step == 3 and self.runtime.rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def trained(runtime: Runtime, folder: Path, stop: bool, resume: bool) -> tuple[int | None, Tensor]:
    """The exit status and the weights."""
    kept = features(runtime)
    source = Signalled(kept.features, kept.labels, 5, runtime) if stop else kept
    classifiers = bank(0.1)
    saved = SavedTraining(folder / "probe.pth", {"of": "two ranks"}, resume=resume)
    try:
        train_heads({"output": classifiers}, source, whole, SCHEDULE, runtime, saved=saved)
    except SystemExit as ended:
        return ended.code, classifiers.weight  # type: ignore[return-value]
    return None, classifiers.weight


def test_a_signal_to_one_rank_stops_both_after_the_same_step_and_both_go_on(tmp_path: Path) -> None:
    undisturbed = on_ranks(trained, tmp_path / "undisturbed", False, False)
    stopped = on_ranks(trained, tmp_path / "stopped", True, False)
    assert [status for status, _ in stopped] == [143, 143]
    assert torch.load(tmp_path / "stopped" / "probe.pth", weights_only=True)["step"] == 4
    resumed = on_ranks(trained, tmp_path / "stopped", False, True)
    for (status, weight), (_, expected) in zip(resumed, undisturbed, strict=True):
        assert status is None
        assert torch.equal(weight, expected)
