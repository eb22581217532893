"""`siamtransfer depth`: what it scores, writes, compares and refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamtransfer.evaluation.depth.train import _BinsTraining
from siamtransfer.programs.depth import main
from siamtransfer.records.comparison import compare
from siamtransfer.utils.errors import UserError

RESNET, VIT = "random:resnet18:width=8:stem=small", "random:timm:test_vit"
ROOMS = ["--data.name=depth-rooms", "--data.size=64", "--data.count=20", "--data.test-count=6"]
CPU = ["--device=cpu", "--precision=float32"]


def score(*words: str) -> dict[str, Any]:
    record: dict[str, Any] | None = main([*words, *CPU])
    assert record is not None
    return record


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of a ResNet on rooms with both probes."""
    folder = tmp_path_factory.mktemp("scored")
    words = [f"--record={folder / 'a.json'}", f"--pictures={folder / 'rooms.png'}", "--picture-count=2"]
    bins = ["--probe", "ridge", "bins", "--steps=20", "--batch-size=2", "--lr=0.03", "--upsample=2"]
    return folder, score(RESNET, *ROOMS, "--layers=layer4", "--target=depth", *words, *bins)


def test_a_probe_beats_the_mean_depth(scored: tuple[Path, dict[str, Any]]) -> None:
    metrics = scored[1]["metrics"]
    for measure in ("rmse", "abs_rel", "log10"):
        assert metrics[f"ridge/{measure}"] < metrics[f"mean-depth/{measure}"]
        for name in ("ridge", "bins", "mean-depth", "mean-map"):
            low, high = (metrics[f"{name}/{measure}/ci95_{end}"] for end in ("low", "high"))
            assert low < metrics[f"{name}/{measure}"] < high
    for name in ("ridge", "bins"):
        shares = [metrics[f"{name}/delta{power}"] for power in (1, 2, 3)]
        assert 0 < shares[0] <= shares[1] <= shares[2] <= 100
        assert metrics[f"{name}/rmse_pooled"] > metrics[f"{name}/rmse"]


def test_the_record_says_how_depth_was_measured(scored: tuple[Path, dict[str, Any]]) -> None:
    protocol = scored[1]["protocol"]
    assert protocol["input"]["side"] == 64 and protocol["input"]["resize"] == "shorter"
    assert protocol["depth_range"] == [1e-3, 10.0] and protocol["eval_crop"] == "none"
    assert protocol["scored_at"] == "original size of the depth maps"
    assert protocol["flip_test"] is True
    assert protocol["test_pixels_missing"] == pytest.approx(1 / 64)
    assert set(protocol["settings"]) == {"ridge", "bins"}
    assert protocol["settings"]["bins"]["steps"] == 20
    assert protocol["chosen_ridge"]["chosen_strength"] in protocol["settings"]["ridge"]["strengths"]


def test_the_picture_has_a_row_for_each_image(scored: tuple[Path, dict[str, Any]]) -> None:
    picture = np.asarray(Image.open(scored[0] / "rooms.png"))
    assert picture.shape[0] > 2 * 144 and picture.shape[1] > 4 * 144
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100


def test_compare_takes_two_backbones_image_by_image(tmp_path: Path) -> None:
    words = [*ROOMS, "--target=depth", "--strengths=0.01"]
    paths = [tmp_path / f"{name}.json" for name in "abc"]
    first = score(RESNET, *words, "--layers=layer4", f"--record={paths[0]}")
    second = score("pixels", *words, f"--record={paths[1]}")
    found = compare(paths[0], paths[1], setting="ridge/rmse")
    difference = found.differences["mean"]
    assert difference.first == pytest.approx(first["metrics"]["ridge/rmse"])
    assert difference.second == pytest.approx(second["metrics"]["ridge/rmse"])
    assert found.error and found.better == 0  # the colours of single patches say little of a room
    score("pixels", *words, "--max-depth=9", f"--record={paths[2]}")
    with pytest.raises(UserError, match="depth_range"):
        compare(paths[1], paths[2], setting="ridge/rmse")


def test_twice_is_the_same_and_a_vit_with_its_class_token_is_probed() -> None:
    words = [
        VIT,
        *ROOMS,
        "--data.count=8",
        "--data.test-count=3",
        "--probe",
        "bins",
        "ridge",
        "--steps=2",
        "--class-token",
    ]
    first, second = (score(*words, "--batch-size=3", "--size=160")["metrics"] for _ in range(2))
    assert first == second
    assert all(np.isfinite(value) for value in first.values())


