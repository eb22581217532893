"""Runs and evaluators on images of four channels, of which the fourth alone shows the class."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import save
from support.small_runs import TINY

import siamtransfer
from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.data import open_images
from siamtransfer.data.channel_statistics import measure_channels
from siamtransfer.data.scenes.export import SceneCounts
from siamtransfer.data.scenes.hidden import HiddenScenes, write_channels
from siamtransfer.data.scenes.scenes import _render_one
from siamtransfer.programs.diagnose import main as diagnose
from siamtransfer.programs.features import main as features
from siamtransfer.programs.fewshot import main as fewshot
from siamtransfer.programs.gradients import main as gradients
from siamtransfer.programs.identify import describe
from siamtransfer.programs.identify import main as identify
from siamtransfer.programs.knn import main as knn
from siamtransfer.programs.linear import main as linear
from siamtransfer.programs.pretrain import main as pretrain
from siamtransfer.programs.segmentation import main as segmentation
from siamtransfer.programs.to_d2 import main as to_d2
from siamtransfer.utils.errors import UserError

Main = Any


def run(program: Main, *words: object) -> dict[str, Any]:
    record: dict[str, Any] = program([str(word) for word in words])
    return record


def refused(program: Main, *words: object) -> str:
    with pytest.raises(UserError) as caught:
        program([str(word) for word in words])
    return str(caught.value)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channels") / "scenes"
    write_channels(folder, SceneCounts(train=60, test=30, size=24))
    return folder


def images(folder: Path, channels: int = 4) -> list[str]:
    size = ["--data.size=null", "--data.count=null"]
    return ["--data.name=folder", f"--data.root={folder}", f"--data.channels={channels}", *size]


def training(folder: Path, run_folder: Path, channels: int = 4) -> list[str]:
    return [*TINY, *images(folder, channels), f"--run.dir={run_folder}", "--monitor.knn_every=1"]


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The checkpoint of a run, and its record."""
    folder = tmp_path_factory.mktemp("channels") / "run"
    record = run(pretrain, *training(scenes, folder), "--data.rgb=[0,1,2]", "--optim.epochs=2")
    return folder / "checkpoint.pth", record


def test_the_object_is_in_the_fourth_channel_alone():
    pixels = HiddenScenes("train", size=32, count=40).pixels.astype(int)
    _, background, mask, _ = _render_one("train", np.arange(40), 32, 0)
    assert np.array_equal(pixels[..., :3], background), "colours know nothing of the object"
    luminance = background.astype(int) @ [77, 150, 29] >> 8
    differs = pixels[..., 3] != luminance
    assert not differs[~mask].any() and differs[mask].mean() > 0.9


def test_the_written_files_hold_the_scenes(scenes):
    rendered = HiddenScenes("train", 24, 60)
    assert rendered.labels is not None
    files = sorted((scenes / "train").rglob("*.png"), key=lambda path: path.name)
    assert len(files) == 60
    for index, path in enumerate(files):
        assert path.parent.name == rendered.classes[rendered.labels[index]]
        with Image.open(path) as picture:
            assert picture.mode == "RGBA" and np.array_equal(np.array(picture), rendered.image(index))


