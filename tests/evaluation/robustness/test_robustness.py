"""One head on many test sets: the same numbers as `linear` and `knn` give, classes by name, records a set."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.small_runs import on_ranks
from support.thorough import more

from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.config import EvaluationData
from siamtransfer.evaluation.robustness.config import RobustnessConfig
from siamtransfer.evaluation.robustness.corrupted_images import CorruptedImages
from siamtransfer.evaluation.robustness.evaluate import evaluate
from siamtransfer.evaluation.transform import transform_of_others
from siamtransfer.features.extract import Transform
from siamtransfer.programs.knn import main as knn
from siamtransfer.programs.linear import main as linear
from siamtransfer.programs.robustness import main as robustness
from siamtransfer.records.comparison import compare
from siamtransfer.records.predictions import Predictions, read_record
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError

SOURCE = "random:resnet18:width=8:stem=small"
COLOURS = {"blue": (40, 40, 170), "green": (40, 170, 40), "red": (170, 40, 40), "olive": (130, 130, 40)}
SMALL = ["--device=cpu", "--crop=24", "--resize=28", "--data.workers=0", "--cache=none"]
FIT = "--strengths=[0.1,1.0]"


def write_images(root: Path, parts: dict[str, int], classes: tuple[str, ...], seed: int) -> Path:
    """Colours with much noise, in folders of class folders; of each class so many images a part."""
    generator = np.random.default_rng(seed)
    for part, each in parts.items():
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                noise = generator.normal(COLOURS[name], 90, (28, 28, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(folder / f"{number:02}.png")
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`set` with train and test, `twin` with its test images, `two` with other images of two classes."""
    root = tmp_path_factory.mktemp("world")
    write_images(root / "set", {"train": 10, "test": 6}, tuple(COLOURS), 0)
    shutil.copytree(root / "set" / "test", root / "twin")
    write_images(root, {"two": 8}, ("green", "red"), 1)
    return root


def images(world: Path) -> list[str]:
    return ["--data.name=folder", f"--data.root={world / 'set'}", *SMALL]


def run(world: Path, *options: str, source: str = SOURCE) -> dict[str, Any]:
    fit = [] if "--head=knn" in options else [FIT]
    record = robustness([source, *images(world), *fit, *options])
    assert record is not None
    return record


TWO_CORRUPTIONS = ("--corruptions", "gaussian_noise", "contrast", "--severities", "1", "5")


