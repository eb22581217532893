"""What every program does around its own work: a sentence for a user's error, the record on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from siamtransfer.cli.output import print_record, wants_json
from siamtransfer.utils.errors import ErrorAfterRecord, UserError
from siamtransfer.utils.log import print_messages, say

USER_ERROR = 2
AFTER_RECORD = 3
"""The status of an error that came when the record was complete."""
INTERRUPTED = 130
ERROR_MARKER = "SIAMTRANSFER_ERROR_MARKER"
"""The environment variable that names a file for the status of a user's error: torchrun's own is always 1."""


def run(main: Callable[[], dict[str, Any] | None]) -> NoReturn:
    """Runs a program's `main` and ends the process with the right status.

    A returned record is printed as the last line of stdout, in JSON, or on a terminal as a table (see
    `output.wants_json`). A `UserError` becomes `error: …` on stderr and status 2, or 3 where it came after
    the record, which is then printed, too. Ctrl-C is status 130, and a `SystemExit` keeps its own; anything
    else is a defect and keeps its traceback.
    """
    print_messages()
    try:
        as_json = wants_json(sys.argv[1:])
        try:
            record = main()
        except ErrorAfterRecord as error:
            print_record(error.record, as_json=as_json)
            raise
        if record is not None:
            print_record(record, as_json=as_json)
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
    sys.exit(0)
