"""eval/detection.py for semantic segmentation, from the command line to the record, with real Detectron2 on
the CPU, at tiny size."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_state

from siamtransfer.detection.detectron2 import convert
from siamtransfer.detection.detectron2.compat import is_installed
from siamtransfer.metrics.segmentation import PerImageCounts
from siamtransfer.programs import detection, to_d2
from siamtransfer.training.journal_rows import read_rows
from siamtransfer.utils.errors import UserError

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.skipif(
        not is_installed(), reason="Detectron2 is not installed: python scripts/get_detectron2.py"
    ),
]
TINY = [
    "SCENES.TRAIN", "6", "SCENES.TEST", "3", "SCENES.SIZE", "64",
    "DATALOADER.NUM_WORKERS", "0",
    "SOLVER.IMS_PER_BATCH", "2",
    "SOLVER.STEPS", "()",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16",
    "INPUT.MASKS.CROP", "(49, 49)",
]  # fmt: skip
SCENES = ["--train", "fashion-scenes", "--test", "fashion-scenes"]
MAINS = ["semantic/mIoU", "semantic/pixel_accuracy", "semantic/mean_accuracy"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow weights: a.pkl and b.pkl (ResNet-18), small.pkl (with the small stem), r50.pkl (ResNet-50)."""
    root = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "is_installed", lambda: False)  # the numerical proof has tests of its own
        for name, kind, stem, seed in (
            ("a", "resnet18", "imagenet", 0),
            ("b", "resnet18", "imagenet", 1),
            ("small", "resnet18", "small", 0),
            ("r50", "resnet50", "imagenet", 0),
        ):
            torch.save(random_state(kind, 8, stem, seed=seed), root / f"{name}.pth")
            to_d2.main([str(root / f"{name}.pth"), str(root / f"{name}.pkl")])
    return root


def measure(
    folder: Path, config: str, weights: str, run: Path, *more: str, steps: int = 2, data: list[str] = SCENES
) -> dict[str, Any]:
    arguments = ["--config", config, "--weights", str(folder / f"{weights}.pkl"), "--run", str(run), *data]
    record = detection.main([*arguments, *TINY, "SOLVER.MAX_ITER", str(steps), *more])
    assert record is not None
    return record


