"""The end of a training that a signal stopped, also inside a long measurement."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import torch

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.distributed.signals import Stopped, StopSignal
from siamtransfer.training.stop_marker import mark_stopped
from siamtransfer.utils.log import say


def exit_stopped(
    exit_status: int,
    step: int,
    steps: int,
    runtime: Runtime,
    *,
    saved: bool = True,
    seconds: float | None = None,
    cure: str = "go on with --resume",
) -> NoReturn:
    """Ends the process after `step` of `steps` steps; every rank waits until rank 0 has saved the state.

    `cure` says how to go on. `seconds` is the time since the signal, for the message: who sends one must wait
    that long before a kill.

    Raises:
        SystemExit: with `exit_status`, 128 and the signal's number (143 after SIGTERM, 130 after Ctrl-C).
    """
    collectives.barrier("saving the state")
    if runtime.is_main:
        if saved:
            mark_stopped(exit_status)
        if seconds:
            say(f"ending what was under way took {seconds:.1f} s from the signal on")
        then = cure if saved else "nothing is kept, for there is no --run folder"
        say(f"stopped on a signal after step {step} of {steps}; {then}")
    sys.exit(exit_status)


@contextlib.contextmanager
def stopping_before_steps(stop: StopSignal, runtime: Runtime, cure: str) -> Iterator[None]:
    """Around a training: until `stop.wait_for_steps()` is called nothing is kept, so a signal ends a process
    that is alone at once, and `cure` says how to go on. Several ranks end together, after a step.

    Raises:
        Stopped: a signal came before the steps.
    """
    try:
        with stop.at_once(runtime.world_size == 1):
            yield
    except Stopped as end:
        mark_stopped(end.code)
        say(f"stopped on a signal before the first step; {cure}")
        raise


def look_for_signal(stop: StopSignal, runtime: Runtime, end: Callable[[int], NoReturn]) -> Callable[[], None]:
    """A function for the pauses of a long measurement, which all ranks call equally often: where a signal has
    reached one of them, each calls `end` with the exit status."""

    def look() -> None:
        status = stop.exit_status or 0
        if runtime.world_size > 1:
            status = int(collectives.all_gather(torch.tensor([status], device=runtime.device)).max())
        if status:
            end(status)

    return look
