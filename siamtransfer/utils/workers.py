"""What every process that loads data does first."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # Linux: <sys/prctl.h>
_POLL_SECONDS = 1.0
_IGNORED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


def worker_init() -> Callable[[int], None]:
    """The `worker_init_fn` of a DataLoader that this thread is about to iterate over.

    A worker computes with one thread and ignores the signals that reach the whole process group: only the
    SIGTERM of the main process ends it, which multiprocessing sends at the end of a program that still has an
    iterator. It dies with the main process, also where that one is killed.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    return functools.partial(_begin, os.getpid(), in_main_thread)


def _begin(parent: int, in_main_thread: bool, _: int) -> None:
    import torch

    signal.set_wakeup_fd(
        -1
    )  # a forked process has its parent's, who would take a worker's signals for its own
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    _heed_only(parent)
    _die_with(parent, in_main_thread)


def _heed_only(parent: int) -> None:
    """Lets SIGTERM end this process where `parent` sends it, and from nobody else.

    A handler of Python's does not learn who sent a signal, so a thread takes it from the queue of blocked
    ones. Systems without such a queue (macOS) keep torch's handler, which any SIGTERM ends.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads that start later block it too
    threading.Thread(target=_await_end, args=(parent,), daemon=True).start()


def _await_end(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _die_with(parent: int, in_main_thread: bool) -> None:
    """Ends this process when the process `parent` ends.

    Linux sends the signal when the thread that started this process ends, so it is asked only where that is
    the main thread; elsewhere, and on other systems, a thread looks for the parent every second. A process of
    a fork server has that server as its parent, which ends with the program.
    """
    if os.getppid() != parent:
        if multiprocessing.get_start_method(allow_none=True) == "forkserver":
            parent = os.getppid()
        else:
            os._exit(1)  # the parent has ended already
    if in_main_thread and sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
