"""Layered configuration files: read as Detectron2 reads them; broken ones end in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import paths

from siamtransfer.detection.layered_config import COMMAND_LINE, read_layered_config
from siamtransfer.utils.errors import UserError

CONFIGS = paths.CONFIGS / "detection"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_later_files_replace_earlier_ones_and_each_value_says_its_file(tmp_path: Path) -> None:
    base = "SOLVER:\n  BASE_LR: 0.1\n  STEPS: (10, 20)\nMODEL: {WEIGHTS: ''}\nVERSION: 2\n"
    written(tmp_path, "base.yaml", base)
    first = written(tmp_path, "one.yaml", "_BASE_: base.yaml\nSOLVER: {BASE_LR: 0.2}\n")
    second = written(tmp_path, "two.yaml", "DATASETS:\n  TRAIN: ('voc_2007_trainval',)\n")
    layered = read_layered_config([first, second], ["SOLVER.MAX_ITER", "7", "MODEL.DEVICE", "cpu"])
    assert {key: value for key, (value, _) in layered.items()} == {
        "SOLVER.BASE_LR": 0.2,
        "SOLVER.STEPS": (10, 20),
        "SOLVER.MAX_ITER": 7,
        "MODEL.WEIGHTS": "",
        "MODEL.DEVICE": "cpu",
        "DATASETS.TRAIN": ("voc_2007_trainval",),
    }
    assert layered["SOLVER.BASE_LR"].where == str(first)
    assert layered["SOLVER.STEPS"].where == str(tmp_path / "base.yaml")
    assert layered["SOLVER.MAX_ITER"].where == COMMAND_LINE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER: [", r"own\.yaml: this is no YAML"),
        ("- 1", r"own\.yaml holds no keys"),
        (
            "SOLVER: {BASE_LR: 0.1}\nSOLVER: {BASE_LR: 0.2}",
            r"own\.yaml: line 2: the key 'SOLVER' stands there twice",
        ),
        ("SOLVER:\n  BASE_LR: 0.1\n  BASE_LR: 0.2", "the key 'BASE_LR' stands there twice"),
        ("MODEL: {MASK_ON: no}", "no is ambiguous: write true or false"),
        ("SOLVER: {MAX_ITER: 010}", "010 is ambiguous"),
        ("_BASE_: [base.yaml]", "_BASE_ is .*, but must be the path of one file"),
        ("_BASE_: own.yaml", r"own\.yaml is its own _BASE_"),
        ("_BASE_: absent.yaml", r"absent\.yaml cannot be read: No such file"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_layered_config([written(tmp_path, "own.yaml", text)], [])


def test_a_key_without_a_value() -> None:
    with pytest.raises(UserError, match=r"the last, 'SOLVER\.STEPS', has no partner"):
        read_layered_config([], ["SOLVER.MAX_ITER", "7", "SOLVER.STEPS"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("voc07-c4-9k", (9000, (6750, 8250), 100, 20, False, ("voc_2007_trainval",), "voc_2007_test")),
        (
            "voc0712-c4-24k",
            (
                24000,
                (18000, 22000),
                100,
                20,
                False,
                ("voc_2007_trainval", "voc_2012_trainval"),
                "voc_2007_test",
            ),
        ),
        ("coco-c4-1x", (90000, (60000, 80000), None, 80, True, ("coco_2017_train",), "coco_2017_val")),
        ("coco-c4-2x", (180000, (120000, 160000), None, 80, True, ("coco_2017_train",), "coco_2017_val")),
        ("coco-fpn-1x", (90000, (60000, 80000), None, 80, True, ("coco_2017_train",), "coco_2017_val")),
        ("coco-fpn-2x", (180000, (120000, 160000), None, 80, True, ("coco_2017_train",), "coco_2017_val")),
    ],
)
def test_the_protocols_are_the_published_ones(name: str, expected: tuple) -> None:
    """MoCo's repository and papers; see each file's header."""
    values = {key: value for key, (value, _) in read_layered_config([CONFIGS / f"{name}.yaml"], []).items()}
    steps, drops, warm_up, classes, masks, train, test = expected
    assert (values["SOLVER.MAX_ITER"], values["SOLVER.STEPS"]) == (steps, drops)
    assert values.get("SOLVER.WARMUP_ITERS") == warm_up  # None: Detectron2's 1000
    assert (values["SOLVER.IMS_PER_BATCH"], values["SOLVER.BASE_LR"]) == (16, 0.02)
    assert (values["MODEL.ROI_HEADS.NUM_CLASSES"], values["MODEL.MASK_ON"]) == (classes, masks)
    assert (values["DATASETS.TRAIN"], values["DATASETS.TEST"]) == (train, (test,))
    assert values["TEST.PRECISE_BN.ENABLED"] is True
    assert values["MODEL.BACKBONE.FREEZE_AT"] == 0
    shortest = 480 if name.startswith("voc") else 640
    assert values["INPUT.MIN_SIZE_TRAIN"] == tuple(range(shortest, 801, 32))
    assert values["INPUT.MIN_SIZE_TEST"] == 800
    if "c4" in name:
        assert values["MODEL.ROI_HEADS.NAME"] == "Res5ROIHeadsExtraNorm"
        assert values["MODEL.RESNETS.NORM"] == "naiveSyncBN"
        assert (values["MODEL.RPN.PRE_NMS_TOPK_TEST"], values["MODEL.RPN.POST_NMS_TOPK_TEST"]) == (6000, 1000)
    else:
        assert values["MODEL.FPN.NORM"] == values["MODEL.RESNETS.NORM"] == "SyncBN"
