"""Transfer without Detectron2: the same weights, data, schedule and evaluation in torchvision's networks.

The published protocols are Detectron2's. This engine keeps their schedule, batch, sizes and norms, but its
heads, samplers and losses are torchvision's: its numbers compare with each other, not with published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from siamtransfer.detection.tasks.task import Outputs
from siamtransfer.detection.torchvision.training import TransferTraining, score_measured
from siamtransfer.detection.torchvision.transfer import S, Transfer
from siamtransfer.distributed.runtime import Runtime, cpu_count
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.utils.errors import UserError


@dataclass(frozen=True)
class TransferResult:
    """Metrics in per cent, the protocol for a record, and what the model leaves."""

    metrics: dict[str, float]
    protocol: dict[str, Any]
    outputs: Outputs


@dataclass(frozen=True)
class RunOptions:
    """Where and how a network is trained and scored; no option changes a number.

    Attributes:
        run: a folder for the states (detector.pth, segmenter.pth) and metrics.jsonl; None keeps nothing.
        resume: go on from the state in `run`.
        evaluate_only: score the state in `run`, without training.
        workers: processes that read images; None: none on the CPU, up to 8 beside a GPU.
        guard: raises UserError where nothing may be written into `run` any more.
    """

    run: Path | None = None
    resume: bool = False
    evaluate_only: bool = False
    workers: int | None = None
    guard: Callable[[], None] = lambda: None


def train_and_evaluate(
    transfer: Transfer[S], runtime: Runtime, options: RunOptions | None = None
) -> TransferResult:
    """Trains a network as `transfer` says and scores it on the test images.

    It computes in float32 whatever `runtime` prefers: torchvision decodes boxes in the precision of its
    layers, and bfloat16 would round their corners to several pixels.

    Raises:
        UserError: weights, data and recipe do not go together, the folder holds another training, or the
            loss is not finite.
        SystemExit: a signal arrived; the state is saved where `options.run` is given.
    """
    options = options or RunOptions()
    recipe = transfer.recipe
    transfer.check(runtime.world_size)
    saved, state = _open_saved(transfer, options)
    torch.manual_seed(recipe.seed)
    network, workers = transfer.build(), _count_workers(options, runtime)
    if options.evaluate_only:
        assert state is not None
        network.load_state_dict(state["model"])
        network.to(runtime.device)
        evaluation = score_measured(transfer, network, state["step"], runtime, workers)
    else:
        training = TransferTraining(transfer, network, runtime, workers)
        evaluation = training.run(options.run, saved, state)
    protocol = {
        "engine": "torchvision",
        "comparable": False,
        "not_comparable": transfer.not_comparable,
        "recipe": recipe.as_record(),
        "precision": "float32",
        "world": runtime.world_size,
        **transfer.describe(),
    }
    return TransferResult(evaluation.metrics, protocol, evaluation.outputs)


def _open_saved(
    transfer: Transfer[S], options: RunOptions
) -> tuple[SavedTraining | None, dict[str, Any] | None]:
    """The states of the run folder, and the newest one."""
    if options.run is None:
        if options.resume or options.evaluate_only:
            raise UserError("to go on or to evaluate only, name the run folder that holds the training")
        return None, None
    saved = SavedTraining(
        options.run / transfer.state_name,
        transfer.identity(),
        resume=options.resume or options.evaluate_only,
        guard=options.guard,
    )
    state = saved.load()
    if options.evaluate_only and state is None:
        raise UserError(f"{options.run} holds no {transfer.state_name} to evaluate: train first")
    return saved, state


def _count_workers(options: RunOptions, runtime: Runtime) -> int:
    if options.workers is not None:
        return options.workers
    if runtime.device.type == "cpu":
        return 0
    return min(8, max(1, cpu_count() // runtime.local_world_size))
