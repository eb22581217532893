"""Fine-tuning runs in torchvision: from the settings of a run to its transfer, and to its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from siamtransfer.checkpoints.baselines import RANDOM
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of
from siamtransfer.detection.finetune_run import FinetuneRun, Initialization
from siamtransfer.detection.tasks.instances import InstancesTask
from siamtransfer.detection.tasks.semantic import SemanticTask
from siamtransfer.detection.tasks.task import Task
from siamtransfer.detection.torchvision.engine import RunOptions, train_and_evaluate
from siamtransfer.detection.torchvision.instances import InstancesTransfer
from siamtransfer.detection.torchvision.recipe import recipe_of
from siamtransfer.detection.torchvision.segmenter_recipe import Head, segmenter_recipe_of
from siamtransfer.detection.torchvision.semantic import SemanticTransfer
from siamtransfer.detection.torchvision.transfer import Transfer
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.run_lock import RunLock


def transfer_of(task: Task, read: ReadBackbone, settings: Mapping[str, Any], head: Head) -> Transfer[Any]:
    """What is trained for `task` by flat settings; `head` is that of a segmentation.

    Raises:
        UserError: torchvision has no network for the task, or the settings ask for what it does not have.
    """
    if isinstance(task, SemanticTask):
        return SemanticTransfer(read, task, segmenter_recipe_of(settings, head))
    if not isinstance(task, InstancesTask):
        raise UserError(
            f"--engine torchvision does not fine-tune for the task {task.name}; take --engine detectron2"
        )
    if head != "fcn":
        raise UserError(f"--head {head} is of semantic segmentation; leave it out")
    return InstancesTransfer(read, task, recipe_of(settings))


def check_initialization(initialization: Initialization, task: Task, head: Head, runtime: Runtime) -> None:
    """Raises UserError for what a run from here would refuse, before anything is written."""
    read = initialization.weights
    assert isinstance(read, ReadBackbone)
    transfer_of(task, read, initialization.settings, head).check(runtime.world_size)


def finetune(run: FinetuneRun, runtime: Runtime, head: Head) -> dict[str, Any]:
    """The result of one run; a complete one is read."""
    result = run.result()
    if result is not None and not run.evaluate_only:
        return result
    settings = {**run.initialization.settings, **run.overrides, "SEED": run.seed}
    transfer = transfer_of(run.task, _backbone_of(run), settings, head)
    recipe = transfer.recipe
    say(f"{run.name}: {recipe.steps} steps of {recipe.batch} images, in {run.folder}")
    with RunLock(run.folder, option="--run") as lock:
        options = RunOptions(
            run.folder,
            resume=True,
            evaluate_only=run.evaluate_only,
            workers=_workers(run),
            guard=lock.require_place,
        )
        outcome = train_and_evaluate(transfer, runtime, options)
        lock.require_place()
    task = run.task
    say(f"{run.name}: {task.measure} {outcome.metrics[task.headline]:.2f}")
    result = {"metrics": outcome.metrics, "seed": run.seed}
    run.write_result(result, outcome.outputs)
    return result


def _workers(run: FinetuneRun) -> int | None:
    """DATALOADER.NUM_WORKERS of a segmentation; None where nothing states it, and for detectors."""
    stated = run.initialization.settings.get("DATALOADER.NUM_WORKERS")
    return stated if isinstance(run.task, SemanticTask) else None


def _backbone_of(run: FinetuneRun) -> ReadBackbone:
    """The backbone of the initialization, or an untrained one of its architecture, drawn from the seed."""
    read = run.initialization.weights
    assert isinstance(read, ReadBackbone)
    if run.initialization.digest is not None:
        return read
    kind = read.architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        state = kind.build().state_dict()
    return replace(read, path=f"{RANDOM}{kind.name}", state=state, digest=digest_of(state))
