"""The story of a pretraining run: images -> views -> loss -> update, monitored and saved.

RunFolder     the lock, the checkpoints and the record of a run
TrainState    all that a checkpoint restores
Schedule      steps, epochs and the learning rate of each step
Logger        metrics.jsonl and messages
monitors      measurements every so often; `due(result)`, `check(result)`
train_step    forward, backward, the check on all ranks, the update (siamtransfer/training/step.py)
BetweenSteps  measurements and saves
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import torch

from siamtransfer.checkpoints.own_format import check_readable
from siamtransfer.config import PretrainConfig
from siamtransfer.data.imageset import ImageSet
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, seed_step
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.pretraining.between_steps import BetweenSteps
from siamtransfer.pretraining.images import (
    build_recipe,
    build_training_loader,
    open_chosen_images,
    paint_batches,
)
from siamtransfer.pretraining.memory_saving import refuse_combinations
from siamtransfer.pretraining.monitor import Monitor
from siamtransfer.pretraining.monitors import build_monitors, check_monitors
from siamtransfer.pretraining.retention import watch_retention
from siamtransfer.pretraining.run import RunFolder
from siamtransfer.pretraining.schedule import Schedule
from siamtransfer.pretraining.start import find_start
from siamtransfer.pretraining.state import TrainState
from siamtransfer.pretraining.step_result import StepResult
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import train_step
from siamtransfer.training.stopping import exit_stopped, look_for_signal, stopping_before_steps
from siamtransfer.views.view_spec import Recipe

AGAIN = "the same command begins again"
"""What a signal before the first step means for the user."""


def pretrain(
    config: PretrainConfig,
    runtime: Runtime,
    stop: StopSignal,
    *,
    resume: bool = False,
    extra_monitors: Sequence[Monitor] = (),
) -> dict[str, Any] | None:
    """Runs or resumes a pretraining; returns its record on rank 0, None on the others.

    Everything but `state` is a function of the configuration and the step, so a run that was stopped after
    any step continues to the bit.

    Raises:
        UserError: something that the user can change, before the first step as a rule.
        SystemExit: a signal arrived; the step in progress was completed and the state is saved.
    """
    config = copy.deepcopy(config)  # what is auto is filled in here
    with RunFolder(config, runtime) as run, stopping_before_steps(stop, runtime, AGAIN):
        saved = run.find_checkpoint(resume=resume)

        # Data: workers decode and crop, the device augments.
        images, chosen = open_chosen_images(config, runtime.device, saved)
        recipe = build_recipe(config, images, saved)
        check_monitors(config, recipe)
        refuse_combinations(config, runtime)
        schedule = Schedule(config.optim, len(images), runtime.world_size)

        state = build_state(config, images, recipe, saved, runtime)
        state.chosen = state.chosen or chosen
        log = run.open_log(state, schedule)

        end = partial(end_run, stop, state, schedule, runtime)
        look = look_for_signal(stop, runtime, end)
        monitors = [
            *build_monitors(config, state, schedule, log, runtime, look),
            *watch_retention(config, state, schedule, log, runtime, run, look),
            *extra_monitors,
        ]
        updater = state.distribute(runtime)
        require_saveable(state)
        log.introduce()
        between = BetweenSteps(run, state, monitors, updater, log, schedule.steps)
        stop.wait_for_steps()
        between.begin()

        exit_status = None
        batches = paint_batches(
            log.watch(build_training_loader(state, schedule, runtime)), config.hardware, recipe, runtime
        )
        for step, (batch, views) in enumerate(batches, state.step):
            if step == state.warm_up_steps > 0:
                state.end_warm_up(runtime)
            stop.doing = f"finishing step {step + 1}, then saving"
            collectives.set_doing(f"at step {step + 1}")
            lr = schedule.set_lr(updater.optimizer, step, state.plateau)
            seed_step(config.run.seed, step, runtime.rank)
            output, report = train_step(
                updater,
                views,
                StepContext(step, lr, batch.index),
                schedule.info(step),
                grad_accum_steps=config.optim.grad_accum_steps,
                exit_status=stop.exit_status or log.trouble() or run.save_wish(),
                meanwhile=batches.begin_next,
            )
            state.step = step + 1
            result = StepResult(state.step, lr, report, output, views, batch.unreadable)
            between.follow(result)
            if result.stopping:
                exit_status = report.exit_status
                break
        updater.settle()
        with collectives.own_pace("writing the last rows"):
            run.close_log(log, exit_status)
        if exit_status is not None:
            end(exit_status)
        collectives.barrier("the last step")
        run.cost.settle()
        return run.record(state, log, monitors) if runtime.is_main else None


def require_saveable(state: TrainState) -> None:
    """Refuses a state that could not be read again, before any step is spent on it."""
    with collectives.own_pace("checking the state"):
        check_readable(state.state_dict())


def build_state(
    config: PretrainConfig,
    images: ImageSet,
    recipe: Recipe,
    saved: dict[str, Any] | None,
    runtime: Runtime,
) -> TrainState:
    """The method with its backbone, its optimizer and loss scaler: new, from the weights of a file, or as
    `saved`."""
    with collectives.own_pace("building the state"):
        start = find_start(config.backbone, recipe, saved)
        torch.manual_seed(config.run.seed)
        state = TrainState.build(config, images, recipe, start.architecture)
        state.load_backbone(start, runtime)
        if saved is not None:
            state.restore(saved)
        state.adapt()
    return state


def end_run(
    stop: StopSignal, state: TrainState, schedule: Schedule, runtime: Runtime, exit_status: int
) -> NoReturn:
    """Ends the program after a signal; see `exit_stopped`."""
    cure = f"go on with --resume {shlex.quote(state.config.run.dir)}"
    exit_stopped(exit_status, state.step, schedule.steps, runtime, seconds=stop.seconds, cure=cure)
