"""How an evaluation ends early on a signal."""

from __future__ import annotations

import sys

from siamtransfer.distributed.signals import StopSignal
from siamtransfer.utils.log import say


def leave_on_signal(stop: StopSignal | None) -> None:
    """Ends the program, with the status of the signal, where one came; call it between two batches."""
    from detectron2.utils import comm

    if stop is None or stop.exit_status is None:
        return
    if comm.is_main_process():
        say("stopped on a signal while scoring; --resume scores again")
    sys.exit(stop.exit_status)
