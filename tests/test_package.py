"""The wheel, in an empty environment outside the tree: programs, configurations, embedded data, types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.paths import CONFIGS, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tracked files, so that the checkout stays as it is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("siamtransfer", "configs"):
        (source / name).symlink_to(ROOT / name)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source],
        check=True, capture_output=True,
    )  # fmt: skip
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A virtual environment with the wheel; what it depends on is found where this process finds it."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True, capture_output=True,
    )  # fmt: skip
    script = next(site.glob("bin/siamtransfer"))
    text = script.read_text().replace(sys.executable, str(folder / "bin" / "python"))
    (folder / "bin" / "siamtransfer").write_text(text)
    (folder / "bin" / "siamtransfer").chmod(0o755)
    yield folder


def run(environment: Path, folder: Path, *words: object) -> dict[str, Any]:
    done = subprocess.run(
        [str(environment / "bin" / "siamtransfer"), *map(str, words)],
        cwd=folder, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout.startswith("{") else {}
    return record


def test_the_wheel_holds_everything_that_the_programs_need(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"siamtransfer/configs/{path.relative_to(CONFIGS)}" for path in CONFIGS.rglob("*.yaml")}
    assert configs <= names
    assert {"siamtransfer/py.typed", "siamtransfer/data/scenes/fashion_objects.npz"} <= names
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "siamtransfer").rglob("templates/**/*.*")}
    assert len(templates) > 20 and templates <= names
    assert not any(name.startswith(("tests/", "pretrain/", "eval/", "scripts/")) for name in names)
    (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "License-Expression: MIT" in text
    assert "Project-URL: Source" in text


@pytest.mark.slow
def test_pretrain_knn_and_to_d2_outside_the_tree(environment: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [environment / "bin" / "python", "-c", "import siamtransfer; print(siamtransfer.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(environment)
    trained = run(
        environment, tmp_path, "pretrain", "--config", "demo", "--data.count", 128, "--data.workers", 0,
        "--optim.epochs", 1, "--backbone.width", 8, "--monitor.knn-every", 0, "--run.dir", "run",
        "--hardware.device", "cpu",
    )  # fmt: skip
    assert trained["task"] == "pretrain"
    scored = run(environment, tmp_path, "knn", "run/checkpoint.pth", "--data.count", 200, "--k", 5)
    assert scored["metrics"]["knn/k=5/T=0.07/top1"] >= 0
    converted = run(environment, tmp_path, "to-d2", "run/checkpoint.pth", "out.pkl")
    assert converted["metrics"]["tensors"] > 0
    assert (tmp_path / "out.yaml").exists()
