"""What every program does around its own work: a sentence for a user's error, the record on stdout."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from siamtransfer.cli.ending import EndedBySignal, EndOnSignal
from siamtransfer.cli.output import print_record, wants_json
from siamtransfer.utils.children import end_with_torchrun
from siamtransfer.utils.errors import ErrorAfterRecord, UserError
from siamtransfer.utils.log import is_first_rank, print_messages, say
from siamtransfer.utils.signals import INTERRUPTED

USER_ERROR = 2
AFTER_RECORD = 3
"""The status of an error that came when the record was complete."""
ERROR_MARKER = "SIAMTRANSFER_ERROR_MARKER"
"""The environment variable that names a file for the status of a user's error: torchrun's own is always 1."""


def run(main: Callable[[], dict[str, Any] | None]) -> NoReturn:
    """Runs a program's `main` and ends the process with the right status.

    A returned record is printed as the last line of stdout, in JSON, or on a terminal as a table (see
    `output.wants_json`). A `UserError` becomes `error: …` on stderr and status 2, or 3 where it came after
    the record, which is then printed, too. A signal is status 128 and its number, such as 130 for Ctrl-C; a
    `SystemExit` keeps its own; anything else is a defect and keeps its traceback.
    """
    print_messages()
    end_with_torchrun()
    try:
        with EndOnSignal() as ending:
            as_json = wants_json(sys.argv[1:])
            try:
                record = main()
            except ErrorAfterRecord as error:
                ending.forgo()
                print_record(error.record, as_json=as_json)
                raise
            ending.forgo()
            if record is not None:
                print_record(record, as_json=as_json)
    except EndedBySignal as end:
        if is_first_rank():
            say("interrupted" if end.code == INTERRUPTED else f"ended by {end.name}")
        raise
    except UserError as error:
        status = AFTER_RECORD if isinstance(error, ErrorAfterRecord) else USER_ERROR
        say(f"error: {error}")
        if os.environ.get(ERROR_MARKER):
            Path(os.environ[ERROR_MARKER]).write_text(f"{status}\n", encoding="utf-8")
        sys.exit(status)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        atexit.register(_interrupt_quietly)
    sys.exit(0)


def _interrupt_quietly() -> None:
    """From now on Ctrl-C ends the process without a traceback: libraries end their threads and processes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
