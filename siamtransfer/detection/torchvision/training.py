"""The training of a network of torchvision's, which can be stopped at any step."""

from __future__ import annotations

import contextlib
import math
import sys
from pathlib import Path
from typing import Any, Generic, NoReturn

import torch
from torch import nn

from siamtransfer.detection.parameter_groups import build_optimizer, parameter_groups
from siamtransfer.detection.torchvision.recipe import Recipe
from siamtransfer.detection.torchvision.transfer import Evaluation, S, Transfer
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, seed_step
from siamtransfer.distributed.signals import Stopped, StopSignal
from siamtransfer.metering.meter import ImageClock
from siamtransfer.training.guard import StepContext, StepReport
from siamtransfer.training.journal import UNWRITTEN, WRITE_FAILED, Journal
from siamtransfer.training.progress import StepProgress
from siamtransfer.training.saved_training import SavedTraining
from siamtransfer.training.step import Updater
from siamtransfer.training.stopping import exit_stopped
from siamtransfer.utils.errors import UserError


class TransferTraining(Generic[S]):
    """The steps of a transfer's `network` and its scores.

    Two processes with the same seed and the same state make the same steps.
    """

    def __init__(self, transfer: Transfer[S], network: nn.Module, runtime: Runtime, workers: int):
        self.transfer, self.network, self.runtime, self.workers = transfer, network, runtime, workers
        self.recipe = transfer.recipe
        model = runtime.distribute(network, synchronise_batch_norm=transfer.synchronises_norms)
        optimizer = _build_optimizer(network, self.recipe)
        scaler = torch.amp.GradScaler(runtime.device.type, enabled=False)
        self._updater = Updater(model, optimizer, scaler, runtime)

    def run(
        self, folder: Path | None, saved: SavedTraining | None, state: dict[str, Any] | None
    ) -> Evaluation:
        """Makes all steps that are left after `state`; returns the last scores.

        It scores every `recipe.score_every` steps and at the end.
        """
        recipe, runtime, headline = self.recipe, self.runtime, self.transfer.task.headline
        start = state["step"] if state else 0
        if state:
            self.load_state_dict(state)
        unwritten = state.get(UNWRITTEN) if state else None
        journal = Journal(folder if runtime.is_main else None, start=start, patient=True, unwritten=unwritten)
        progress = StepProgress(recipe.steps, start, max(1, recipe.steps // 20), shown=runtime.is_main)

        stop, kept = StopSignal(), {start}

        def keep(done: int) -> None:
            if saved and done not in kept:
                rows = journal.unwritten()
                saved.save(self.state_dict() | ({UNWRITTEN: rows} if rows else {}), done)
            kept.add(done)

        def leave(done: int, status: int) -> NoReturn:
            progress.close()
            exit_stopped(status, done, recipe.steps, runtime, saved=saved is not None, seconds=stop.seconds)

        def score(done: int) -> Evaluation:
            try:
                with stop.at_once(runtime.world_size == 1):  # the training that goes on measures it
                    return self.score(done)
            except Stopped as end:
                leave(done, end.code)

        def score_if_due(done: int) -> None:
            due = recipe.score_every and done % recipe.score_every == 0 and 0 < done < recipe.steps
            if due and not collectives.broadcast_object(journal.has(done, headline)):
                keep(done)  # before the norms are measured
                metrics = score(done).metrics
                journal.write(done, _finite(metrics))
                progress.say(f"after {done} steps: {headline} {metrics[headline]:.2f}")

        with contextlib.closing(journal), contextlib.closing(progress), stop:
            score_if_due(start)  # the signal came between a step and its scores
            batches = self.transfer.batches(start, recipe.steps, runtime, self.workers)
            clock = ImageClock()
            for step, batch in enumerate(clock.watch(batches), start):
                stop.doing = f"finishing step {step + 1}" + (", then saving" if saved else "")
                collectives.set_doing(f"at step {step + 1}")
                status = stop.exit_status or (None if journal.failure is None else WRITE_FAILED)
                report, losses = self.step(step, batch, status)
                clock.count(len(batch))
                done, last = step + 1, step + 1 == recipe.steps
                lr = recipe.lr_at(step)
                if done % recipe.log_every == 0 or last:
                    journal.write(done, {"loss": report.loss, "lr": lr, **losses})
                progress.update(done, f"loss {report.loss:.4f} · lr {lr:.4g}")
                stopping = report.exit_status is not None
                if stopping or last or done % recipe.save_every == 0:
                    keep(done)
                if report.exit_status == WRITE_FAILED:
                    _end_without_room(journal, done, runtime)
                if report.exit_status is not None:
                    leave(done, report.exit_status)
                score_if_due(done)
            progress.close()
            evaluation = score(recipe.steps)
            if not journal.has(recipe.steps, headline):  # a finished run that is resumed has its row
                journal.write(recipe.steps, _finite(evaluation.metrics))
        return evaluation

    def step(self, step: int, batch: list[S], exit_status: int | None) -> tuple[StepReport, dict[str, float]]:
        """One update on this rank's part of a batch; returns the report and the parts of the loss, `loss/…`.

        Raises:
            UserError: the loss or a gradient is not finite; the update was not made.
        """
        runtime, recipe, lr = self.runtime, self.recipe, self.recipe.lr_at(step)
        seed_step(recipe.seed, step, runtime.rank)
        for group in self._updater.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_factor", 1.0)  # states of older versions have no factor
        self._updater.model.train()
        losses = self.transfer.losses(self._updater.model, batch, runtime)
        loss = sum(losses.values(), start=torch.zeros((), device=runtime.device))
        advice = f"lower the learning rate {recipe.lr:g} or lengthen the warm-up"
        report = self._updater.step(loss, StepContext(step, lr, None, advice), exit_status)
        return report, {name.replace("loss_", "loss/"): float(part.detach()) for name, part in losses.items()}

    def score(self, step: int) -> Evaluation:
        """The scores after `step` steps, with the statistics of norms that belong to the present weights."""
        return score_measured(self.transfer, self.network, step, self.runtime, self.workers)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.network.state_dict(),
            "optimizer": self._updater.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["model"])
        self._updater.optimizer.load_state_dict(state["optimizer"])


def _end_without_room(journal: Journal, done: int, runtime: Runtime) -> NoReturn:
    """Ends all ranks after a step whose state is saved, since rows found no room.

    Raises:
        UserError: on rank 0; says what could not be written.
        SystemExit: on the others.
    """
    collectives.barrier("saving the state")
    if not runtime.is_main:
        sys.exit(WRITE_FAILED)
    whole = f"the state of step {done} is whole: go on with --resume"
    try:
        journal.close()
    except UserError as error:
        raise UserError(f"{error}; {whole}") from error
    raise UserError(f"the disk was full for a while; all rows are written now, and {whole}")


def score_measured(
    transfer: Transfer[S], network: nn.Module, step: int, runtime: Runtime, workers: int
) -> Evaluation:
    """The scores of a network after `step` steps, its norms measured first."""
    measure_norms(transfer, network, step, runtime, workers)
    return transfer.score(network, runtime)


def measure_norms(
    transfer: Transfer[S], network: nn.Module, step: int, runtime: Runtime, workers: int
) -> None:
    """Replaces the running statistics of the batch norms by the mean over `precise_batches` training batches
    with the present weights (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3)."""
    recipe = transfer.recipe
    if not recipe.precise_batches:
        return
    network.train()
    seed_step(recipe.seed, step, runtime.rank)
    batches = transfer.batches(step, step + recipe.precise_batches, runtime, workers)
    transfer.measure_norms(network, batches, runtime)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return build_optimizer(
        recipe.optimizer,
        parameter_groups(network, recipe.groups()),
        lr=recipe.lr,
        momentum=recipe.momentum,
        betas=recipe.betas,
    )
