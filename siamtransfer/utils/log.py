"""Messages to the user, through the logger `siamtransfer`.

The programs print them to stderr, because stdout is the record. A notebook configures the logger as
usual.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from siamtransfer.utils.text import visible

LOGGER = logging.getLogger("siamtransfer")


def say(text: str) -> None:
    """Logs one message."""
    LOGGER.info(text)


def is_first_rank() -> bool:
    """Whether this process is alone, or the first of those that a launcher has started together: for what all
    of them would say before, or without, asking one another."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def unless_hung_up() -> Iterator[None]:
    """Around words for a terminal that may have been closed, a pipe without reader or a full disk: nobody
    reads them, and the work goes on."""
    with contextlib.suppress(OSError):
        yield


class _Stderr(logging.Handler):
    """Writes to the present sys.stderr, because tests and notebooks replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        with unless_hung_up():
            print(visible(self.format(record), keep="\n\t"), file=sys.stderr, flush=True)


def print_messages() -> None:
    """Prints all messages on stderr, as the programs do; a second call changes nothing."""
    if not any(isinstance(handler, _Stderr) for handler in LOGGER.handlers):
        LOGGER.addHandler(_Stderr())
        LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)
