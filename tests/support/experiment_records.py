"""Small suites of experiments, and records of cells that nobody has measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from siamtransfer.experiments.records import CellRecord
from siamtransfer.experiments.suites import TEST, Experiment, ExperimentSuite, read_suite

BASE = """\
data: {name: fashion-scenes, size: 32, count: 40, workers: 0}
views: {recipe: scenes}
backbone: {name: resnet18, width: 16}
simsiam: {dim: 32}
optim: {epochs: 1, batch_size: 20, lr: 0.1}
hardware: {device: cpu, precision: float32, threads: 1}
monitor: {knn_every: 1, health_every: 1}
log: {every: 1, tensorboard: false}
checkpoint: {every_minutes: 0}
"""
SUITE = """\
title: Two rates
question: Does the rate matter?
baseline: slow
seeds: 2
pictures: [{file: loss.png, curves: {loss: the loss}, cells: {slow: slowly, fast: quickly}}]
"""


def recipe(question: str, settings: str, *more: str) -> str:
    """The text of a recipe's file."""
    lines = [
        f"# Question:  {question}",
        "# Published: 68.1",
        "# Source:    a paper, table 1",
        *more,
        settings,
    ]
    return "\n".join(lines) + "\n"


def write_small_suite(folder: Path) -> Path:
    """A suite of two experiments in FOLDER/rates; returns its folder."""
    suite = folder / "rates"
    suite.mkdir(parents=True)
    (folder / "base.yaml").write_text(BASE)
    (suite / "suite.yaml").write_text(SUITE)
    (suite / "slow.yaml").write_text(recipe("With a low rate?", "optim: {lr: 0.01}"))
    (suite / "fast.yaml").write_text(recipe("With a high rate?", "optim: {lr: 0.5}"))
    return suite


def small_suite(folder: Path) -> ExperimentSuite:
    """The same, read."""
    return read_suite(write_small_suite(folder))


def record_of(
    experiment: Experiment, seed: int, top1: float, *, alarms: int = 0, **numbers: float
) -> CellRecord:
    """A record of a cell with a curve of two points."""
    known: Mapping[str, float] = {
        TEST: top1,
        "health/std": 0.75,
        "health/effective_rank": 12.0,
        f"baseline/pixels/{TEST}": 13.0,
        **numbers,
    }
    curves = {"loss": [[1, -0.1 - seed], [2, -0.3 - seed]]}
    return CellRecord(
        experiment.id, seed, experiment.digest, [], dict(known), alarms, curves, 1.5, {"torch": "2"}, None
    )
