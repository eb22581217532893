"""`siamtransfer doctor` without a GPU: what it says of packages, drivers and limits that do not fit."""

from __future__ import annotations

import json
import resource
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch

from siamtransfer.detection.detectron2.compat import import_detectron2
from siamtransfer.doctor import environment, machine
from siamtransfer.doctor.config import DoctorConfig
from siamtransfer.doctor.findings import Finding
from siamtransfer.doctor.workbench import Workbench
from siamtransfer.programs.doctor import main
from siamtransfer.utils.errors import UserError

Usage = namedtuple("Usage", "total used free")
GIB = 2**30
BENCH = Workbench(DoctorConfig(), torch.device("cpu"), tiny=True)


def status_of(work: Callable[[Workbench], Iterable[Finding]], bench: Workbench = BENCH) -> dict[str, str]:
    return {found.name: found.status for found in work(bench)}


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, *, present: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)


def test_this_machine_passes_and_the_record_is_written(tmp_path: Path) -> None:
    record = main(["--out", str(tmp_path / "out.json"), "--runs", str(tmp_path / "runs")])
    assert record is not None
    found = record["provenance"]["findings"]
    assert {"python", "torchvision", "cuda", "memory_GiB", "open_files", "disk/free_GiB"} <= set(found)
    assert found["version/torch"]["value"] == torch.__version__.split("+")[0] or torch.__version__
    assert not (tmp_path / "runs").exists(), "checking a folder does not make it"
    assert json.loads((tmp_path / "out.json").read_text())["metrics"] == record["metrics"]
    assert not any(name.startswith(("painting", "parity", "speed")) for name in found)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gpu", "--cpu"], "exclude each other"),
        (["--only", "memry"], "the checks are versions, .*memory"),
        (["--only", "painting"], "add --gpu, or --cpu"),
        (["--budget", "0"], "budget"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        main(words)


def test_gpu_without_one_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, present=False)
    with pytest.raises(UserError, match="torch finds no GPU"):
        main(["--gpu", "--only", "memory"])


def test_a_failure_ends_with_status_1_and_the_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(GIB, GIB, 0))
    with pytest.raises(SystemExit) as end:
        main(["--only", "disk"])
    assert end.value.code == 1
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert record["provenance"]["counts"] == {"PASS": 1, "FAIL": 1}
    assert "free some" in record["provenance"]["findings"]["disk/free_GiB"]["text"]


@pytest.mark.parametrize(
    ("driver", "built", "usable", "expected"),
    [
        (None, None, False, {"cuda": "INFO"}),
        (None, "13.0", False, {"cuda": "INFO"}),
        ((12, 4), None, False, {"cuda": "FAIL"}),
        ((12, 4), "13.0", False, {"cuda/driver": "FAIL"}),
        ((13, 0), "12.6", True, {"cuda/driver": "PASS", "cuda/usable": "PASS"}),
        ((12, 4), "12.6", False, {"cuda/driver": "PASS", "cuda/usable": "FAIL"}),
    ],
)
def test_the_drivers_cuda_has_to_be_as_new_as_torchs(
    driver: tuple[int, int] | None,
    built: str | None,
    usable: bool,
    expected: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environment, "driver_cuda", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", built)
    pretend_gpu(monkeypatch, present=usable)
    assert status_of(environment.check_cuda) == expected


@pytest.mark.parametrize(
    ("packages", "gpu", "expected"),
    [
        ({"faiss-cpu": "1.9"}, False, {"faiss/for_this_machine": "PASS"}),
        ({"faiss-cpu": "1.9"}, True, {"faiss/for_this_machine": "WARN"}),
        ({"faiss-gpu": "1.14"}, False, {"faiss/for_this_machine": "WARN"}),
        (
            {"faiss-cpu": "1.9", "faiss-gpu": "1.14"},
            False,
            {"faiss/one": "FAIL", "faiss/for_this_machine": "WARN"},
        ),
    ],
)
def test_faiss_is_one_and_for_what_the_machine_has(
    packages: dict[str, str], gpu: bool, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(environment, "faiss_packages", lambda: packages)
    pretend_gpu(monkeypatch, present=gpu)
    assert status_of(environment.check_faiss).items() >= expected.items()


def test_faiss_and_torch_have_one_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy", "nvidia-cublas-cu12>=12.1"]
    monkeypatch.setattr(environment, "requirements", lambda package: needs)
    assert environment.cuda_of_package("faiss-gpu") == "12"
    for built, status in (("12.6", "PASS"), ("13.0", "WARN")):
        monkeypatch.setattr(torch.version, "cuda", built)
        found = list(environment.faiss_and_torch("faiss-gpu", 1))
        assert [(each.name, each.status) for each in found] == [
            ("faiss/gpus", "PASS"),
            ("faiss/cuda", status),
        ]
    assert next(each.status for each in environment.faiss_and_torch("faiss-gpu", 0)) == "FAIL"
    needs[:] = ["numpy"]
    assert environment.cuda_of_package("faiss-gpu") is None
    assert environment.cuda_of_package("faiss-gpu-cu13") == "13"


def test_torchvision_of_another_torch_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_of(environment.check_torchvision) == {"torchvision": "PASS"}
    monkeypatch.setattr(environment, "requirements", lambda package: ["numpy", "torch (==2.5.1)"])
    assert status_of(environment.check_torchvision) == {"torchvision": "FAIL"}


@pytest.mark.parametrize(
    ("size", "gpu", "status"),
    [(0.0625, True, "FAIL"), (0.0625, False, "WARN"), (1, True, "WARN"), (8, True, "PASS")],
)
def test_dockers_64_mib_of_shared_memory_are_too_few(
    size: float, gpu: bool, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(int(size * GIB), 0, int(size * GIB)))
    pretend_gpu(monkeypatch, present=gpu)
    (found,) = machine.check_shared_memory(BENCH)
    assert found.status == status
    assert ("--shm-size" in found.text) == (status != "PASS")


@pytest.mark.parametrize(
    ("soft", "status"), [(1024, "WARN"), (65536, "PASS"), (resource.RLIM_INFINITY, "PASS")]
)
def test_the_limit_of_open_files(soft: int, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, resource.RLIM_INFINITY))
    assert status_of(machine.check_open_files) == {"open_files": status}


def test_a_containers_limits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert (machine.cgroup_cores(), machine.cgroup_memory()) == (None, None)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (machine.cgroup_cores(), machine.cgroup_memory()) == (None, None)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2 * GIB}\n")
    assert (machine.cgroup_cores(), machine.cgroup_memory()) == (0.5, 2)
    assert status_of(machine.check_memory) == {"memory_GiB": "WARN"}
    assert status_of(machine.check_cores) == {"cores": "INFO", "cores/quota": "WARN"}


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Workbench(DoctorConfig(runs=str(tmp_path / "file" / "runs")), torch.device("cpu"), tiny=True)
    assert status_of(machine.check_disk, bench) == {"disk/writable": "FAIL"}


@pytest.mark.detectron2
def test_a_detectron2_that_this_process_has_imported_already_loads_too() -> None:
    import_detectron2()  # without its compiled part it puts a module without a spec in its place

    (found,) = environment.check_detectron2(BENCH)

    assert found.status == "PASS"
    assert "loads" in found.text
