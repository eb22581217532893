"""The fork server of a suite: signals that reach it, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT
from support.waiting import until

from siamtransfer.utils.signals import STOPPING

pytestmark = pytest.mark.fault


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_signals_of_the_group_leave_the_fork_server_alone_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import pathlib, time; pathlib.Path('began').touch(); time.sleep(0.5)")
    code = (
        "import signal, sys, time\n"
        "from siamtransfer.suites import cell_process\n"
        "from siamtransfer.utils.signals import STOPPING\n"
        "cell_process.PRELOADED[1:] = ['slow']\n"
        "if __name__ == '__main__':\n"
        "    for number in STOPPING:\n"
        "        signal.signal(number, lambda number, frame: print(number, flush=True))\n"
        "    process = cell_process.CellProcess(cell_process.Job(call=time.sleep, argument=60))\n"
        "    process.stop()\n"
        "    sys.exit(process.outcome().exit_status)\n"
    )
    (tmp_path / "suite.py").write_text(code, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "suite.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    ) as suite:
        until((tmp_path / "began").exists)
        for number in STOPPING:
            os.killpg(suite.pid, number)
        out, err = suite.communicate(timeout=30)
    assert (suite.returncode, err) == (128 + signal.SIGTERM, "")
    assert sorted(map(int, out.split())) == sorted(STOPPING)


def test_a_killed_fork_server_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    code = (
        "import time\n"
        "from siamtransfer.suites import cell_process\n"
        "from siamtransfer.cli.entry import run\n"
        "cell_process.PRELOADED[1:] = ['killed']\n"
        "if __name__ == '__main__':\n"
        "    run(lambda: cell_process.CellProcess(cell_process.Job(call=time.sleep, argument=60)))\n"
    )
    (tmp_path / "suite.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [sys.executable, "suite.py"]
    suite = subprocess.run(
        words, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE, check=False
    )
    assert suite.returncode == 2
    assert "error: the process that starts the cells of a suite was ended" in suite.stderr
    assert "Traceback" not in suite.stderr
