"""A user's own script runs on the Detectron2 that get_detectron2.py leaves: set up, trained, scored, resumed.

python -m pytest tests/detection/detectron2/test_user_script.py
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.checkpoint_files import own_checkpoint, random_state

from siamtransfer.data.scenes.export import SceneCounts, write_coco, write_voc
from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.programs import to_d2

pytestmark = [
    pytest.mark.fault,
    pytest.mark.detectron2,
    pytest.mark.skipif(not is_installed(), reason="Detectron2 is not installed"),
]
SCRIPT = Path(__file__).with_name("user_script.py")
COUNTS = SceneCounts(train=4, test=2, size=64, seed=2)
SETTINGS = """
MODEL:
  DEVICE: cpu
  RPN: {PRE_NMS_TOPK_TRAIN: 60, PRE_NMS_TOPK_TEST: 30, POST_NMS_TOPK_TRAIN: 30, POST_NMS_TOPK_TEST: 8}
  ROI_HEADS: {NAME: NormedHeads, NUM_CLASSES: 10, BATCH_SIZE_PER_IMAGE: 4}
  RESNETS: {NORM: SyncBN}
DATASETS: {TRAIN: [scenes_coco_train], TEST: [scenes_coco_val]}
INPUT: {MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64}
DATALOADER: {NUM_WORKERS: 0}
TEST: {PRECISE_BN: {ENABLED: True, NUM_ITER: 1}}
SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 2, STEPS: [1]}
OUTPUT_DIR: out
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted weights, data in both layouts and the user's settings; what a training leaves comes to it."""
    folder = tmp_path_factory.mktemp("user")
    torch.save(own_checkpoint(random_state("resnet50", 8), "resnet50", 8, "imagenet"), folder / "c.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            convert, "is_installed", lambda: False
        )  # the proof is another test's, and takes seconds
        patch.chdir(folder)
        to_d2.main(["c.pth", "backbone.pkl"])
    write_coco(folder / "coco", COUNTS)
    write_voc(folder / "voc", COUNTS)
    (folder / "own.yaml").write_text("_BASE_: backbone.yaml\n" + SETTINGS)
    return folder


def run_script(folder: Path, *options: str) -> str:
    """What the script says; it has to end well, in a process that finds no module of this project's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--config-file", "own.yaml", "--num-gpus", "0", *options],
        cwd=folder,
        env=environment | {"MPLCONFIGDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return done.stdout + done.stderr


def test_it_is_set_up_trained_and_scored(folder: Path) -> None:
    said = run_script(folder)
    assert "Compiler" in said, "of the report of the environment"
    assert "Starting training from iteration 0" in said
    assert "Computing precise BN statistics" in said
    assert "Evaluating predictions with" in said
    assert re.search(r"copypaste: [\d.]+,[\d.]+,[\d.]+,", said)
    listed = said.partition("not found in the checkpoint:")[2].partition("The checkpoint state_dict")[0]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", listed)
    new = set(re.findall(r"(?:proposal_generator|roi_heads)\.[\w.]*\w", plain))
    assert "backbone." not in plain, "the whole trunk comes from the converted weights"
    assert {name for name in new if ".res5." in name} == {"roi_heads.res5.norm"}, "and so does res5"
    assert (folder / "out" / "model_final.pth").is_file()


@pytest.mark.thorough
@pytest.mark.parametrize("options", [("--eval-only", "--resume"), ("--resume", "SOLVER.MAX_ITER", "3")])
def test_it_goes_on_and_scores_alone(folder: Path, options: tuple[str, ...]) -> None:
    run_script(folder)
    said = run_script(folder, *options)
    assert "Loading from out/model_final.pth" in said
    assert ("Starting training from iteration 2" in said) == ("--eval-only" not in options)
    assert re.search(r"copypaste: [\d.]+,[\d.]+,[\d.]+,", said)


@pytest.mark.thorough
def test_voc_is_scored_by_its_own_evaluator(folder: Path) -> None:
    said = run_script(
        folder,
        *("DATASETS.TRAIN", "('scenes_voc_trainval',)", "DATASETS.TEST", "('scenes_voc_test',)"),
        *("OUTPUT_DIR", "out-voc"),
    )
    assert "using 2007 metric" in said
    assert re.search(r"copypaste: [\d.]+,[\d.]+,[\d.]+", said)