@pytest.mark.parametrize(
    ("config", "weights", "keys", "tensors"),
    [
        ("scenes-fcn", "a", (), 120),
        ("voc12-fcn16", "r50", (), 318),
        ("voc12-fcn-d8-20k", "r50", ("MODEL.SEM_SEG_HEAD.AUX_CONVS_DIM", "8"), 318),
        ("voc12-semantic-fpn", "small", ("MODEL.FPN.OUT_CHANNELS", "16", "MODEL.SEM_SEG_HEAD.NORM", ""), 120),
    ],
)
def test_trains_and_scores(
    folder: Path, tmp_path: Path, config: str, weights: str, keys: tuple[str, ...], tensors: int
) -> None:
    short = ("INPUT.MIN_SIZE_TEST", "48", "INPUT.MASKS.SHORT_SIDE", "48", "INPUT.MASKS.LONG_SIDE", "0")
    record = measure(folder, config, weights, tmp_path / "run", *keys, *(short if "d8" in config else ()))
    assert record["task"] == "semantic-segmentation"
    assert all(0 <= record["metrics"][name] <= 100 for name in MAINS)
    protocol = record["protocol"]
    assert protocol["settings"]["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] == 11
    assert protocol["data"]["test"]["images"] == 3
    trial = record["provenance"]["arms"][0]["trials"][0]
    assert trial["tensors_proved"] == tensors
    assert trial["mIoU_by_step"] == [[2, record["metrics"]["semantic/mIoU"]]]
    made = tmp_path / "run" / weights / "trial-0"
    with np.load(made / "counts.npz") as arrays:
        counts = PerImageCounts.from_arrays(arrays)
    assert len(counts) == 3
    assert counts.areas()[2].sum() == 3 * 64 * 64, "every pixel of the masks counts, at their own size"
    assert 100 * counts.scores().miou == record["metrics"]["semantic/mIoU"]
    low, high = (record["metrics"][f"semantic/mIoU/images_{end}"] for end in ("low", "high"))
    assert low <= high and protocol["interval"] == "resampled test images, 95 %"
    with Image.open(made / "predictions.png") as picture:
        assert picture.width > 3 * 64 and picture.height > 3 * 64
    losses = read_rows(made / "metrics.jsonl")[-2]
    assert ("loss_sem_seg_aux" in losses) == ("d8" in config)


def test_a_stopped_trial_goes_on_as_if_it_had_not_been(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in step 2 of 4: saved, status 143, and --resume ends in an undisturbed run's weights."""
    drop = ["MODEL.SEM_SEG_HEAD.DROPOUT", "0.3", "INPUT.MASKS.COLOUR", "True"]
    whole = measure(folder, "scenes-fcn", "a", tmp_path / "whole", *drop, steps=4)
    from detectron2.engine import SimpleTrainer

    real, steps = SimpleTrainer.run_step, list[int]()

    def run_step(self: Any) -> None:
        real(self)
        steps.append(len(steps))
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SimpleTrainer, "run_step", run_step)
    with pytest.raises(SystemExit) as stopped:
        measure(folder, "scenes-fcn", "a", tmp_path / "run", *drop, steps=4)
    assert (stopped.value.code, len(steps)) == (143, 2)
    resumed = measure(folder, "scenes-fcn", "a", tmp_path / "run", "--resume", *drop, steps=4)
    assert len(steps) == 4, "two steps were left"
    assert resumed["metrics"] == pytest.approx(whole["metrics"], nan_ok=True, abs=0)
    weights = [
        torch.load(tmp_path / name / "a" / "trial-0" / "model_final.pth", weights_only=True)["model"]
        for name in ("whole", "run")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    again = measure(folder, "scenes-fcn", "a", tmp_path / "run", "--eval-only", *drop, steps=4)
    assert again["metrics"] == pytest.approx(whole["metrics"], nan_ok=True, abs=0)


def test_trials_are_compared_and_rates_searched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--compare", str(folder / "b.pkl"), "--trials", "2", "--search", "--lrs", "0.001", "0.1"]
    record = measure(folder, "scenes-fcn", "a", tmp_path / "run", *options, "--held-out", "0.34", steps=1)
    metrics = record["metrics"]
    of_a, of_b = (
        [trial["metrics"]["semantic/mIoU"] for trial in arm["trials"]] for arm in record["provenance"]["arms"]
    )
    difference = np.mean(of_a) - np.mean(of_b)
    assert metrics["compare/semantic/mIoU/difference"] == pytest.approx(difference)
    assert "semantic/mIoU: a - b = " in capsys.readouterr().err
    assert record["protocol"]["chosen_on"].endswith("by semantic/mIoU")
    assert set(record["protocol"]["chosen"]) == {"a", "b"}
    assert not any("images_low" in name for name in metrics), "of several trainings the interval is over them"
    one = [str(folder / "b.pkl"), "--compare", str(folder / "b.pkl")]
    again = measure(folder, "scenes-fcn", "a", tmp_path / "same", "--weights", *one, steps=1)
    ends = [again["metrics"][f"compare/semantic/mIoU/images_{end}"] for end in ("low", "high")]
    assert ends == [0, 0], "the same weights, twice"


def write_own(root: Path, value: int = 2, size: int = 40) -> None:
    """Four images with masks of the classes 0 to `value`, and a class list of three."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for number in range(2):
            image = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
            mask = generator.integers(0, value + 1, (size, 56), dtype=np.uint8)
            mask[:4] = 255
            Image.fromarray(image).save(root / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{number}.png")
    (root / "classes.txt").write_text("ground\ncat\ndog\n")


def test_own_images_and_masks(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_own(own)
    data = ["--train", f"{own}:train", "--test", f"{own}:val"]
    keys = ["MASKS.CLASSES", str(own / "classes.txt")]
    record = measure(folder, "own-fcn16", "a", tmp_path / "run", *keys, data=data)
    assert record["protocol"]["data"]["classes"] == 3
    assert set(record["metrics"]) >= {"semantic/IoU/ground", "semantic/IoU/cat", "semantic/IoU/dog"}
    with np.load(tmp_path / "run" / "a" / "trial-0" / "counts.npz") as arrays:
        assert PerImageCounts.from_arrays(arrays).areas()[2].sum() == 2 * 36 * 56, "ignored rows do not count"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train", "somewhere"], "'somewhere' names no data with masks; .*FOLDER:SPLIT"),
        (
            ["--train", "voc2012:train"],
            "voc2012:train needs the folder that holds voc2012: name it by --root",
        ),
        (["--train", "voc2012:tain", "--root", "."], "voc2012 has no split 'tain'"),
        (["--train", "nowhere:train"], "nowhere"),
        (["--metric", "coco"], "--metric coco is of objects"),
        (["--engine", "detectron2", "MASKS.CLASS", "x"], r"MASKS\.CLASS; the section has CLASSES, IGNORE"),
        (["MODEL.RESNETS.RES4_DILATION", "3"], "take 1 and 1, 1 and 2 .* or 2 and 4"),
        (
            ["MODEL.SEM_SEG_HEAD.IN_FEATURES", "('res3',)"],
            r"the feature res3 and MODEL\.RESNETS\.OUT_FEATURES",
        ),
        (["INPUT.MASKS.SCALES", "(2.0, 0.5)"], r"INPUT\.MASKS\.SCALES is \(2\.0, 0\.5\)"),
        (["INPUT.MASKS.MOST_OF_ONE_CLASS", "0.0"], r"MOST_OF_ONE_CLASS is 0\.0"),
        (["INPUT.RANDOM_FLIP", "vertical"], r"INPUT\.RANDOM_FLIP is 'vertical'"),
        (
            ["SOLVER.LR_SCHEDULER_NAME", "PolyLR", "SOLVER.POLY_END_LR", "0.5"],
            r"POLY_END_LR 0\.5 is not between",
        ),
    ],
)
def test_refusals(folder: Path, tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(folder, "scenes-fcn", "a", tmp_path / "run", *options)
    assert not list((tmp_path / "run").rglob("result.json"))


def test_masks_above_the_class_list_and_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    for name, value, size, message in (("above", 3, 40, "value 3"), ("size", 2, 39, "39")):
        own = tmp_path / name
        write_own(own, value, size)
        data = ["--train", f"{own}:train", "--test", f"{own}:val"]
        with pytest.raises(UserError, match=message):
            measure(
                folder,
                "own-fcn16",
                "a",
                tmp_path / "run",
                "MASKS.CLASSES",
                str(own / "classes.txt"),
                data=data,
            )
    assert not (tmp_path / "run").exists()
