"""Starts the processes that do fine-tuning runs with Detectron2, and does one run after the other in each.

Detectron2's launcher starts a process a GPU; on the CPU several runs may go side by side. A complete run is
not done again; a stopped one continues from its newest checkpoint. In a run's folder are checkpoints,
metrics.jsonl, log.txt, predictions.png and, at the end, result.json.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from siamtransfer.cli.entry import USER_ERROR
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.roi_heads import register_heads
from siamtransfer.detection.detectron2.segmentor import register_segmentors
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.finetune_run import FinetuneRun
from siamtransfer.distributed.runtime import cpu_count
from siamtransfer.distributed.signals import StopSignal
from siamtransfer.metering.cost import over_ranks
from siamtransfer.metering.meter import ImageClock, Meter, metered
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.children import end_with_parent
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import print_messages, say
from siamtransfer.utils.run_lock import RunLock
from siamtransfer.utils.workers import explained_workers

SIGNALLED = 128  # and the signal's number: the exit status after a stop
POLL_SECONDS = 0.2  # between looks for a signal


def run_all(runs: Sequence[FinetuneRun], gpus: int, at_once: int) -> list[dict[str, Any]]:
    """Does the runs that are not complete: one after the other on `gpus` GPUs, or `at_once` of them side by
    side on the CPU. Returns the results of all runs, in their order.

    Raises:
        SystemExit: a signal came and all is saved, or a process has printed its error; with the status.
        UserError: the weights did not arrive, or the folder of a run cannot be used.
    """
    waiting = [run for run in runs if run.evaluate_only or run.result() is None]
    if waiting and gpus > 1:
        _on_gpus(waiting, gpus)
    elif len(waiting) > 1 and at_once > 1:
        _side_by_side(waiting, min(at_once, len(waiting)))
    elif waiting:
        do_runs(waiting)
    results = (run.result() for run in runs)
    return [result for result in results if result is not None]


def _on_gpus(runs: Sequence[FinetuneRun], gpus: int) -> None:
    from detectron2.engine import launch

    try:
        launch(_in_process, gpus, dist_url="auto", args=(runs,))
    except torch.multiprocessing.ProcessExitedException as error:
        if error.exit_code == USER_ERROR or error.exit_code > SIGNALLED:
            sys.exit(error.exit_code)
        raise


def _side_by_side(runs: Sequence[FinetuneRun], count: int) -> None:
    """`count` processes divide the runs and the processors among them; a signal goes on to all of them."""
    context = torch.multiprocessing.get_context("spawn")
    threads = max(1, cpu_count() // count)
    processes = [
        context.Process(target=_in_process, args=(runs[index::count], threads)) for index in range(count)
    ]
    with StopSignal() as stop:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(POLL_SECONDS)
                if stop.exit_status is not None:
                    process.terminate()
    status = max(abs(process.exitcode or 0) for process in processes)
    if status:
        sys.exit(status)


def _in_process(runs: Sequence[FinetuneRun], threads: int | None = None) -> None:
    """`do_runs` in a process of its own: an error becomes one sentence and the exit status."""
    print_messages()
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with_parent(signal.SIGTERM, parent.pid)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        do_runs(runs)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(USER_ERROR)


def do_runs(runs: Sequence[FinetuneRun]) -> None:
    """Does all runs, in every process of a group alike."""
    import_detectron2()
    register_trunks()
    register_heads()
    register_segmentors()
    from detectron2.utils import comm

    with StopSignal() as stop, warnings.catch_warnings(), explained_workers("DATALOADER.NUM_WORKERS"):
        warnings.simplefilter("ignore", UserWarning)  # newer libraries' advice to Detectron2
        for run in runs:
            lock = RunLock(run.folder, option="--run") if comm.is_main_process() else contextlib.nullcontext()
            with lock as held, _log_file(run.folder), metered(packages=comm.get_local_rank() == 0) as meter:
                _finetune(run, stop, meter, held)


def _finetune(run: FinetuneRun, stop: StopSignal, meter: Meter, lock: RunLock | None) -> None:
    from detectron2.utils import comm

    from siamtransfer.detection.detectron2.trainer import Trainer

    began = time.monotonic()
    if run.initialization.settings.MODEL.DEVICE.startswith("cuda"):
        meter.watch_gpus([torch.cuda.current_device()])
    trainer = Trainer(run, stop)
    if lock is not None:
        trainer.guard_saves(lock.require_place)
    if run.evaluate_only:
        trainer.load_final_model()
        metrics = trainer.test(trainer.cfg, trainer.model)
    else:
        trainer.load_start()
        clock = ImageClock()
        try:
            trainer.train()
        except FloatingPointError as error:
            solver = trainer.cfg.SOLVER
            raise UserError(
                f"{run.name}: the loss is no longer a number after step {trainer.iter}; lower SOLVER.BASE_LR "
                f"({solver.BASE_LR:g}) or lengthen SOLVER.WARMUP_ITERS"
            ) from error
        metrics = trainer.metrics
        steps = trainer.max_iter - trainer.start
        clock.count(steps * trainer.cfg.SOLVER.IMS_PER_BATCH / comm.get_world_size())
    cost = over_ranks(comm.all_gather(meter.read_own()))
    if lock is not None:
        lock.require_place()
        task, rows = run.task, read_rows(run.folder / "metrics.jsonl")
        result = {
            "metrics": metrics,
            "seed": run.seed,
            "tensors_proved": trainer.tensors_proved,
            "seconds": time.monotonic() - began,
            "cost": cost.as_dict(),
            f"{task.measure}_by_step": [
                (row["step"], row[task.headline]) for row in rows if task.headline in row
            ],
        }
        run.write_result(result, trainer.outputs)
        for checkpoint in run.folder.glob("model_[0-9]*.pth"):
            checkpoint.unlink()


@contextlib.contextmanager
def _log_file(folder: Path) -> Iterator[None]:
    """Detectron2's messages go to log.txt in the folder, instead of stderr."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(folder / "log.txt")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --run") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "d2")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()
