"""The processes of cells: crashes, kills and signals, GPUs, and what runs side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.waiting import until

from siamtransfer.distributed.signals import StopSignal
from siamtransfer.programs.suite import main
from siamtransfer.suites.cell import Cell
from siamtransfer.suites.cell_process import CellProcess, Job, Outcome
from siamtransfer.suites.progress import SuiteProgress
from siamtransfer.suites.run import prepare
from siamtransfer.suites.runner import Hands, Runner
from siamtransfer.utils.errors import ErrorAfterRecord

NETWORK = "random:resnet18:width=4:stem=small"


def _die(how: str) -> None:
    if how == "crash":
        raise ValueError("a defect")
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_signal(marker: str) -> None:
    Path(marker).write_text("began", encoding="utf-8")
    try:
        time.sleep(60)
    finally:
        Path(marker).write_text("cleaned up", encoding="utf-8")


def _visible(name: str) -> tuple[str, str | None, float, float]:
    began = time.monotonic()
    time.sleep(0.05)
    return name, os.environ.get("CUDA_VISIBLE_DEVICES"), began, time.monotonic()


def test_a_crash_or_a_kill_is_the_end_of_one_process(tmp_path: Path) -> None:
    log = tmp_path / "cell.log"
    crashed = CellProcess(Job(call=_die, argument="crash", log=str(log))).outcome()
    assert crashed == Outcome(1, "ValueError: a defect")
    assert "Traceback" in log.read_text(encoding="utf-8")
    killed = CellProcess(Job(call=_die, argument="kill")).outcome()
    assert killed.exit_status == -signal.SIGKILL
    assert "killed by SIGKILL: the machine may have run out of memory" in killed.message


@pytest.mark.fault
def test_a_log_that_cannot_be_written_fails_its_cell_in_a_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    log = tmp_path / "file" / "cell.log"
    outcome = CellProcess(Job(call=_die, argument="crash", log=str(log))).outcome()
    assert outcome.exit_status == 2
    assert outcome.message.startswith(f"cannot write {log}: ")
    assert "Traceback" not in capfd.readouterr().err


def _measure_untracked(record: str) -> None:
    Path(record).write_text('{"metrics": {"knn/k=3/T=0.07/top1": 50.0}}', encoding="utf-8")
    raise ErrorAfterRecord("mlflow did not take the record", {})


def test_an_error_after_the_record_fails_no_cell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "knn.json"
    outcome = CellProcess(Job(call=_measure_untracked, argument=str(record))).outcome()
    assert outcome == Outcome(0, "mlflow did not take the record")
    cell = cells_for_hands(tmp_path)[0]
    SuiteProgress([cell], hands=1).end(cell, outcome, seconds=2.0)
    said = capsys.readouterr().err
    assert "failed" not in said
    assert f"{cell.id} is measured, but mlflow did not take the record" in said


def test_a_stop_lets_a_program_clean_up(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    process = CellProcess(Job(call=_wait_for_signal, argument=str(marker)))
    until(lambda: marker.exists() and marker.read_text(encoding="utf-8") == "began")
    process.stop()
    assert process.outcome().exit_status == 128 + signal.SIGTERM
    assert marker.read_text(encoding="utf-8") == "cleaned up"


def test_a_cell_ends_with_a_suite_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from siamtransfer.suites import cell_process\n"
        "cell_process.PRELOADED.clear()\n"
        "if __name__ == '__main__':\n"
        "    process = cell_process.CellProcess(cell_process.Job(call=time.sleep, argument=60))\n"
        "    print(process._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "suite.py"
    script.write_text(code, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as suite:
        assert suite.stdout is not None
        cell = int(suite.stdout.readline())
        assert Path(f"/proc/{cell}").exists()
        suite.kill()
    until(lambda: not Path(f"/proc/{cell}").exists() or _is_zombie(cell))


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class _Fake(Hands):
    """Hands whose jobs say which GPU they see, instead of running the program."""

    def job(self, cell: Cell, command: tuple[str, ...], hand: int) -> Job:
        job = super().job(cell, command, hand)
        return Job(environment=job.environment, call=_visible, argument=cell.id)


def cells_for_hands(tmp_path: Path) -> list[Cell]:
    file = tmp_path / "hands.yaml"
    file.write_text(
        "sets: {a: {name: fashion-scenes}, b: {name: fashion-objects}}\n"
        "tasks: {knn: , linear: , fewshot: {alone: true}}",
        encoding="utf-8",
    )
    words = [f"x={NETWORK}", f"y={NETWORK}:seed=1", "--config", str(file), "--out", str(tmp_path / "out")]
    return prepare(main.parse(words)).cells


def test_groups_run_side_by_side_each_on_a_gpu_of_its_own(tmp_path: Path) -> None:
    outcomes: dict[str, Outcome] = {}
    with StopSignal() as stop:
        runner = Runner(
            _Fake(2, ("4", "7")),
            stop,
            lambda cell: cell.command,
            lambda cell, outcome, seconds: outcomes.update({cell.id: outcome}),
        )
        runner.run(cells_for_hands(tmp_path))
    seen = {name: outcome.value for name, outcome in outcomes.items()}
    assert len(seen) == 12
    groups = {name.partition("-")[0] for name in seen}
    for group in groups:  # a cell and what uses its features: one GPU, one after the other
        first, then = seen[f"{group}-knn"], seen[f"{group}-linear"]
        assert first[1] == then[1]
        assert first[1] in ("4", "7")
        assert first[3] <= then[2]
    assert {value[1] for name, value in seen.items() if "fewshot" not in name} == {"4", "7"}
    alone = [value for name, value in seen.items() if "fewshot" in name]
    assert {value[1] for value in alone} == {os.environ.get("CUDA_VISIBLE_DEVICES")}
    others = [value for value in seen.values() if value not in alone]
    assert max(value[3] for value in others) <= min(value[2] for value in alone)


def test_a_signal_ends_what_runs_and_nothing_begins_after_it(tmp_path: Path) -> None:
    marker, ended = tmp_path / "marker", []

    class Waiting(Hands):
        def job(self, cell: Cell, command: tuple[str, ...], hand: int) -> Job:
            return Job(call=_wait_for_signal, argument=str(marker))

    begun = []
    with StopSignal() as stop:

        def begin(cell: Cell) -> tuple[str, ...]:
            begun.append(cell.id)
            return cell.command

        def end(cell: Cell, outcome: Outcome, seconds: float) -> None:
            ended.append((cell.id, outcome.exit_status))

        sender = threading.Thread(target=_send_when_it_runs, args=(marker,))
        sender.start()
        Runner(Waiting(), stop, begin, end).run(cells_for_hands(tmp_path))
        sender.join()
    assert stop.exit_status == 128 + signal.SIGTERM
    assert begun == ["x/a-knn"]
    assert ended == [("x/a-knn", 128 + signal.SIGTERM)]
    assert marker.read_text(encoding="utf-8") == "cleaned up"


def _send_when_it_runs(marker: Path) -> None:
    until(marker.exists)
    os.kill(os.getpid(), signal.SIGTERM)