def test_a_run_measures_and_keeps_the_normalisation_of_each_channel(scenes, trained):
    checkpoint, record = trained
    measured = measure_channels(open_images("folder", root=scenes, channels=4))
    read = read_backbone(checkpoint)
    assert read.architecture.in_channels == 4 and read.state["conv1.weight"].shape[1] == 4
    assert read.normalisation == (measured.mean, measured.std)
    transform = record["protocol"]["knn_transform"]
    assert tuple(transform["mean"]) == measured.mean and tuple(transform["std"]) == measured.std
    pixels = np.stack([open_images("folder", root=scenes, channels=4).image(i) for i in range(60)]) / 255
    assert np.allclose(measured.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-5)
    assert np.allclose(measured.std, pixels.std(axis=(0, 1, 2)), rtol=1e-5)
    assert "knn/k=20/T=0.07/top1" in record["metrics"]


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(scenes, trained, tmp_path):
    words = [*training(scenes, tmp_path / "run"), "--data.rgb=[0,1,2]", "--optim.epochs=2"]
    run(pretrain, *words)
    checkpoints = sorted((tmp_path / "run" / "checkpoints").glob("*"), key=lambda path: path.name)
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    assert len(checkpoints) >= 2
    last = max(checkpoints, key=lambda path: path.stat().st_mtime_ns)
    last.unlink()
    (tmp_path / "run" / "checkpoint.pth").unlink()
    run(pretrain, *words, "--resume")
    again, first = (read_backbone(path) for path in (tmp_path / "run" / "checkpoint.pth", trained[0]))
    assert again.digest == first.digest and again.normalisation == first.normalisation
    assert "data.rgb" in refused(
        pretrain, *training(scenes, tmp_path / "run"), "--resume", "--optim.epochs=2"
    )


def test_every_evaluator_takes_them_and_says_what_they_were(scenes, trained, tmp_path):
    checkpoint = trained[0]
    common = ["--device", "cpu", "--cache", tmp_path / "cache", "--data.workers", 0]
    few = ["--k", 5]
    own = run(knn, checkpoint, *common, *few)  # the images of the checkpoint's own record
    assert own["protocol"]["channels"] == 4 and own["provenance"]["architecture"]["in_channels"] == 4
    named = ["--data.name", "folder", "--data.root", scenes, "--data.channels", 4]
    assert run(knn, checkpoint, *common, *few, *named)["metrics"] == own["metrics"]
    assert run(linear, checkpoint, *common, "--protocol", "logistic")["metrics"]
    assert run(fewshot, checkpoint, *common, "--shots", 1, "--repeats", 3)["metrics"]
    assert run(features, checkpoint, *common, "--out", tmp_path / "f.npz") is not None
    assert run(diagnose, checkpoint, *common, "--images", 8, "--views", 2)["metrics"]
    assert run(gradients, checkpoint, "--batches", 1, "--device", "cpu")["metrics"]
    assert run(knn, "pixels", *common, *few, *named)["metrics"]
    assert run(knn, "random:resnet18:width=8:stem=small:channels=4", *common, *few, *named)["metrics"]
    assert run(identify, checkpoint)["provenance"]["architecture"]["in_channels"] == 4
    assert describe(read_backbone(checkpoint))["architecture"].endswith(", images of 4 channels")


def test_images_of_another_number_are_refused_before_any_is_computed(scenes, trained):
    checkpoint = trained[0]
    words = ["--data.name", "folder", "--data.root", scenes, "--device", "cpu", "--cache", "none"]
    sentence = refused(knn, checkpoint, *words)
    assert "takes images of 4 channels, and those of folder have 3: say --data.channels 4" in sentence
    assert "or a backbone that was pretrained with --data.channels 3" in sentence
    assert "have 3" in refused(linear, checkpoint, "--data.name", "fashion-scenes", "--data.count", 20)
    of_three = "random:resnet18:channels=3:width=8"
    sentence = refused(knn, of_three, *words, "--data.channels", 4)
    assert "and those of folder have 4" in sentence and "take random:resnet18:width=8:channels=4" in sentence
    assert "has 4 channels" in refused(knn, checkpoint, *words, "--data.channels", 13)


