"""Python commands without the seconds of `import torch`: forked from the server of small_runs.py.

A command gets its own folder, environment, arguments, stdout and stderr, and so do the Python commands that
it starts itself. Whether a program starts on its own, and what it imports, is for tests/cli/test_startup.py.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.small_runs import start_process


def run_python(
    *words: object, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """What `python WORDS…` does in the folder `cwd`: a script, `-m MODULE` or `-c CODE` with its arguments.

    Raises:
        AssertionError: it did not end within `timeout` seconds.
    """
    command = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = start_process(_begin, command, str(cwd), dict(env or os.environ), str(out), str(err))
        process.join(timeout)
        ended = process.exitcode is not None
        said = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (out, err)]
    assert ended, f"it did not end within {timeout} s; it said:\n{said[1]}"
    return subprocess.CompletedProcess(command, process.exitcode, *said)


class _WarmPopen(subprocess.Popen[Any]):
    """A process of this Python is a fork of the one that starts it; any other is started as ever."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *options: Any) -> None:
        _, _, cwd, env, _, _, shell, *rest = options
        if shell or isinstance(args, str) or args[0] != sys.executable:
            super()._execute_child(args, executable, preexec_fn, *options)  # type: ignore[misc]
            return
        pipes, new_session = rest[:6], rest[-2]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            for number in signal.valid_signals():
                if callable(signal.getsignal(number)):
                    signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            if new_session:
                os.setsid()
            if preexec_fn is not None:
                preexec_fn()
            for target, end in enumerate((pipes[0], pipes[3], pipes[5])):
                if end != -1:
                    os.dup2(end, target)
            for end in {*pipes} - {-1, 0, 1, 2}:
                os.close(end)
            os._exit(_python([str(word) for word in args[1:]], cwd, env))
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _begin(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        with Path(path).open("ab", 0) as file:
            os.dup2(file.fileno(), stream.fileno())
    multiprocessing.set_start_method("fork", force=True)  # for data loaders
    subprocess.Popen = _WarmPopen  # type: ignore[misc]
    os._exit(_python(words, cwd, env))


def _python(words: list[str], cwd: Any, env: Mapping[str, str] | None) -> int:
    """Runs a command in this process; returns its exit status."""
    if cwd is not None:
        os.chdir(cwd)
    if env is not None:
        os.environ.clear()
        os.environ.update(env)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    status = 0
    try:
        _run(words)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    gc.collect()  # files that nobody closed are written
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _run(words: list[str]) -> None:
    first, *others = words
    if first == "-m":
        sys.path.insert(0, "")
        sys.argv = others
        runpy.run_module(others[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *others[1:]]
        exec(compile(others[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        sys.argv = words
        runpy.run_path(first, run_name="__main__")