@pytest.fixture(scope="module")
def measured(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of one run on all of these, with what it wrote under `folder`."""
    folder = tmp_path_factory.mktemp("records")
    sets = [f"twin={world / 'twin'}", f"two={world / 'two'}"]
    return run(world, *TWO_CORRUPTIONS, "--shifted", *sets, f"--record={folder / 'all.json'}") | {
        "folder": folder
    }


def test_the_head_is_that_of_the_linear_probe(world: Path, measured: dict[str, Any], tmp_path: Path) -> None:
    alone = linear([SOURCE, *images(world), FIT, f"--record={tmp_path / 'linear.json'}"])
    assert alone is not None
    for metric in ("top1", "mean_per_class", "ci95_low", "ci95_high"):
        assert measured["metrics"][f"robustness/clean/{metric}"] == alone["metrics"][f"linear/{metric}"]
    kept = read_record(measured["folder"] / "all.json").predictions
    theirs = read_record(tmp_path / "linear.json").predictions
    assert isinstance(kept, Predictions) and isinstance(theirs, Predictions)
    np.testing.assert_array_equal(kept.settings["clean"], theirs.settings["linear"])
    np.testing.assert_array_equal(kept.confidences["clean"], theirs.confidences["linear"])
    assert measured["protocol"]["chosen_strength"] == alone["protocol"]["chosen_strength"]


def test_the_vote_is_that_of_knn(world: Path, tmp_path: Path) -> None:
    head = ("--head=knn", "--k=7", "--absent-classes=masked", f"--record={tmp_path / 'vote.json'}")
    vote = run(world, *head, "--shifted", f"two={world / 'two'}")
    alone = knn([SOURCE, *images(world), "--k=7", f"--record={tmp_path / 'knn.json'}"])
    assert alone is not None
    assert vote["metrics"]["robustness/clean/top1"] == alone["metrics"]["knn/k=7/T=0.07/top1"]
    kept, theirs = (read_record(tmp_path / name).predictions for name in ("vote.json", "knn.json"))
    assert isinstance(kept, Predictions) and isinstance(theirs, Predictions)
    np.testing.assert_array_equal(kept.settings["clean"], theirs.settings["k=7/T=0.07"])
    np.testing.assert_allclose(kept.confidences["clean"], theirs.confidences["k=7/T=0.07"], atol=1e-6)
    two = read_record(tmp_path / "vote.two.json").predictions
    assert isinstance(two, Predictions)
    assert set(two.settings["two"]) <= {1, 3}  # green and red, of blue, green, olive and red


def test_equal_images_have_equal_numbers(measured: dict[str, Any]) -> None:
    metrics = measured["metrics"]
    assert metrics["robustness/twin/top1"] == metrics["robustness/clean/top1"]
    twin = read_record(measured["folder"] / "all.twin.json")
    assert twin.record["protocol"]["test"] == twin.record["protocol"]["measured_set"] == "twin"
    assert twin.record["provenance"]["test_fingerprint"] == measured["provenance"]["test_fingerprint"]
    assert (
        measured["provenance"]["shifted_fingerprint"]["twin"]
        == (twin.record["provenance"]["test_fingerprint"])
    )
    assert next(iter(twin.record["metrics"])) == "robustness/twin/top1"


def test_classes_are_found_by_name(measured: dict[str, Any], world: Path, tmp_path: Path) -> None:
    two = read_record(measured["folder"] / "all.two.json")
    assert isinstance(two.predictions, Predictions)
    assert two.predictions.labels.tolist() == [1] * 8 + [3] * 8
    assert "2 of the 4 classes have no image in two" in two.record["provenance"]["set_remarks"][0]
    assert two.record["protocol"]["absent_classes"] == "kept"
    out = f"--record={tmp_path / 'masked.json'}"
    masked = run(world, "--shifted", f"two={world / 'two'}", "--absent-classes=masked", out)
    kept = read_record(tmp_path / "masked.two.json").predictions
    assert isinstance(kept, Predictions)
    free, own = two.predictions.settings["two"], kept.settings["two"]
    assert set(own) <= {1, 3} and (own[np.isin(free, [1, 3])] == free[np.isin(free, [1, 3])]).all()
    assert masked["metrics"]["robustness/two/top1"] >= measured["metrics"]["robustness/two/top1"]


def test_corrupted_versions_are_held_against_the_clean_images(measured: dict[str, Any]) -> None:
    metrics = measured["metrics"]
    saved = read_record(measured["folder"] / "all.corrupted.json")
    kept = saved.predictions
    assert isinstance(kept, SampleValues)
    names = [f"corrupted/{name}/severity={s}" for name in ("gaussian_noise", "contrast") for s in (1, 5)]
    right = {name: kept.settings[f"{name}/top1"] for name in names}
    clean = metrics["robustness/clean/top1"]
    for name, values in right.items():
        assert metrics[f"robustness/{name}/top1"] == pytest.approx(100 * values.mean())
        assert metrics[f"robustness/{name}/drop"] == pytest.approx(clean - 100 * values.mean())
        low, high = (metrics[f"robustness/{name}/drop/ci95_{end}"] for end in ("low", "high"))
        assert low <= metrics[f"robustness/{name}/drop"] <= high
    share = np.mean(list(right.values()), axis=0)
    np.testing.assert_allclose(kept.settings["corrupted/mean/top1"], share)
    assert metrics["robustness/corrupted/mean/top1"] == pytest.approx(100 * share.mean())
    assert metrics["robustness/corrupted/mean/drop"] == pytest.approx(clean - 100 * share.mean())
    fifth = np.mean([right[names[1]].mean(), right[names[3]].mean()])
    assert metrics["robustness/corrupted/mean/severity=5/top1"] == pytest.approx(100 * fifth)
    contrast = np.mean([right[names[2]].mean(), right[names[3]].mean()])
    assert metrics["robustness/corrupted/contrast/mean/top1"] == pytest.approx(100 * contrast)
    assert measured["protocol"]["corruption_numbers"] == "of CIFAR-10-C"
    assert "shifted_fingerprint" not in saved.record["provenance"]


def test_backbones_are_compared_on_each_set(measured: dict[str, Any], world: Path, tmp_path: Path) -> None:
    out = f"--record={tmp_path / 'pixels.json'}"
    run(world, *TWO_CORRUPTIONS, "--shifted", f"two={world / 'two'}", out, source="pixels")
    for name, setting in (("two", "two"), ("corrupted", "corrupted/mean/top1")):
        paths = (measured["folder"] / f"all.{name}.json", tmp_path / f"pixels.{name}.json")
        values = [json.loads(path.read_text())["metrics"] for path in paths]
        metric = "robustness/two/top1" if name == "two" else "robustness/corrupted/mean/top1"
        main = next(iter(compare(*paths, setting=setting).differences.values()))
        assert main.value == pytest.approx(values[1][metric] - values[0][metric])


def test_the_seed_of_a_run_is_that_of_its_corruptions(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[Any] = []

    class Watched(CorruptedImages):
        def __init__(self, *given: Any):
            seeds.extend(given[4:])
            super().__init__(*given)

    monkeypatch.setattr("siamtransfer.evaluation.robustness.evaluate.CorruptedImages", Watched)
    run(world, "--corruptions=contrast", "--severities=1", "--seed=7", source="pixels")
    assert seeds == [7]


def test_chance_does_not_depend_on_batches_or_workers(world: Path, measured: dict[str, Any]) -> None:
    passes = ("--forward-batch-size=5", "--data.workers=2")
    again = run(world, "--corruptions=gaussian_noise", "--severities=5", *passes)
    name = "robustness/corrupted/gaussian_noise/severity=5/top1"
    assert again["metrics"][name] == measured["metrics"][name]


def numbers_of_rank(runtime: Runtime, root: str, head: str) -> dict[str, float] | None:
    """The numbers of one rank of several; None on all but the first."""
    of_head: dict[str, Any] = {"head": "knn", "k": 5} if head == "knn" else {"strengths": [0.1, 1.0]}
    config = RobustnessConfig(
        checkpoint=SOURCE,
        data=EvaluationData(name="folder", root=f"{root}/set", workers=0),
        shifted=[f"two={root}/two"],
        corruptions=["gaussian_noise"],
        severities=[5],
        **of_head,
        crop=24,
        resize=28,
        device="cpu",
        cache="none",
    )
    config.check()
    result = evaluate(config, runtime)
    return None if result is None else result.metrics


@pytest.mark.parametrize("head", ["linear", more("knn")])
def test_ranks_give_the_numbers_of_one_process(world: Path, head: str) -> None:
    first, second = on_ranks(numbers_of_rank, str(world), head)
    corrupted = ("--corruptions=gaussian_noise", "--severities=5")
    words = [f"--head={head}", *(["--k=5"] if head == "knn" else [])]
    alone = run(world, "--shifted", f"two={world / 'two'}", *corrupted, *words)
    assert second is None
    assert first == alone["metrics"]


def test_without_a_test_part_a_fifth_of_train_is_scored(world: Path, tmp_path: Path) -> None:
    root = ["--data.name=folder", f"--data.root={world / 'set' / 'train'}", *SMALL, FIT]
    ours = robustness([SOURCE, *root, "--corruptions=contrast", "--severities=1"])
    theirs = linear([SOURCE, *root])
    assert ours is not None and theirs is not None
    assert ours["metrics"]["robustness/clean/top1"] == theirs["metrics"]["linear/top1"]
    assert (ours["protocol"]["test"], ours["protocol"]["test_images"]) == ("20% of train", 8)


WRONG = {
    "corrupted=x": "is a name that the record uses",
    "two": "--shifted two names no folder: say --shifted two=FOLDER",
    "../x=y": "is not NAME=FOLDER",
    "cifar10=x": "is the name of a set with a layout of its own",
    "two=nowhere": "^--shifted two=nowhere: the folder .*nowhere does not .* in --shifted two=FOLDER$",
}


@pytest.mark.parametrize(("word", "sentence"), WRONG.items())
def test_wrong_sets_are_refused(world: Path, word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        robustness([SOURCE, *images(world), "--shifted", word])


def test_images_that_were_learned_are_no_test_set(world: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(world / "set" / "train")
    with pytest.raises(
        UserError, match=r"link: 40 of its 40 images are images of train, too .* were learned"
    ):
        robustness([SOURCE, *images(world), "--shifted", f"seen={tmp_path / 'link'}"])


def test_sets_with_other_classes_or_numbers_are_refused(world: Path, tmp_path: Path) -> None:
    write_images(tmp_path, {"set": 1}, ("red",), 2)
    (tmp_path / "set" / "red").rename(tmp_path / "set" / "pink")
    out = tmp_path / "out.json"
    with pytest.raises(
        UserError, match=r"other in .* has classes that are not among those of train \(pink\)"
    ):
        robustness([SOURCE, *images(world), "--shifted", f"other={tmp_path / 'set'}", f"--record={out}"])
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--corruptions", "frog"], r"--corruptions has no frog; did you mean fog\?"),
        (["--corruptions", "frost"], "photographs of frost"),
        (["--corruptions", "all", "fog"], "--corruptions all stands alone"),
        (["--corruptions", "fog", "fog"], "or one twice"),
        (["--corruptions", "none"], "nothing to measure but the test split"),
        (
            ["--absent-classes", "masked"],
            "--absent-classes is about the sets of --shifted, and none is named",
        ),
        (["--severities", "0"], "--severities are whole numbers from 1 to 5"),
        (["--severities", "2", "2"], "one severity twice"),
        (["--shifted", "a=x", "a=y"], "two sets a"),
        (["--crop", "16"], "corruptions are of images of at least 24 pixels a side"),
        (["--k", "0"], "--k is 0, but must be at least 1"),
        (["--k", "5"], "--k is of --head knn, and the head is linear: leave it out, or add --head knn"),
        (["--temperature", "1"], "--temperature is of --head knn"),
        (["--head", "knn", "--strengths", "1"], "--strengths is of --head linear, and the head is knn"),
        (["--head", "knn", "--standardise"], "--standardise is of --head linear"),
        (["--absent-classes", "kept"], "--absent-classes is about the sets of --shifted, and none is"),
        (["--cache-corrupted"], "--cache none keeps none: leave one out"),
        (["--shifted", "a=x", "--cache=x", "--cache-corrupted"], "and none are made: leave it out"),
        (["--shifted", "a=x", "--severities", "2"], "of corruptions and of imagenet-c, and neither is"),
    ],
)
def test_wrong_options_are_refused(world: Path, options: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        robustness([SOURCE, *images(world), *options])


def test_files_of_further_records_are_not_replaced(world: Path, tmp_path: Path) -> None:
    (tmp_path / "out.corrupted.json").write_text("mine")
    with pytest.raises(UserError, match=r"out.corrupted.json exists"):
        robustness([SOURCE, *images(world), f"--record={tmp_path / 'out.json'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["out.corrupted.json"]


def test_a_corrupted_set_is_told_from_others_by_its_fingerprint(world: Path) -> None:
    test = open_images("folder", root=world / "set", split="test")
    transform = Transform(24, 28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    sets = [
        CorruptedImages(test, transform, name, severity, seed)
        for name, severity, seed in (("fog", 1, 0), ("fog", 2, 0), ("snow", 1, 0), ("fog", 1, 1))
    ]
    assert len({images.content_fingerprint for images in sets}) == 4
    assert len({images.fingerprint for images in sets}) == 4
    same = CorruptedImages(test, Transform(24, 28, (0.0,) * 3, (1.0,) * 3), "fog", 1)
    assert same.content_fingerprint == sets[0].content_fingerprint  # the crop is the same
    np.testing.assert_array_equal(same.image(3), sets[0].image(3))
    assert sets[0].image(3).shape == (24, 24, 3)


def test_other_images_are_brought_to_the_size_of_train() -> None:
    """Where train has images of the crop's size, which are not resized, others are, or they would be cut."""
    small, usual = (Transform(24, resize, (0.5,) * 3, (0.5,) * 3) for resize in (None, 28))
    assert transform_of_others(small, None) == transform_of_others(small, 96) == replace(small, resize=24)
    assert transform_of_others(small, 24) == small
    assert transform_of_others(usual, None) == usual


def test_unreadable_images_of_a_further_set_are_left_out(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "two", tmp_path / "two")
    broken = tmp_path / "two" / "red" / "03.png"
    broken.write_bytes(broken.read_bytes()[:-60])
    word = f"two={tmp_path / 'two'}"
    with pytest.raises(UserError, match=r"03.png"):
        run(world, "--shifted", word)
    out = tmp_path / "out.json"
    run(world, "--shifted", word, "--data.unreadable=skip", "--data.max-unreadable=0.1", f"--record={out}")
    two = read_record(tmp_path / "out.two.json")
    assert two.record["protocol"]["test_images"] == 15
    assert two.record["protocol"]["unreadable"]["test"] == {"images": 1, "names": ["red/03.png"]}
    assert isinstance(two.predictions, Predictions)
    assert two.predictions.labels.tolist() == [1] * 8 + [3] * 7
