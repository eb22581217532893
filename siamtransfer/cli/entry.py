"""What every program does around its own work: a sentence for a user's error, the record on stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from siamtransfer.cli.output import print_record, wants_json
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import print_messages, say

USER_ERROR = 2
INTERRUPTED = 130
ERROR_MARKER = "SIAMTRANSFER_ERROR_MARKER"
"""The environment variable that names a file for the status of a user's error: torchrun's own is always 1."""


def run(main: Callable[[], dict[str, Any] | None]) -> NoReturn:
    """Runs a program's `main` and ends the process with the right status.

    A returned record is printed as the last line of stdout, in JSON, or on a terminal as a table (see
    `output.wants_json`). A `UserError` becomes `error: …` on stderr and
    status 2, Ctrl-C status 130, and a `SystemExit` keeps its own; anything else is a defect and keeps its
    traceback.
    """
    print_messages()
    try:
        as_json = wants_json(sys.argv[1:])
        record = main()
        if record is not None:
            print_record(record, as_json=as_json)
    except UserError as error:
        say(f"error: {error}")
        if os.environ.get(ERROR_MARKER):
            Path(os.environ[ERROR_MARKER]).write_text(f"{USER_ERROR}\n", encoding="utf-8")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)
