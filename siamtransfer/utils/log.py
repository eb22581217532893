"""Messages to the user, through the logger `siamtransfer`.

The programs print them to stderr, because stdout is the record. A notebook configures the logger as
usual.
"""

from __future__ import annotations

import logging
import sys

LOGGER = logging.getLogger("siamtransfer")


def say(text: str) -> None:
    """Logs one message."""
    LOGGER.info(text)


class _Stderr(logging.Handler):
    """Writes to the present sys.stderr, because tests and notebooks replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def print_messages() -> None:
    """Prints all messages on stderr, as the programs do; a second call changes nothing."""
    if not any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Stderr())
        LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)
