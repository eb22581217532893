"""Fault 10: images that were added, removed, renamed or edited between two parts of a run stop the second."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.small_runs import TINY, images_of, launch, steps_kept, stop_at

from siamtransfer.programs.pretrain import main
from siamtransfer.utils.errors import UserError


@pytest.fixture(scope="module")
def stopped(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "run"
    assert launch(folder, *images_of(shapes_folder), fault=stop_at(1)).wait() == 143
    return folder


def added(root: Path) -> None:
    shutil.copy(root / "upper" / "00.png", root / "upper" / "new.png")


def removed(root: Path) -> None:
    (root / "left" / "07.png").unlink()


def renamed(root: Path) -> None:
    (root / "left" / "07.png").rename(root / "left" / "7.png")


def edited(root: Path) -> None:
    with (root / "left" / "07.png").open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (added, "40 then and 41 now"),
        (removed, "40 then and 39 now"),
        (renamed, "40 as before, but"),
        (edited, "40 as before, but"),
    ],
)
def test_fault_10_other_images_than_before(
    change: Callable[[Path], None], counts: str, stopped: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    shutil.copytree(shapes_folder, root)
    change(root)
    with pytest.raises(UserError, match=counts):
        main([*TINY, f"--run.dir={stopped}", *images_of(root), "--resume"])
    assert steps_kept(stopped) == [2]


def test_fault_10_the_same_images_at_another_place_go_on(
    stopped: Path, shapes_folder: Path, tmp_path: Path
) -> None:
    root, run = tmp_path / "images", tmp_path / "run"
    shutil.copytree(shapes_folder, root)
    shutil.copytree(stopped, run)
    assert main([*TINY, f"--run.dir={run}", *images_of(root), "--resume"]) is not None