def test_nyu_in_its_own_layout_and_size(tmp_path: Path) -> None:
    """Lists, 640 x 480 pixels, the crops of training and scoring; where it is redder it is farther."""
    ramp = np.linspace(1, 9, 640)[None] + np.zeros((480, 1))
    for split, base in (("train", "sync"), ("test", "official_splits/test")):
        lines = []
        for number in range(3):
            names = [f"attic_{number}/rgb_00001.png", f"attic_{number}/sync_depth_00001.png"]
            folder = tmp_path / base
            (folder / f"attic_{number}").mkdir(parents=True)
            image = np.full((480, 640, 3), 20 * number, np.uint8)
            image[..., 0] = (25 * ramp).astype(np.uint8)
            Image.fromarray(image).save(folder / names[0], compress_level=1)
            Image.fromarray((1000 * ramp).astype(np.uint16)).save(folder / names[1], compress_level=1)
            lines.append(" ".join(names) + " 518.8579\n")
        (tmp_path / f"nyudepthv2_{split}_files_with_gt.txt").write_text("".join(lines))
    words = ["pixels", f"--data.root={tmp_path}", "--size=96", "--target=depth", "--strengths=1e-6"]
    bins = ["--probe", "ridge", "bins", "--steps=1", "--batch-size=2", "--bins=8", "--upsample=1"]
    record = score(*words, *bins)
    assert record["metrics"]["ridge/rmse"] < 0.1 < record["metrics"]["mean-depth/rmse"]
    assert record["metrics"]["ridge/delta1"] > 99
    protocol = record["protocol"]
    assert (protocol["eval_crop"], protocol["test"]) == ("eigen", "nyu/test")
    assert protocol["settings"]["bins"]["train_crop"] == [416, 544]


def test_a_stopped_training_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of six steps that a signal stops in its third is that of a run without a stop."""
    words = [RESNET, *ROOMS, "--data.count=6", "--data.test-count=2", "--layers=layer3", "--no-flip-test"]
    words += ["--probe=bins", "--steps=6", "--batch-size=2", "--upsample=1", "--bins=16", "--lr=0.01"]
    whole = score(*words)["metrics"]
    kept, step = [*words, f"--run={tmp_path}"], _BinsTraining.step

    def stopping(self: _BinsTraining, number: int, batch: Any, exit_status: int | None) -> Any:
        return step(self, number, batch, 143 if number == 2 else exit_status)

    with monkeypatch.context() as patched:
        patched.setattr(_BinsTraining, "step", stopping)
        with pytest.raises(SystemExit):
            score(*kept)
    with pytest.raises(UserError, match="go on with --resume"):
        score(*kept)
    with pytest.raises(UserError, match=r"of another training: lr is 0\.01 there and 0\.02 now"):
        score(*kept, "--resume", "--lr=0.02")
    assert score(*kept, "--resume")["metrics"] == whole


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([RESNET], "--data.name"),
        (ROOMS, "give a checkpoint"),
        ([RESNET, *ROOMS, "--class-token"], "no class token"),
        (["pixels", *ROOMS, "--class-token"], "raw pixels have no class token"),
        ([RESNET, *ROOMS, "--eval-crop=eigen"], "640 x 480 pixels, and depth-rooms"),
        ([RESNET, *ROOMS, "--min-depth=11"], "below --max-depth"),
        ([RESNET, *ROOMS, "--max-depth=0.01"], "no depth of depth-rooms/train lies between"),
        ([RESNET, *ROOMS, "--memory-budget=0.0000001"], "does not hold 1 patches of 20 images"),
        ([RESNET, *ROOMS, "--data.test-split=train"], "is fitted on and scored"),
        ([RESNET, *ROOMS, "--probe=bins", "--crop", "80", "80"], "--crop 80 80 is larger than depth-rooms"),
        ([RESNET, *ROOMS, "--run=x"], "add --probe bins"),
        ([RESNET, *ROOMS, "--resume"], "--resume needs --run"),
        ([RESNET, *ROOMS, "--pictures=grid.jpg"], "must end in .png"),
        ([RESNET, "--data.name=depth-room"], "did you mean depth-rooms"),
        ([RESNET, *ROOMS, "--data.root=x"], "do not take it"),
        ([RESNET, *ROOMS[:2], "--data.count=1"], "train has one image"),
        ([RESNET, "--data.name=nyu"], "data.root: nyu needs it"),
        ([RESNET, "--data.root=tests"], "holds neither a list of the split train"),
    ],
)
def test_it_refuses_in_a_sentence(words: Sequence[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        score(*words)
