"""Jobs: each is one training of a detector and its evaluation, in a folder of its own.

Detectron2's launcher starts a process a GPU; on the CPU several jobs may run side by side. A job that is done
is not done again; one that was stopped goes on from its newest checkpoint. In the folder are checkpoints,
metrics.jsonl, log.txt, predictions.png and, at the end, result.json.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from siamtransfer.cli import INTERRUPTED, USER_ERROR
from siamtransfer.detection.data.datasets import register
from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.detection.detectron2.roi_heads import register_heads
from siamtransfer.detection.detectron2.trainer import Job, trainer_class
from siamtransfer.detection.detectron2.trunk import register_trunks
from siamtransfer.detection.metrics.pictures import draw_predictions
from siamtransfer.distributed.runtime import StopSignal, cpu_count
from siamtransfer.training.journal import read_rows
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import RunLock, write_text
from siamtransfer.utils.log import say
from siamtransfer.utils.strict_json import to_json

AP = "detection/AP"
RESULT, PICTURE = "result.json", "predictions.png"
TERMINATED = 143
LOOK_EVERY = 0.2  # seconds between looks for a signal


def read_result(folder: Path) -> dict[str, Any] | None:
    """What the finished job in a folder found: metrics, seed and more; None before."""
    path = folder / RESULT
    if not path.is_file():
        return None
    result = json.loads(path.read_text())
    numbers = {name: math.nan if value is None else value for name, value in result["metrics"].items()}
    return {**result, "metrics": numbers}  # JSON has no NaN, which a class without objects gets


def run_jobs(jobs: Sequence[Job], gpus: int, at_once: int) -> list[dict[str, Any]]:
    """Does those that are not done and returns the results of all: one after the other on `gpus` GPUs, or
    `at_once` of them side by side on the CPU.

    Raises:
        SystemExit: a signal came and everything is saved, or a process has told its error; with the status.
        UserError: the weights did not arrive, or a job's folder cannot be used.
    """
    left = [job for job in jobs if job.evaluate_only or read_result(job.folder) is None]
    if left and gpus > 1:
        _on_gpus(left, gpus)
    elif len(left) > 1 and at_once > 1:
        _side_by_side(left, min(at_once, len(left)))
    elif left:
        work(left)
    results = (read_result(job.folder) for job in jobs)
    return [result for result in results if result is not None]


def _on_gpus(jobs: Sequence[Job], gpus: int) -> None:
    from detectron2.engine import launch

    try:
        launch(_in_process, gpus, dist_url="auto", args=(jobs,))
    except torch.multiprocessing.ProcessExitedException as error:
        if error.exit_code in (USER_ERROR, INTERRUPTED, TERMINATED):
            sys.exit(error.exit_code)
        raise


def _side_by_side(jobs: Sequence[Job], count: int) -> None:
    """`count` processes share the jobs and the processors; a signal goes on to all of them."""
    context = torch.multiprocessing.get_context("spawn")
    threads = max(1, cpu_count() // count)
    processes = [
        context.Process(target=_in_process, args=(jobs[runtime::count], threads)) for runtime in range(count)
    ]
    with StopSignal() as stop:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(LOOK_EVERY)
                if stop.exit_status is not None:
                    process.terminate()
    status = max(abs(process.exitcode or 0) for process in processes)
    if status:
        sys.exit(status)


def _in_process(jobs: Sequence[Job], threads: int | None = None) -> None:
    """`work` in a process that was started for it: its error in one sentence and by the status."""
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        work(jobs)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(USER_ERROR)


def work(jobs: Sequence[Job]) -> None:
    """Does all jobs, in each process of a group alike."""
    import_detectron2()
    register_trunks()
    register_heads()
    from detectron2.utils import comm

    with StopSignal() as stop, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what newer libraries would have Detectron2 do
        for job in jobs:
            register(job.data)
            lock = RunLock(job.folder) if comm.is_main_process() else contextlib.nullcontext()
            with lock, _log_in(job.folder):
                _do(job, stop)


def _do(job: Job, stop: StopSignal) -> None:
    from detectron2.utils import comm

    began = time.monotonic()
    trainer = trainer_class()(job, stop)
    if job.evaluate_only:
        trainer.load_final()
        metrics = trainer.test(trainer.cfg, trainer.model)
    else:
        trainer.fill()
        try:
            trainer.train()
        except FloatingPointError as error:
            raise UserError(
                f"{job.name}: the loss is no longer a number after step {trainer.iter}; lower SOLVER.BASE_LR "
                f"({job.cfg.SOLVER.BASE_LR:g}) or lengthen SOLVER.WARMUP_ITERS"
            ) from error
        metrics = trainer.metrics
    if comm.is_main_process():
        draw_predictions(job.folder / PICTURE, job.data.test, trainer.found, job.data.classes)
        rows = read_rows(job.folder / "metrics.jsonl")
        result = {
            "metrics": metrics,
            "seed": job.seed,
            "tensors_proved": trainer.proved,
            "seconds": time.monotonic() - began,
            "AP_by_step": [(row["step"], row[AP]) for row in rows if AP in row],
        }
        write_text(job.folder / RESULT, to_json(result) + "\n")
        for passed in job.folder.glob("model_[0-9]*.pth"):
            passed.unlink()


@contextlib.contextmanager
def _log_in(folder: Path) -> Iterator[None]:
    """Detectron2's words go to log.txt in the folder; people are told what matters on stderr."""
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
