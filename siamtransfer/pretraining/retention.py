"""What an adaptation keeps of its start: kNN on a retention set, and how alike the features have stayed.

At each check the backbone that is evaluated is scored on the retention set, and its features of some fixed
images are compared by linear CKA with those of the network that the run started from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from siamtransfer.config import DataConfig, PretrainConfig
from siamtransfer.data.imageset import ImageSet, channels_of
from siamtransfer.data.pixel_form import OPTIONS as FORM_OPTIONS
from siamtransfer.data.pixel_form import RGB, VIEW_OPTIONS
from siamtransfer.data.registry import NAMED
from siamtransfer.data.sources import open_dataset
from siamtransfer.data.subset import Subset
from siamtransfer.data.unreadable import WrongChannels
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.features.extract import Pass, extract_share
from siamtransfer.features.readable import find_unreadable
from siamtransfer.metrics.cka import linear_cka
from siamtransfer.pretraining.knn_scorer import KnnScorer
from siamtransfer.pretraining.logger import Logger
from siamtransfer.pretraining.monitor import Monitor
from siamtransfer.pretraining.monitors import build_scorer
from siamtransfer.pretraining.run import RunFolder
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.utils.errors import UserError

DROP, CKA = "retention/drop", "retention/cka"


class RetentionMonitor(Monitor):
    """Scores the backbone on the retention set as often as kNN on the new images, after it, and raises the
    alarm.

    `between_chunks` is called in the pauses of a check, on all ranks, and may end the program.
    """

    takes_long = True

    def __init__(
        self,
        knn: KnnScorer,
        state: TrainState,
        schedule: Schedule,
        log: Logger,
        run: RunFolder,
        between_chunks: Callable[[], None] | None = None,
    ):
        self.knn, self.state, self.schedule, self.log, self.run = knn, state, schedule, log, run
        self.settings, self.every = state.config.adapt, state.config.monitor.knn_every
        self.between_chunks = between_chunks
        self.name = f"retention/{knn.name}"
        images = knn.test or knn.bank
        order = np.random.Generator(np.random.Philox(0)).permutation(len(images))
        compared = np.sort(order[: self.settings.cka_images])
        bad = find_unreadable(Subset(images, compared), knn.runtime, workers=knn.workers)
        compared = np.delete(compared, [image.index for image in bad])
        self.compared = Subset(images, compared)  # of which the kNN check names the unreadable ones
        protocol: dict[str, Any] = {f"retention_{key}": value for key, value in knn.protocol.items()}
        protocol["retention_cka_images"] = len(self.compared)
        protocol["retention_max_drop"] = self.settings.max_drop
        super().__init__((self.name, DROP, CKA), protocol)

    def measure_start(self) -> None:
        """The row of the network before the first step, which all later checks are compared with."""
        backbone = self.state.method.backbone.to(self.knn.runtime.device)
        scores = self.knn.score(backbone, between_chunks=self.between_chunks)
        self.state.forgetting.start = scores[self.knn.name]
        self.state.start_features = self._features(backbone)
        self.log.row(0, self._row(scores, self.state.start_features))
        self.log.say(f"kNN on the retention set at the start: {scores[self.knn.name]:.2f} % ({self.name})")

    def begin(self) -> dict[str, float]:
        """The check that is missing when a run was stopped between a step and its check. Where it was made,
        its verdict is repeated, for the state was saved before it."""
        step = self.state.step
        if not step or not self.schedule.ends_epochs(step, self.every):
            return {}
        row = collectives.broadcast_object(self._logged(step))
        if row is None:
            return self._score(step)
        self._judge(step, row)
        return {}

    def due(self, result: StepResult) -> bool:
        return not result.stopping and self.schedule.ends_epochs(result.step, self.every)

    def check(self, result: StepResult) -> dict[str, float]:
        """Raises UserError on an alarm where `adapt.on_forgetting` is stop."""
        return self._score(result.step)

    def _score(self, step: int) -> dict[str, float]:
        backbone = self.state.method.evaluated_backbone
        scores = self.knn.score(backbone, between_chunks=self.between_chunks)
        row = self._row(scores, self._features(backbone))
        likeness = f", CKA to the start {row[CKA]:.3f}" if CKA in row else ""
        self.log.say(
            f"kNN on the retention set after {step // self.schedule.steps_per_epoch} epochs: "
            f"{row[self.name]:.2f} % ({row[DROP]:+.2f} points lost{likeness})"
        )
        self.log.row(step, row)  # before a verdict that may end the run
        self._judge(step, row)
        return {}

    def _row(self, scores: dict[str, float], features: Tensor | None) -> dict[str, float]:
        row = {f"retention/{name}": value for name, value in scores.items()}
        row[DROP] = self.state.forgetting.drop(scores[self.knn.name])
        start = self.state.start_features
        if features is not None and start is not None and all(map(_differ, (start, features))):
            row[CKA] = linear_cka(start, features)
        return row

    def _logged(self, step: int) -> dict[str, float] | None:
        """The row of a check of this step that the journal holds."""
        return next((row for row in self.log.journal.rows_of(step) if self.name in row), None)

    def _judge(self, step: int, row: dict[str, float]) -> None:
        """Keeps the state of this check as the good one, or raises the alarm."""
        settings, watch = self.settings, self.state.forgetting
        if settings.max_drop is None:
            return
        text = watch.check(step, row[self.name], settings.max_drop)
        accuracy = self._accuracy_on_new(step) if settings.on_forgetting == "keep-best" else None
        if watch.deserves_keeping(accuracy):
            self.run.keep_good(step)
            watch.keep(step, accuracy)
        if text is None:
            return
        kept = (
            "no check before it was within the bound, so the network of the start is the good one"
            if watch.kept_step is None
            else f"the good state is {self.run.good} of step {watch.kept_step}"
        )
        if settings.on_forgetting == "stop":
            raise UserError(f"{text}; stopped as adapt.on_forgetting asks; {kept}")
        self.log.say(f"{text}; {kept}")

    def _accuracy_on_new(self, step: int) -> float:
        """kNN on the new images in the check of this step, which came before."""
        found = [
            value
            for row in self.log.journal.rows_of(step)
            for name, value in row.items()
            if name.startswith("knn/k=") and name.endswith("/top1")
        ]
        accuracy = collectives.broadcast_object(found[-1] if found else None)
        assert accuracy is not None, f"kNN on the new images was not measured at step {step}"
        return accuracy

    def _features(self, backbone: nn.Module) -> Tensor | None:
        """The features of the fixed images, float32[n, D] on the CPU, the same on every rank; None where
        there are none to compare."""
        if not len(self.compared):
            return None
        runtime = self.knn.runtime
        options = Pass(
            runtime,
            workers=self.knn.workers,
            between_batches=self.between_chunks,
            what="features to compare",
        )
        share = extract_share(backbone, self.compared, self.knn.transform, options)
        return collectives.all_gather_rows(share, len(self.compared), runtime.device)


def _differ(features: Tensor) -> bool:
    """Whether not all rows are equal, as those of a collapsed network are, of which CKA is not defined."""
    return bool((features != features[0]).any())


def watch_retention(
    config: PretrainConfig,
    state: TrainState,
    schedule: Schedule,
    log: Logger,
    runtime: Runtime,
    run: RunFolder,
    between_chunks: Callable[[], None] | None = None,
) -> list[Monitor]:
    """The monitor of `adapt.retention`, or none. The start of a new run is measured here, before the method
    is distributed.

    Raises:
        UserError: the retention set cannot be opened, has no labels, or is not like the new images.
    """
    if config.adapt.retention is None:
        return []
    if config.adapt.on_forgetting == "keep-best" and config.data.name == "flat":
        raise UserError(
            "adapt.on_forgetting keep-best chooses by kNN on the new images, and a flat folder has no "
            "labels: take stop, or give the new images in one folder a class by --data.name folder"
        )
    bank, test = _open_retention(config, state.recipe.channels)
    knn = build_scorer(config, state.recipe, runtime, state.method.backbone.dim, bank, test)
    monitor = RetentionMonitor(knn, state, schedule, log, run, between_chunks)
    if state.step == 0:
        monitor.measure_start()
    return [monitor]


def _open_retention(config: PretrainConfig, channels: int) -> tuple[ImageSet, ImageSet | None]:
    """The bank and the queries, read like the new images, which have so many channels; None for
    leave-one-out."""
    source, root = config.adapt.retention, config.adapt.retention_root
    assert source is not None
    if "/" in source and not Path(source).expanduser().exists():
        raise UserError(f"adapt.retention: there is no folder {source}")
    try:
        with collectives.rank_by_rank("opening the retention images", needed=False):
            bank, test = open_dataset(source, root, **_form_of(config.data, source, channels))
    except WrongChannels as error:
        raise UserError(
            f"adapt.retention {source} has to have images of {channels} channels like the new ones, and has "
            f"others: {error}"
        ) from error
    except UserError as error:
        raise UserError(
            f"adapt.retention {source}: {error}; the folder of a set by name is given by "
            "--adapt.retention-root"
        ) from error
    if channels_of(bank) != channels:
        raise UserError(
            f"adapt.retention {source} has images of {channels_of(bank)} channels, and the new images have "
            f"{channels}: give retention images of the same kind"
        )
    if bank.labels is None:
        raise UserError(
            f"adapt.retention {source} has no labels, so nothing shows whether it is forgotten: give a "
            "folder with one folder a class, or a labelled set"
        )
    return bank, test


def _form_of(data: DataConfig, source: str, channels: int) -> dict[str, Any]:
    """The options of the new images' form that a retention set takes: files take all, a set by name its
    own. A published set keeps its orientation and background."""
    form = {key: getattr(data, key) for key in FORM_OPTIONS}
    if source in NAMED and NAMED[source].form == RGB:
        form |= dict.fromkeys(VIEW_OPTIONS)
    if form["channels"] is None and channels != 3:
        form["channels"] = channels  # which the files of the new images show
    return {key: value for key, value in form.items() if source not in NAMED or key in NAMED[source].takes}
