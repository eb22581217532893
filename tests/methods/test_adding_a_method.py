"""docs/adding-a-method.md, followed word for word: the file outside the package, its run, its checkpoint."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support import paths
from support.warm_python import run_python

pytestmark = pytest.mark.usefixtures("few_test_scenes")

PAGE = (paths.ROOT / "docs" / "adding-a-method.md").read_text(encoding="utf-8")
TINY = [
    "--data.count=40", "--data.workers=0", "--optim.epochs=2", "--optim.batch_size=20", "--backbone.width=8",
    "--monitor.knn_every=1", "--hardware.device=cpu", "--log.every=1", "--log.tensorboard=false",
]  # fmt: skip


def block(name: str) -> str:
    """The first code block after the file name `name` at the start of a line."""
    found = re.search(rf"^`{re.escape(name)}`[^\n]*\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the files of the page."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("alignment.py", "alignment.yaml", "test_alignment.py"):
        (folder / name).write_text(block(name), encoding="utf-8")
    return folder


def run(folder: Path, *words: str, status: int = 0) -> Any:
    """Runs Python in `folder`; returns the last line of the output, read as JSON where it is a record."""
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    process = run_python(*words, cwd=folder, env=environment)
    assert process.returncode == status, process.stdout + process.stderr
    if status:
        return process.stderr
    last = process.stdout.strip().splitlines()[-1]
    return json.loads(last) if last.startswith("{") else last


def test_the_test_of_the_page_passes(folder: Path) -> None:
    assert "2 passed" in run(folder, "-m", "pytest", "-q", "test_alignment.py", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    """The checkpoint of the page's command, with tiny settings."""
    record = run(folder, "alignment.py", "--config", "alignment.yaml", *TINY)
    assert record["task"] == "pretrain"
    return folder / "runs" / "alignment" / "checkpoint.pth"


def test_the_script_trains_and_resumes(folder: Path, checkpoint: Path) -> None:
    rows = [json.loads(line) for line in (checkpoint.parent / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in row for row in rows) == 4
    again = run(folder, "alignment.py", "--config", "alignment.yaml", *TINY, "--resume")
    assert again["task"] == "pretrain"
    settings = json.loads((checkpoint.parent / "config.json").read_text())
    assert settings["alignment"] == {"dim": 64, "uniformity": 1.0}
    assert settings["method"] == {"name": "alignment"}
    refused = run(
        folder, "alignment.py", "--config", "alignment.yaml", "--alignment.dim=0", "--run.dir=x", status=2
    )
    assert "alignment.dim is 0, but must be at least 1" in refused


def test_every_program_reads_the_checkpoint_of_a_method_whose_head_has_a_name_of_its_own(
    folder: Path, checkpoint: Path
) -> None:
    score = run(folder, "-m", "siamtransfer", "knn", str(checkpoint), "--device=cpu", "--cache=none", "--k=5")
    assert "knn/k=5/T=0.07/top1" in score["metrics"]
    converted = run(folder, "-m", "siamtransfer", "to-d2", str(checkpoint), "backbone.pkl")
    assert converted["protocol"]["proof"] == "passed"
    assert (folder / "backbone.pkl").exists()


def test_the_package_takes_the_same_file(folder: Path) -> None:
    """The file without its last lines, in a copy of the methods' folder, is found under its name."""
    code = f"""
import shutil, pathlib
from siamtransfer.methods import registry
folder = pathlib.Path({str(folder)!r}) / "methods_copy"
shutil.copytree(registry.FOLDER, folder)
text = pathlib.Path({str(folder / "alignment.py")!r}).read_text().replace(", pretrain\\n", "\\n")
(folder / "alignment.py").write_text(text.partition("\\n\\nif __name__")[0])
methods = registry.MethodRegistry(folder, "methods_copy")
assert list(methods)[-1] == "alignment"
assert methods["alignment"].Config().dim == 128
print("found")
"""
    assert run(folder, "-c", code) == "found"


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:siamtransfer|methods|tests|configs|evaluation)/[\w/.]+)`", PAGE)))
)
def test_the_files_that_the_page_names_are_there(path: str) -> None:
    homes = (paths.ROOT, paths.ROOT / "siamtransfer")
    assert any((home / path).exists() for home in homes)
