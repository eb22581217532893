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
from siamtransfer.cli.failures import sentence_of
from siamtransfer.cli.output import print_record, wants_json
from siamtransfer.cli.streams import drop_stderr, lost_stdout, open_streams
from siamtransfer.utils.children import end_with_torchrun
from siamtransfer.utils.errors import ErrorAfterRecord, UserError
from siamtransfer.utils.log import is_first_rank, print_messages, say
from siamtransfer.utils.signals import INTERRUPTED
from siamtransfer.utils.text import sentence

USER_ERROR = 2
AFTER_RECORD = 3
"""The status of an error that came when the record was complete."""
ERROR_MARKER = "SIAMTRANSFER_ERROR_MARKER"
"""The environment variable that names a file for the status of a user's error: torchrun's own is always 1."""


def run(main: Callable[[], dict[str, Any] | None]) -> NoReturn:
    """Runs a program's `main` and ends the process with the right status.

    A returned record is printed as the last line of stdout, in JSON, or on a terminal as a table (see
    `output.wants_json`). A `UserError` becomes `error: …` on stderr and status 2, or 3 where it came after
    the record, which is then printed, too; so does what the machine refuses (`failures.sentence_of`). Where
    stdout takes no record, the status is 1 for a reader that went away and 3 otherwise. A signal is status
    128 and its number, such as 130 for Ctrl-C; a `SystemExit` keeps its own; anything else is a defect and
    keeps its traceback.
    """
    open_streams()
    print_messages()
    end_with_torchrun()
    try:
        status = _status_of(main)
    finally:
        atexit.register(_interrupt_quietly)
    lost = lost_stdout()
    if lost is not None:
        status = max(status, _tell_of_stdout(lost))
    drop_stderr()
    sys.exit(status)


def _status_of(main: Callable[[], dict[str, Any] | None]) -> int:
    """What `run` says, but for the last words on stdout."""
    try:
        with EndOnSignal() as ending:
            _print_result(main, ending)
        return 0
    except EndedBySignal as end:
        if is_first_rank():
            say("interrupted" if end.code == INTERRUPTED else f"ended by {end.name}")
        return int(end.code or 0)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        raise
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except UserError as error:
        return _refuse(str(error), AFTER_RECORD if isinstance(error, ErrorAfterRecord) else USER_ERROR)
    except (OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, OSError) and (lost := lost_stdout()) is not None:
            return _tell_of_stdout(lost)
        told = sentence_of(error)
        if told is None:
            raise
        return _refuse(told, USER_ERROR)


def _print_result(main: Callable[[], dict[str, Any] | None], ending: EndOnSignal) -> None:
    """Does the work and prints the record, which a signal no longer cuts short."""
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


def _refuse(message: str, status: int) -> int:
    """Says the error, and its status to a launcher that would not see it."""
    say(f"error: {sentence(message)}")
    if os.environ.get(ERROR_MARKER):
        Path(os.environ[ERROR_MARKER]).write_text(f"{status}\n", encoding="utf-8")
    return status


def _tell_of_stdout(lost: OSError) -> int:
    """Says that stdout took not all, and returns the status; a reader that went away, as `head` does, wants
    to hear nothing."""
    if isinstance(lost, BrokenPipeError):
        return 1
    say(
        f"error: what was to be printed on stdout is lost: {lost.strerror}; --record keeps a record in a file"
    )
    return AFTER_RECORD


def _interrupt_quietly() -> None:
    """From now on Ctrl-C ends the process without a traceback: libraries end their threads and processes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