def test_weights_for_colours_start_a_run_by_a_stated_rule_only(scenes, tmp_path, capsys):
    state = build_backbone("resnet18", width=8, stem="imagenet").state_dict()
    weights = save(state, tmp_path)
    words = [*training(scenes, tmp_path / "run"), f"--backbone.weights={weights}", "--optim.epochs=1"]
    assert "--backbone.first-convolution repeat or colours" in refused(pretrain, *words)
    assert "--data.rgb" in refused(pretrain, *words, "--backbone.first_convolution=colours")
    record = run(pretrain, *words, "--backbone.first_convolution=repeat")
    assert record["protocol"]["config"]["backbone"]["first_convolution"] == "repeat"
    assert "repeated over 4 channels and scaled by 3 / 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.rgb=[0,1]"], "data.rgb"),
        (["--data.rgb=[0,1,7]"], "data.rgb"),
        (["--views.grey_p=0.5"], "views.grey_p asks for an operation on colours"),
        (["--views.mean=[0.5,0.5,0.5]", "--views.std=[0.5,0.5,0.5]"], "views.mean has 3 numbers"),
        (["--data.background=white", "--data.channels=4"], "for images of three channels"),
        (["--data.channels=13"], "has 4 channels"),
    ],
)
def test_mistakes_are_told_before_the_first_batch(scenes, tmp_path, options, words):
    assert words in refused(pretrain, *training(scenes, tmp_path / "run"), *options)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_grey_set_trains_in_one_channel(tmp_path):
    words = [
        *TINY,
        "--data.name=fashion-objects",
        "--data.channels=1",
        "--data.size=null",
        "--data.count=null",
    ]
    record = run(
        pretrain, *words, f"--run.dir={tmp_path / 'run'}", "--optim.epochs=1", "--optim.batch_size=512"
    )
    backbone, read = load_backbone(tmp_path / "run" / "checkpoint.pth")
    assert backbone.in_channels == 1 and len(read.normalisation.mean) == 1
    assert backbone(torch.zeros(1, 1, 16, 16)).shape == (1, backbone.dim) and record is not None


def test_patches_of_four_channels_are_probed(trained, tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "masks"):
            (tmp_path / "set" / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (48, 48, 4), np.uint8)
            mask = np.zeros((48, 48), np.uint8)
            mask[:, 24:], pixels[:, 24:, 3] = 1, 0  # the class is in the fourth channel
            Image.fromarray(pixels, "RGBA").save(tmp_path / "set" / "images" / split / f"{number}.png")
            Image.fromarray(mask).save(tmp_path / "set" / "masks" / split / f"{number}.png")
    (tmp_path / "set" / "classes.txt").write_text("left\nright\n")
    shown = ["--data.name", "masks", "--data.root", tmp_path / "set", "--size", 48, "--probe", "linear"]
    words = [*shown, "--device", "cpu"]
    of_layer = [*words, "--layers", "layer1"]
    record = run(segmentation, trained[0], *of_layer, "--data.channels", 4, "--pictures", tmp_path / "p.png")
    assert max(value for name, value in record["metrics"].items() if name == "linear/miou") > 90
    assert run(segmentation, "pixels", *words, "--data.channels", 4)["metrics"]
    assert "takes images of 4 channels, and these have 3" in refused(segmentation, trained[0], *of_layer)
    assert "has 4 channels" in refused(segmentation, trained[0], *of_layer, "--data.channels", 5)


def test_detectors_and_their_converter_refuse_them_in_a_sentence(trained, tmp_path):
    sentence = refused(to_d2, trained[0], tmp_path / "x.pkl")
    assert "images of 4 channels, and detectors take three" in sentence
    assert not list(tmp_path.iterdir())


def test_the_python_api_takes_arrays_of_channels(trained):
    pixels = HiddenScenes("test", 24, 12).pixels
    four = siamtransfer.data.from_array(pixels, np.arange(12) % 3, channels=4)
    features = siamtransfer.extract_features(trained[0], four, device="cpu")
    assert features.tensor.shape == (12, load_backbone(trained[0])[0].dim)
    with pytest.raises(UserError, match="normalised in 4 channels, and these have 3"):
        siamtransfer.extract_features(trained[0], pixels[..., :3].copy(), device="cpu")
    own = torch.nn.Sequential(torch.nn.Conv2d(4, 2, 24), torch.nn.Flatten())
    with pytest.raises(UserError, match="a normalisation of 4 numbers"):
        siamtransfer.extract_features(own, four, device="cpu")
    stated = siamtransfer.extract_features(own, four, device="cpu", normalisation="0.5,0.5,0.5,0.5/1,1,1,1")
    assert stated.tensor.shape == (12, 2)
