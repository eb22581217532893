"""`siamtransfer video` on videos of moving objects: numbers, files, comparison, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamtransfer.data.scenes.videos import VideoCounts, write_davis
from siamtransfer.metrics.video_objects import contour_accuracy, region_similarity
from siamtransfer.programs.video import main
from siamtransfer.records.comparison import compare
from siamtransfer.utils.errors import UserError

RESNET = "random:resnet18:width=8:stem=small"
CPU = ["--device=cpu", "--precision=float32"]
SMALL = ["--layers=layer2", "--size=64", "--long-multiple=8", *CPU]


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 6 frames of 64 x 64 pixels."""
    folder = tmp_path_factory.mktemp("davis") / "davis"
    write_davis(folder, VideoCounts(train=0, test=3, size=64, frames=6))
    return folder


@pytest.fixture(scope="module")
def run(davis: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the outputs and the record of a ResNet."""
    out = tmp_path_factory.mktemp("out")
    words = [f"--masks={out / 'masks'}", f"--pictures={out / 'a.png'}", f"--record={out / 'a.json'}"]
    record = main([RESNET, f"--data.root={davis}", *words, "--picture-count=2", *SMALL])
    assert record is not None
    return out, record


def test_the_record_says_what_was_measured(run: tuple[Path, dict[str, Any]]) -> None:
    out, record = run
    metrics, protocol = record["metrics"], record["protocol"]
    both = (metrics["J/mean"] + metrics["F/mean"]) / 2
    assert metrics["J-and-F/mean"] == pytest.approx(both)
    assert metrics["J-and-F/mean/ci95_low"] <= both <= metrics["J-and-F/mean/ci95_high"]
    assert 0 < both < metrics["ceiling/J-and-F/mean"] <= 100
    assert {name.rpartition("/")[2] for name in metrics if name.startswith("J/")} == {
        "mean",
        "recall",
        "decay",
    }
    assert (protocol["count"], protocol["neighbours"], protocol["neighbourhood"]) == (3, 5, 12)
    assert protocol["objects"] == len(record["provenance"]["objects"]) >= 3
    assert protocol["input"]["side"] == 64 and protocol["void"] == "background"
    assert json.loads((out / "a.json").read_text())["metrics"] == metrics
    assert np.asarray(Image.open(out / "a.png")).std() > 5


def test_the_masks_on_disk_have_the_scores_of_the_record(
    davis: Path, run: tuple[Path, dict[str, Any]]
) -> None:
    """Read and scored again as the official program does: without the first and the last frame."""
    out, record = run
    scores = []
    for name in ("test-000", "test-001", "test-002"):
        files = sorted((out / "masks" / name).iterdir())
        assert [file.name for file in files] == [f"0000{n}.png" for n in range(6)]
        assert Image.open(files[2]).mode == "P"
        found = np.stack([np.array(Image.open(file)) for file in files])
        truth = np.stack([np.array(Image.open(davis / "Annotations/480p" / name / f.name)) for f in files])
        assert np.array_equal(found[0], truth[0])
        for number in range(1, int(truth[0].max()) + 1):
            pairs = [(truth[t] == number, found[t] == number) for t in range(1, 5)]
            scores.append([(region_similarity(*pair), contour_accuracy(*pair)) for pair in pairs])
    means = 100 * np.array(scores).mean(axis=(0, 1))
    assert record["metrics"]["J/mean"] == pytest.approx(means[0])
    assert record["metrics"]["F/mean"] == pytest.approx(means[1])


def test_the_first_mask_left_where_it_is(davis: Path, run: tuple[Path, dict[str, Any]]) -> None:
    scores = []
    for name in ("test-000", "test-001", "test-002"):
        truth = [np.array(Image.open(davis / f"Annotations/480p/{name}/0000{n}.png")) for n in range(6)]
        for number in range(1, int(truth[0].max()) + 1):
            pairs = [(truth[t] == number, truth[0] == number) for t in range(1, 5)]
            scores.append(np.mean([region_similarity(*pair) for pair in pairs]))
    assert run[1]["metrics"]["still/J/mean"] == pytest.approx(100 * np.mean(scores))


def test_batches_change_rounding_alone_and_compare_pairs_objects_by_videos(
    davis: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    words = ["--forward-batch-size=1", "--no-bounds", f"--record={tmp_path / 'b.json'}"]
    record = main([RESNET, f"--data.root={davis}", *words, *SMALL])
    assert record is not None
    shared = {name: run[1]["metrics"][name] for name in record["metrics"]}
    assert record["metrics"] == pytest.approx(shared, abs=0.1)  # rounding moves single pixels
    assert not [name for name in record["metrics"] if name.startswith(("still", "ceiling"))]
    pixels = main(["pixels", f"--data.root={davis}", f"--record={tmp_path / 'c.json'}", *SMALL[1:]])
    assert pixels is not None
    found = compare(tmp_path / "b.json", tmp_path / "c.json", setting="J-and-F")
    difference = found.differences["mean"]
    assert difference.first == pytest.approx(record["metrics"]["J-and-F/mean"])
    assert difference.second == pytest.approx(pixels["metrics"]["J-and-F/mean"])
    assert difference.low <= difference.value <= difference.high


def test_other_videos_are_not_compared(davis: Path, run: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    words = ["--data.videos", "test-001", "test-002", f"--record={tmp_path / 'b.json'}", "--no-bounds"]
    assert main([RESNET, f"--data.root={davis}", *words, *SMALL])
    with pytest.raises(UserError, match="videos_fingerprint"):
        compare(run[0] / "a.json", tmp_path / "b.json", setting="J")


def test_a_still_video_reaches_the_ceiling(tmp_path: Path) -> None:
    """Every patch is its own nearest one, so what is lost is lost by the grid of patches alone."""
    write_davis(tmp_path / "davis", VideoCounts(train=0, test=2, size=64, frames=5, speed=0))
    record = main([RESNET, f"--data.root={tmp_path / 'davis'}", "--topk=1", *SMALL])
    assert record is not None
    metrics = record["metrics"]
    assert metrics["J-and-F/mean"] == metrics["ceiling/J-and-F/mean"] > 60
    assert metrics["still/J-and-F/mean"] == 100
    assert (metrics["J/decay"], metrics["F/decay"]) == (0, 0)


def write_video(root: Path, frames: list[np.ndarray], masks: list[np.ndarray]) -> None:
    """A video of PNG frames."""
    for kind, pictures in (("JPEGImages", frames), ("Annotations", masks)):
        folder = root / kind / "480p" / "moving"
        folder.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{number:05d}.png")
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("moving\n")


def test_an_object_that_moves_by_whole_patches_is_followed_exactly(tmp_path: Path) -> None:
    """Noise whose patches of 8 pixels move by one patch a frame; raw pixels find every patch again. The
    object is made of whole patches, and stays away from the border, where new patches appear."""
    draw = np.random.default_rng(0)
    picture = draw.integers(0, 256, (96, 160, 3), np.uint8)
    mask = np.zeros((96, 160), np.uint8)
    mask[24:56, 24:64], mask[40:72, 48:72] = 1, 2
    frames, masks = ([np.roll(each, 8 * t, axis=1) for t in range(8)] for each in (picture, mask))
    write_video(tmp_path, frames, masks)
    words = ["--size=96", "--long-multiple=8", "--neighbourhood=2", "--topk=1", "--context=3", *CPU]
    record = main(["pixels", f"--data.root={tmp_path}", *words])
    assert record is not None
    metrics = record["metrics"]
    assert metrics["J-and-F/mean"] == metrics["ceiling/J-and-F/mean"] > 95
    assert metrics["still/J-and-F/mean"] < 50
    lost = main(["pixels", f"--data.root={tmp_path}", *words, "--neighbourhood=0", "--topk=9"])
    assert lost is not None and lost["metrics"]["J-and-F/mean"] < metrics["J-and-F/mean"]
    assert not [name for name in metrics if "ci95" in name]  # one video has no interval


def test_a_damaged_frame_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "davis"
    write_davis(root, VideoCounts(train=0, test=1, size=32, frames=4))
    last = root / "JPEGImages/480p/test-000/00003.jpg"
    last.write_bytes(last.read_bytes()[:-200])
    words = [
        f"--masks={tmp_path / 'masks'}",
        f"--pictures={tmp_path / 'a.png'}",
        f"--record={tmp_path / 'a.json'}",
    ]
    with pytest.raises(UserError, match=r"00003\.jpg"):
        main([RESNET, f"--data.root={root}", *words, "--size=32", *CPU])
    assert [path.name for path in tmp_path.iterdir()] == ["davis"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data.root"),
        (["--data.root=nowhere"], r"nowhere/ImageSets/2017/val\.txt"),
        (["--data.root=x", "--topk=0"], "--topk is 0"),
        (["--data.root=x", "--neighbourhood=-1"], "--neighbourhood is -1"),
        (["--data.root=x", "--temperature=0"], "--temperature is 0"),
        (["--data.root=x", "--pictures=a.jpg"], r"must end in \.png"),
        (["--data.root=x", "--masks=README.md"], "is a file"),
        (["--data.root=x", "--masks=docs"], "is not empty"),
        (["--data.root=x", "--layers=layer9"], "layer9"),
    ],
)
def test_options_that_mean_nothing_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([RESNET, *words, *CPU])
