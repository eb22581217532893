"""The signals that end a program, as a wish that its loop reads between steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from types import FrameType

from siamtransfer.utils.log import say

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""The signals that save and stop, those of them that the system has."""
INTERRUPTED = 130
TWICE_SECONDS = 0.5  # torchrun hands on the Ctrl-C that the terminal has sent already: these are one


class StopSignal:
    """Turns SIGTERM, Ctrl-C, SIGHUP and SIGUSR1 into a wish that the training loop reads between steps.

    A second Ctrl-C ends the process at once with status 130, whatever it is doing; the state of the last save
    is whole. Other signals that are repeated change nothing, so a save in progress is not cut short. The
    previous handlers return on exit.

    Attributes:
        exit_status: None until a signal came, then 128 and its number: 143 (SIGTERM), 130 (Ctrl-C), 129
            (SIGHUP) or 138 (SIGUSR1).
        doing: what is done before the program ends, for the message of the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.exit_status: int | None = None
        self.doing = "finishing the work at hand"
        self._came = 0.0
        self._previous: dict[int, object] = {}
        self._pipe: tuple[int, int] | None = None
        self._previous_pipe = -1
        self._thread: threading.Thread | None = None

    @property
    def seconds(self) -> float:
        """The seconds since the first signal."""
        return time.monotonic() - self._came if self.exit_status is not None else 0.0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.exit_status is None:
            self._came = time.monotonic()
            self.exit_status = 128 + number

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                self._previous[number] = signal.signal(number, self._note)
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_inheritable(end, False)
            os.set_blocking(self._pipe[1], False)
            self._previous_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pipe is None or self._thread is None:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_pipe)
        os.close(self._pipe[1])  # ends the thread
        self._thread.join(1)
        self._pipe = None

    def _watch(self, pipe: int) -> None:
        """Reads the number of every signal at once, also while the main thread is in a collective, where no
        handler of Python's is called."""
        first = None
        with contextlib.closing(os.fdopen(pipe, "rb", buffering=0)) as numbers:
            while number := numbers.read(1):
                if number[0] != signal.SIGINT:
                    continue
                now = time.monotonic()
                if first is not None and now - first > TWICE_SECONDS:
                    say("quitting at once; the state of the last save is whole")
                    os._exit(INTERRUPTED)
                if first is None:
                    first = now
                    if os.environ.get("RANK", "0") == "0":
                        say(f"{self.doing}; press Ctrl-C again to quit at once")
