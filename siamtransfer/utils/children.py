"""Commands that a program starts and waits for: signals reach them, and they do not outlive it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import types
from collections.abc import Sequence
from typing import Any

from siamtransfer.utils.log import say
from siamtransfer.utils.signals import heeded, why_killed

_PR_SET_PDEATHSIG = 1  # Linux: <sys/prctl.h>
_AS_SIGTERM = ("SIGUSR1", "SIGUSR2", "SIGXCPU")  # which torchrun does not know


def end_with_parent(number: int, parent: int) -> None:
    """Lets the kernel send this process the signal `number` when the thread that started it ends, which has
    to be the main thread of the process `parent`. Elsewhere than on Linux it does nothing."""
    if sys.platform != "linux":
        return
    _libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it has ended before the kernel was asked
        os.kill(os.getpid(), number)


def end_with_torchrun() -> None:
    """In a rank that torchrun has started: when torchrun is killed, the rank saves itself and ends."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent(signal.SIGTERM, os.getppid())


class Child:
    """A command that this process has started, inside the `with`; it is for the main thread.

    Signals go to the command, those that torchrun does not know as SIGTERM, and are not this process's own
    meanwhile. The command has a session of its own, so that a Ctrl-C of the terminal reaches it once: from
    here. Ctrl-Z halts the processes of that session, and `fg` lets them go on. The command gets SIGTERM when
    this process ends, however that ends.

    Args:
        options: those of subprocess.Popen.

    Attributes:
        process: the command's, inside the `with`.
        came: the signals, in their order.
    """

    process: subprocess.Popen[Any]

    def __init__(self, command: Sequence[str], **options: Any):
        self.command, self.options = command, options
        self.came: list[int] = []
        self._running = False
        self._before: dict[int, Any] = {}
        self._wakeup = -1

    def __enter__(self) -> Child:
        self._wakeup = signal.set_wakeup_fd(-1)  # a thread that ends this program on a signal learns of none
        for number in heeded():
            self._before[number] = signal.signal(number, self._hand_on)
        if hasattr(signal, "SIGTSTP") and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._halt)
        parent = os.getpid()
        _libc()  # loaded before the fork
        try:
            self.process = subprocess.Popen(
                self.command,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM, parent),
                **self.options,
            )
        except BaseException:
            self._return_signals()
            raise
        self._running = True
        for received in self.came:  # before there was a command
            self._send(received)
        return self

    def __exit__(self, *exc: object) -> None:
        """Waits for the command, gives the signals back, and says which signal has killed the command, if it
        was none that this process was sent."""
        try:
            self.process.__exit__(None, None, None)
        finally:
            self._return_signals()
        status = self.process.returncode
        if status < 0 and not self.came:
            say(f"the run was {why_killed(-status)}")

    @property
    def status(self) -> int:
        """The exit status when it has ended; 128 and the signal's number where one has killed it, as in a
        shell."""
        status: int = self.process.wait()
        return status if status >= 0 else 128 - status

    def _hand_on(self, number: int, frame: types.FrameType | None) -> None:
        self.came.append(number)
        if self._running:
            self._send(number)

    def _send(self, number: int) -> None:
        name = signal.Signals(number).name
        say(f"{name}: handed on to the run")
        self.process.send_signal(signal.SIGTERM if name in _AS_SIGTERM else number)

    def _halt(self, number: int, frame: types.FrameType | None) -> None:
        """Halts the command and this process, and lets the command go on when this process does."""
        if self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        if self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGCONT)

    def _return_signals(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)


def run_child(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Runs a command to its end, as a `Child`; the return code is its `status`."""
    with Child(command, **options) as child:
        out, err = child.process.communicate()
    return subprocess.CompletedProcess(command, child.status, out, err)


_LOADED: list[Any] = []


def _libc() -> Any:
    if not _LOADED:
        _LOADED.append(ctypes.CDLL(None))
    return _LOADED[0]
