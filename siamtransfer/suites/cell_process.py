"""The process in which a cell of a suite runs: a program by its command line, in a fork of a process that has
imported torch already.

multiprocessing's fork server imports the libraries once and forks for every cell. So a cell starts at once, a
crash ends one cell, and memory and its peak are the cell's own. The fork server computes nothing, so that no
thread of torch and no CUDA context is forked.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from siamtransfer.cli.ending import EndOnSignal
from siamtransfer.cli.entry import USER_ERROR
from siamtransfer.utils.disk_errors import cannot_write
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.signals import INTERRUPTED, STOPPING, why_killed

PRELOADED = [
    "siamtransfer.suites.fork_server",
    *(
        "torch",
        "torchvision",
        "torch.fx.experimental.symbolic_shapes",
        "sklearn.linear_model",
        "sklearn.cluster",
    ),
    *("jsonargparse", "jsonargparse.typing", "typeshed_client"),
    *("siamtransfer.cli.main", "siamtransfer.suites.cell_process", "siamtransfer.suites.open_sets"),
    *("siamtransfer.evaluation.evaluator", "siamtransfer.evaluation.frozen_model"),
    *(f"siamtransfer.evaluation.{name}.evaluate" for name in ("knn", "linear", "fewshot", "diagnostics")),
]
"""What the fork server imports, if it can; programs import the rest when they need it."""
CRASHED = 1
SUITE = "SIAMTRANSFER_SUITE"
"""The environment variable that tells the fork server the number of the suite's process."""


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        command: a program and its words; or empty, and `call` is made.
        log: the file that stdout and stderr go to.
        record: where the record is written if the program does not do it itself.
        environment: variables that are set.
        threads: of torch on the CPU; None: its own choice.
        call: a function of a module, and its argument, instead of a program.
    """

    command: tuple[str, ...] = ()
    log: str = os.devnull
    record: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    call: Callable[[Any], Any] | None = None
    argument: Any = None


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        exit_status: below 0: the signal that killed it.
        message: what went wrong; with status 0: after the record was complete. Else empty.
        value: what `Job.call` returned.
    """

    exit_status: int
    message: str = ""
    value: Any = None


class CellProcess:
    """A job in a process of its own, which ends when this process does, however that ends.

    Attributes:
        results: becomes ready when there is an outcome; for multiprocessing.connection.wait.

    Raises:
        UserError: the fork server was killed.
    """

    def __init__(self, job: Job):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.results, results = context.Pipe(duplex=False)
        alive, self._alive = context.Pipe(duplex=False)
        self._process: BaseProcess = context.Process(target=_run, args=(job, results, alive))
        multiprocessing.resource_tracker.ensure_running()  # which would let the signals through again
        with _held_back():
            os.environ[SUITE] = str(os.getpid())
            multiprocessing.forkserver.ensure_running()
            del os.environ[SUITE]
        try:
            self._process.start()
        except (EOFError, ConnectionError) as error:
            raise UserError(
                "the process that starts the cells of a suite was ended, by the system where memory ran out, "
                "or by hand: give the job more memory, and run the same command again, which goes on"
            ) from error
        results.close()
        alive.close()

    @property
    def sentinel(self) -> int:
        """Becomes ready when the process ends; for multiprocessing.connection.wait."""
        return self._process.sentinel

    def stop(self) -> None:
        """Asks the program to end what is under way."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the process and those that it has started, at once."""
        pid = self._process.pid
        if pid is not None and self._process.exitcode is None:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:  # before it leads a group of its own
                self._process.kill()

    def outcome(self) -> Outcome:
        """Waits for the end, and says what became of the job."""
        sent: Outcome | None = None
        with contextlib.suppress(EOFError):
            sent = self.results.recv()
        self._process.join()
        self._alive.close()
        self.results.close()
        status = self._process.exitcode
        assert status is not None
        if status < 0:
            return Outcome(status, f"the process was {why_killed(-status)}")
        return sent or Outcome(status or CRASHED, f"the process ended with status {status} and no word")


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Holds back the signals of STOPPING, for this thread and for what it starts meanwhile.

    A signal may reach the whole process group, as that of a terminal does, or of a scheduler. The fork server
    is started so: the signal is the suite's, which ends its cells, and the kernel ends the server with it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(job: Job, results: Connection, alive: Connection) -> None:
    """The whole life of the process."""
    os.setsid()  # a Ctrl-C of the terminal reaches the suite, which hands it on
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()
    try:
        _redirect(job.log)
    except OSError as error:
        results.send(Outcome(USER_ERROR, str(cannot_write(job.log, error))))
        results.close()
        sys.exit(USER_ERROR)
    os.environ.update(job.environment)
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    with EndOnSignal() as ending:
        outcome = _outcome_of(job)
        ending.forgo()
    results.send(outcome)
    results.close()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(outcome.exit_status)


def _outcome_of(job: Job) -> Outcome:
    from siamtransfer.utils.errors import ErrorAfterRecord
    from siamtransfer.utils.log import say

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # held back since the fork server's start
        return Outcome(0, value=_work(job))
    except ErrorAfterRecord as error:  # such as that of a tracker: nothing has to be measured again
        say(f"error: {error}")
        return Outcome(0, str(error))
    except UserError as error:
        say(f"error: {error}")
        return Outcome(USER_ERROR, str(error))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else USER_ERROR if stop.code else 0
        return Outcome(status, f"the program ended with status {status}")
    except KeyboardInterrupt:
        return Outcome(INTERRUPTED, "interrupted")
    except BaseException as error:  # whatever it is fails this cell alone
        traceback.print_exc()
        return Outcome(CRASHED, f"{type(error).__name__}: {error}")


def _work(job: Job) -> Any:
    if job.call is not None:
        return job.call(job.argument)
    from siamtransfer.cli.main import program
    from siamtransfer.records.predictions import publish
    from siamtransfer.utils.log import print_messages

    print_messages()
    sys.argv = ["siamtransfer", *job.command]  # which a record names as its command
    record = program(job.command[0])(job.command[1:])
    if job.record is not None and record is not None:
        publish(record, None, job.record)
    return None


def _redirect(log: str) -> None:
    """All output of the process and of those that it starts goes to the end of `log`."""
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.close(nothing)


def _end_with_parent(alive: Connection) -> None:
    """Ends the process and its own ones when the suite's process is gone, even by a kill."""
    try:
        alive.recv_bytes()
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)
