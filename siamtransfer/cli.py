"""What every program does around its own work: a sentence for a user's error, one JSON line for a result."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from siamtransfer.utils.errors import UserError

USER_ERROR = 2
INTERRUPTED = 130


def run(main: Callable[[], dict[str, Any] | None]) -> NoReturn:
    """Runs a program's `main` and ends the process with the right status.

    A returned record is printed as the last line of stdout. A `UserError` becomes `error: …` on stderr and
    status 2, Ctrl-C status 130, and a `SystemExit` keeps its own; anything else is a defect and keeps its
    traceback.
    """
    try:
        record = main()
        if record is not None:
            print(to_json(record), flush=True)
    except UserError as error:
        say(f"error: {error}")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)


def say(text: str) -> None:
    """Tells people something: stderr, so that stdout stays one JSON document."""
    print(text, file=sys.stderr, flush=True)


def to_json(record: dict[str, Any]) -> str:
    """One line of strict JSON; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
