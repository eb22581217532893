"""The end of a training that a signal stopped."""

from __future__ import annotations

import sys
from typing import NoReturn

from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.utils.log import say


def exit_stopped(
    exit_status: int, step: int, steps: int, runtime: Runtime, *, saved: bool = True
) -> NoReturn:
    """Ends the process after `step` of `steps` steps; every rank waits until rank 0 has saved the state.

    Raises:
        SystemExit: with `exit_status`, 143 after SIGTERM and 130 after Ctrl-C.
    """
    collectives.barrier()
    if runtime.is_main:
        cure = "go on with --resume" if saved else "nothing is kept, for there is no --run folder"
        say(f"stopped on a signal after step {step} of {steps}; {cure}")
    sys.exit(exit_status)
