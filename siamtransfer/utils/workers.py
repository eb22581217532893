"""What every process that loads data does first, and what is said where one is lost."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from siamtransfer.utils.children import end_with_parent
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.signals import STOPPING

_POLL_SECONDS = 1.0
_IGNORED = tuple(number for number in STOPPING if number != signal.SIGTERM)
_LOST = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) "
    r"(?:is killed by signal: (?P<signal>[^.]+)|exited unexpectedly(?: with exit code (?P<status>\d+))?)"
)


def worker_init() -> Callable[[int], None]:
    """The `worker_init_fn` of a DataLoader that this thread is about to iterate over.

    A worker computes with one thread and ignores the signals that reach the whole process group: only the
    SIGTERM of the main process ends it, which multiprocessing sends at the end of a program that still has an
    iterator. It dies with the main process, also where that one is killed.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    return functools.partial(_begin, os.getpid(), in_main_thread)


@contextlib.contextmanager
def explained_workers(option: str | None) -> Iterator[None]:
    """Around a program that may have workers; `option` is the one that says how many.

    Raises:
        UserError: one of them was ended from outside; says what helps.
    """
    try:
        yield
    except RuntimeError as error:
        if (sentence := lost_worker(error, option)) is None:
            raise
        raise UserError(sentence) from error


def lost_worker(error: RuntimeError, option: str | None = None) -> str | None:
    """What to say of torch's error where a loader has lost a worker; None for other errors."""
    found = _LOST.search(str(error))
    if found is None:
        return None
    how = f"ended with status {found['status']}" if found["status"] else "was ended"
    if found["signal"] is not None:
        how = f"was ended by a signal ({found['signal'].strip()})"
    fewer = f"lower {option}, or " if option else ""
    return (
        f"a process that reads images {how}, by the system where memory ran out, or by hand: "
        f"{fewer}give the job more memory"
    )


def _begin(parent: int, in_main_thread: bool, _: int) -> None:
    import torch

    # A forked process has its parent's, who would take a worker's signals for its own.
    signal.set_wakeup_fd(-1)
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
        end_with_parent(signal.SIGKILL, parent)
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)
