"""Messages to people. They go through the logger `siamtransfer`; the programs print it to stderr, so that
stdout stays one JSON document, and a notebook shows or hides it as it likes."""

from __future__ import annotations

import logging
import sys

LOGGER = logging.getLogger("siamtransfer")


def say(text: str) -> None:
    """One message."""
    LOGGER.info(text)


class _Stderr(logging.Handler):
    """Writes to what sys.stderr is at the time of the message, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def print_messages() -> None:
    """Prints all messages on stderr, as the programs do; a second call changes nothing."""
    if not any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Stderr())
        LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)
