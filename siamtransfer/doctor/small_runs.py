"""Whole pretraining runs in this process, from JPEG files in a temporary folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from siamtransfer.config import BackboneConfig, DataConfig, PretrainConfig
from siamtransfer.distributed.runtime import cpu_count, start_runtime
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.doctor.workbench import PHOTOGRAPH, Workbench
from siamtransfer.methods import SimSiamConfig
from siamtransfer.pretraining.loop import pretrain
from siamtransfer.pretraining.monitor import Monitor
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.utils.log import LOGGER
from siamtransfer.views.config import ViewsConfig

DIFFERENT_FILES = 64  # the others are hard links to them
CLASSES = 4


class Row(TypedDict, total=False):
    """The numbers of metrics.jsonl that are read here."""

    step: int
    loss: float
    images_per_second: float
    data_wait_share: float


class StopAt(Monitor):
    """Sends SIGTERM to this process after a step."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def due(self, result: StepResult) -> bool:
        return result.step == self.step

    def check(self, result: StepResult) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return {}


@contextlib.contextmanager
def photographs(bench: Workbench, count: int) -> Iterator[Path]:
    """A folder with `images`: `count` JPEGs of 500 x 375 pixels for training and a quarter for kNN."""
    height, width = (48, 64) if bench.tiny else PHOTOGRAPH
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="doctor-") as name:
        for split, number in (("train", count), ("val", count // 4)):
            for index in range(number):
                folder = Path(name) / "images" / split / f"class{index % CLASSES}"
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"{index:06}.jpg"
                if index >= DIFFERENT_FILES:
                    os.link(folder / f"{index % DIFFERENT_FILES:06}.jpg", path)
                    continue
                low = Image.fromarray(generator.integers(0, 255, (24, 32, 3), dtype=np.uint8))
                pixels = np.asarray(low.resize((width, height), Image.Resampling.BICUBIC))
                noisy = np.clip(pixels + generator.normal(0, 12, pixels.shape), 0, 255)
                Image.fromarray(noisy.astype(np.uint8)).save(path, quality=90)
        yield Path(name)


def run_config(bench: Workbench, folder: Path, name: str) -> PretrainConfig:
    """SimSiam with ResNet-50 on the photographs in `folder`, for two epochs; or tiny."""
    config = PretrainConfig(method_options=SimSiamConfig())
    config.run.dir = str(folder / name)
    config.data = DataConfig(name="folder", root=str(folder / "images"), workers=min(14, cpu_count()))
    config.optim.epochs, config.optim.batch_size = 2, 128
    config.hardware.device = bench.device.type
    config.monitor.knn_every, config.monitor.knn_bank = 1, 1024
    config.checkpoint.every_minutes = 0
    config.log.every, config.log.tensorboard = 4, False
    if bench.tiny:
        config.data.workers, config.log.every = 0, 1
        config.backbone = BackboneConfig(name="resnet18", width=8, stem="small")
        config.method_options = SimSiamConfig(dim=32, predictor_hidden=8)
        config.views = ViewsConfig(recipe="simsiam", size=32)
        config.optim.batch_size = 8
        config.monitor.knn_k = 5
    return config


def train(config: PretrainConfig, *, resume: bool = False, monitors: Sequence[Monitor] = ()) -> int:
    """Runs `config` without messages; returns the exit status: 0, or 143 after SIGTERM.

    Raises:
        UserError: see `pretrain`.
    """
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    hardware = config.hardware
    try:
        with (
            start_runtime(hardware.device, hardware.precision, hardware.threads) as runtime,
            StopSignal() as stop,
        ):
            config.check()
            pretrain(config, runtime, stop, resume=resume, extra_monitors=monitors)
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        LOGGER.setLevel(level)
    return 0


def rows_of(config: PretrainConfig) -> list[Row]:
    """The rows of a run."""
    lines = (Path(config.run.dir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses_of(config: PretrainConfig) -> dict[int, float]:
    """The loss of each step that was written down."""
    return {row["step"]: row["loss"] for row in rows_of(config) if "loss" in row}


def speed_of(config: PretrainConfig) -> tuple[float, float]:
    """Images a second and the share of waiting for data: the medians of the run's rows but the first
    third, in which the device warms up."""
    rows = [row for row in rows_of(config) if "images_per_second" in row]
    rows = rows[len(rows) // 3 :]
    return (
        float(np.median([row["images_per_second"] for row in rows])),
        float(np.median([row["data_wait_share"] for row in rows])),
    )
