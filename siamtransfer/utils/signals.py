"""Which signals end a program, and a thread that learns of each at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""The signals that end a program, those of them that the system has. Schedulers announce a limit by SIGTERM,
SIGUSR1 or SIGUSR2, the kernel a used-up processor time (`ulimit -t`) by SIGXCPU."""
INTERRUPTED = 128 + signal.SIGINT
TWICE_SECONDS = 0.5  # torchrun hands on the Ctrl-C that the terminal has sent already: these are one

Handler = Callable[[int, FrameType | None], Any]


def heeded() -> tuple[signal.Signals, ...]:
    """Those of STOPPING that this process shall take: SIGHUP not where it is ignored, as below `nohup`."""
    hangup = getattr(signal, "SIGHUP", None)
    ignored = hangup is not None and signal.getsignal(hangup) == signal.SIG_IGN
    return tuple(number for number in STOPPING if not (ignored and number == hangup))


def why_killed(number: int) -> str:
    """What to say of a process that a signal has killed: its name, the usual cause and the cure."""
    name = signal.Signals(number).name
    if number == getattr(signal, "SIGKILL", None):
        return "killed by SIGKILL: the machine may have run out of memory; give the job more, or use less"
    if name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"):
        return (
            f"killed by {name}, in the native code of a library: PYTHONFAULTHANDLER=1 before the same "
            "command names the place, and docs/TROUBLESHOOTING.md what helps"
        )
    return f"killed by {name}"


class Taken:
    """Takes the signals `heeded()` by `handler`, and tells a thread of each; the earlier handlers return at
    the end. In another thread than the main one it does nothing, for Python forbids it.

    Args:
        handler: called in the main thread, between two steps of Python's interpreter.
        told: called in a thread of its own with the number of each signal, at once: also while the main
            thread is in a collective or another long call, where no handler of Python's is called.
    """

    def __init__(self, handler: Handler, told: Callable[[int], None]):
        self._handler, self._told = handler, told
        self._previous: dict[int, Any] = {}
        self._pipe: tuple[int, int] | None = None
        self._previous_pipe = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Taken:
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in heeded():
            self._previous[number] = signal.signal(number, self._handler)
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
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_pipe)
        os.close(self._pipe[1])  # ends the thread
        self._thread.join(1)
        self._pipe = None

    def _watch(self, pipe: int) -> None:
        with contextlib.closing(os.fdopen(pipe, "rb", buffering=0)) as numbers:
            while number := numbers.read(1):
                if number[0] in self._previous:
                    self._told(number[0])


class SecondInterrupt:
    """Tells a second Ctrl-C from the copies of the first one."""

    def __init__(self) -> None:
        self._first: float | None = None

    def is_first(self, now: float) -> bool | None:
        """Whether the Ctrl-C of the time `now` in seconds is the first; None for a copy of it."""
        if self._first is None:
            self._first = now
            return True
        return False if now - self._first > TWICE_SECONDS else None
