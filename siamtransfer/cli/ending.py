"""How a program ends on a signal where no loop of its own takes it: by an exception, so that what it was
writing is removed."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from siamtransfer.utils.log import is_first_rank, say
from siamtransfer.utils.signals import INTERRUPTED, SecondInterrupt, Taken

PATIENCE_SECONDS = 0.3  # after which a Ctrl-C is acknowledged; most programs have ended before
ENDING_SECONDS = 10.0  # after which a program that is in a long call is ended without its consent


class EndedBySignal(SystemExit):
    """A signal ends the program; its code is 128 and the signal's number."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class EndOnSignal:
    """While a program runs, the signals of `utils.signals.STOPPING` raise `EndedBySignal` in the main thread.

    A long call (a collective, a solver) may hold the exception back: a thread ends the process after
    ENDING_SECONDS, or on a second Ctrl-C. Loops that save themselves take the signals instead
    (`distributed.signals.StopSignal`).
    """

    def __init__(self) -> None:
        self._came = False
        self._interrupts = SecondInterrupt()
        self._left = threading.Event()
        self._taken = Taken(self._end, self._answer)

    def __enter__(self) -> EndOnSignal:
        self._taken.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._left.set()
        self._taken.__exit__(*exc)

    def forgo(self) -> None:
        """Lets what is left, such as printing the record, come to its end, or to that of ENDING_SECONDS."""
        self._came = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        if not self._came:  # a repeated signal would cut short the removal of files
            self._came = True
            raise EndedBySignal(number)

    def _answer(self, number: int) -> None:
        first = self._interrupts.is_first(time.monotonic()) if number == signal.SIGINT else None
        if first is False:
            say("quitting at once")
            os._exit(INTERRUPTED)
        threading.Thread(target=self._hasten, args=(number, first), daemon=True).start()

    def _hasten(self, number: int, acknowledge: bool | None) -> None:
        """Ends the process where the main thread does not."""
        if acknowledge and not self._left.wait(PATIENCE_SECONDS) and is_first_rank():
            say("ending the work at hand; press Ctrl-C again to quit at once")
        if not self._left.wait(ENDING_SECONDS):
            say(f"the work at hand did not end within {ENDING_SECONDS:g} s of {signal.Signals(number).name}")
            os._exit(128 + number)
