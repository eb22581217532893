"""The signals that end a program, as a wish that its loop reads between steps."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from siamtransfer.utils.log import is_first_rank, say
from siamtransfer.utils.signals import INTERRUPTED, STOPPING, SecondInterrupt, Taken

__all__ = ["STOPPING", "StopSignal", "Stopped"]


class Stopped(SystemExit):
    """A signal came where nothing waits for the end of a step.

    Attributes:
        code: 128 and the signal's number.
    """

    code: int


class StopSignal:
    """Turns the signals of STOPPING into a wish that a loop reads between steps.

    A second Ctrl-C ends the process at once with status 130, whatever it is doing; the state of the last save
    is whole. Other signals that are repeated change nothing, so a save in progress is not cut short. A SIGHUP
    that is ignored, as below `nohup`, stays ignored. The previous handlers return on exit.

    Attributes:
        exit_status: None until a signal came, then 128 and its number: 143 (SIGTERM), 130 (Ctrl-C), 129
            (SIGHUP), 138 (SIGUSR1), 140 (SIGUSR2) or 152 (SIGXCPU).
        doing: what is done before the program ends, for the message of the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.exit_status: int | None = None
        self.doing = "finishing the work at hand"
        self._came = 0.0
        self._raises = False
        self._interrupts = SecondInterrupt()
        self._taken = Taken(self._note, self._answer)

    @property
    def seconds(self) -> float:
        """The seconds since the first signal."""
        return time.monotonic() - self._came if self.exit_status is not None else 0.0

    def __enter__(self) -> StopSignal:
        self._taken.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._taken.__exit__(*exc)

    @contextlib.contextmanager
    def at_once(self, when: bool = True) -> Iterator[None]:
        """Around work of which nothing is kept, such as the listing of images or a measurement: a signal that
        comes within it, or came before, ends it by an exception. It is for a process that is alone (`when`):
        ranks end together, after a step.

        Raises:
            Stopped: a signal came.
        """
        if not when:
            yield
            return
        self._raises = True
        try:
            self._raise()
            yield
        finally:
            self._raises = False

    def wait_for_steps(self) -> None:
        """Ends `at_once` from within: the work from now on is kept."""
        self._raises = False

    def _raise(self) -> None:
        if self._raises and self.exit_status is not None:
            self._raises = False
            raise Stopped(self.exit_status)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.exit_status is None:
            self._came = time.monotonic()
            self.exit_status = 128 + number
        self._raise()

    def _answer(self, number: int) -> None:
        """Acknowledges the first Ctrl-C, and ends the process on the second."""
        if number != signal.SIGINT:
            return
        first = self._interrupts.is_first(time.monotonic())
        if first is False:
            say("quitting at once; the state of the last save is whole")
            os._exit(INTERRUPTED)
        if first and is_first_rank():
            say(f"{self.doing}; press Ctrl-C again to quit at once")
