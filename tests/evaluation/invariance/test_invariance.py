"""The invariance evaluator on small sets: plain features at strength 0, networks that are invariant by their
make, the same numbers as kNN gives, ranks, and what is refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import write_parts
from support.small_runs import on_ranks
from support.thorough import more
from torch import Tensor, nn

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.frozen_model import open_frozen_model
from siamtransfer.evaluation.invariance.config import InvarianceConfig
from siamtransfer.evaluation.invariance.evaluate import evaluate
from siamtransfer.evaluation.invariance.follow import Vote, follow, read_crops
from siamtransfer.evaluation.invariance.strengths import SCALES
from siamtransfer.evaluation.invariance.subjects import Parts, Subject, draw_parts, open_subjects
from siamtransfer.features.extract import Features, extract, forward_of
from siamtransfer.programs.invariance import main as invariance
from siamtransfer.programs.knn import main as knn
from siamtransfer.records.comparison import compare
from siamtransfer.records.meanings import meaning_of
from siamtransfer.records.predictions import read_record
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError

SOURCE = "random:resnet18:width=8:stem=small"
ALONE = Runtime(torch.device("cpu"), torch.float32)
SMALL = ["--device=cpu", "--crop=16", "--resize=18", "--data.workers=0", "--cache=none", "--resamples=100"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of 40 training images and 20 test images of two classes."""
    root = tmp_path_factory.mktemp("parts")
    write_parts(root)
    return root


def run(parts: Path, *options: str, source: str = SOURCE) -> dict[str, Any]:
    record = invariance([source, "--data.name=folder", f"--data.root={parts}", *SMALL, *options])
    assert record is not None
    return json.loads(json.dumps(record))


def configuration(parts: Path, source: str = SOURCE, **options: Any) -> InvarianceConfig:
    config = InvarianceConfig(
        checkpoint=source, crop=16, resize=18, forward_batch_size=6, cache="none", device="cpu", **options
    )
    config.data.name, config.data.root, config.data.workers = "folder", str(parts), 0
    return config


@pytest.fixture(scope="module")
def measured(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of two transformations, with what was written under `folder`."""
    folder = tmp_path_factory.mktemp("records")
    record = run(
        parts,
        *("--transformations", "rotation=90,180", "grey"),
        *(f"--record={folder / 'a.json'}", f"--figure={folder / 'curves.png'}"),
        f"--examples={folder / 'examples.png'}",
        source=f"{SOURCE}:seed=1",
    )
    return record | {"folder": folder}


def test_strength_0_has_the_plain_features_to_the_bit(parts: Path) -> None:
    model = open_frozen_model(SOURCE, configuration(parts), ALONE)
    images = draw_parts(model, 0, 0, 0)
    subjects = open_subjects(model, images)
    assert [subject.name for subject in subjects] == ["", "pixels"]  # random is untrained itself
    crops = read_crops(model, images)
    for subject in subjects:
        computed = torch.cat([subject.forward(crops[begin : begin + 6]) for begin in range(0, 20, 6)])
        assert torch.equal(computed, subject.queries.tensor)
    followed = follow(
        crops, images.places, subjects, {"rotation": (360.0,)}, Vote(5, 0.07, ALONE), seed=0, batch=6
    )
    for one in followed:
        assert (one.distances["rotation", 360.0] == 0).all()
        assert (one.right["rotation", 360.0] == one.clean).all()


class MeanColour(nn.Module):
    """x[n, 3, S, S] -> the mean over all pixels, in float64, so that no order of the sum shows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double().mean(dim=(2, 3)) + 1


def test_a_network_that_is_invariant_by_its_make_does_not_move(parts: Path) -> None:
    model = open_frozen_model(SOURCE, configuration(parts), ALONE)
    images = draw_parts(model, 0, 0, 0)
    transform, network = model.transform, MeanColour()
    bank, queries = (
        Features(extract(network, each, transform, ALONE), torch.from_numpy(np.array(each.labels)))
        for each in (images.bank, images.queries)
    )
    subject = Subject("", bank, queries, forward_of(network, transform, ALONE))
    strengths = {name: scale.strengths for name, scale in SCALES.items()}
    (one,) = follow(
        read_crops(model, images), images.places, [subject], strengths, Vote(5, 0.07, ALONE), seed=0, batch=7
    )
    exact = {("rotation", 90), ("rotation", 180), ("horizontal_mirror", 1), ("vertical_mirror", 1)}
    for version in exact:
        assert (1 - one.distances[version] == 1).all()
        assert (one.right[version] == one.clean).all()
    moved = {version for version, distances in one.distances.items() if distances.max() > 1e-6}
    assert moved >= {("hue", 0.5), ("grey", 1), ("brightness", 0.8)} and not moved & exact


def test_the_vote_is_that_of_knn(parts: Path, measured: dict[str, Any]) -> None:
    alone = knn([f"{SOURCE}:seed=1", "--data.name=folder", f"--data.root={parts}", *SMALL[:-1], "--k=20"])
    assert alone is not None
    metrics = measured["metrics"]
    assert metrics["invariance/clean/top1"] == pytest.approx(alone["metrics"]["knn/k=20/T=0.07/top1"])
    assert metrics["baseline/pixels/invariance/clean/top1"] == pytest.approx(
        alone["metrics"]["baseline/pixels/knn/k=20/T=0.07/top1"]
    )


def test_the_record_names_everything(measured: dict[str, Any]) -> None:
    metrics, protocol = measured["metrics"], measured["protocol"]
    assert [name for name in metrics if meaning_of(name) is None] == []
    assert list(protocol["strengths"].items()) == [("rotation", [90, 180]), ("grey", [0.25, 0.5, 1])]
    assert (protocol["test_images"], protocol["bank_images"]) == (20, 40)
    for name in ("rotation/strength=90", "grey/mean", "mean"):
        for number in ("cosine", "relative", "top1"):
            value, low, high = (
                metrics[f"invariance/{name}/{number}{end}"] for end in ("", "/ci95_low", "/ci95_high")
            )
            assert low <= value <= high
    assert metrics["invariance/mean/relative"] == pytest.approx(
        (metrics["invariance/rotation/mean/relative"] + metrics["invariance/grey/mean/relative"]) / 2
    )
    difference = metrics["invariance/minus_pixels/grey/mean/relative"]
    assert difference == pytest.approx(
        metrics["invariance/grey/mean/relative"] - metrics["baseline/pixels/invariance/grey/mean/relative"]
    )
    assert measured["provenance"]["cost"]["images"] > 0


def test_pictures_are_written(measured: dict[str, Any]) -> None:
    folder = measured["folder"]
    with Image.open(folder / "curves.png") as curves, Image.open(folder / "examples.png") as examples:
        assert np.asarray(curves).std() > 10
        assert examples.width > 8 * 60  # two images, each with three strengths beside it


def test_two_backbones_are_compared_image_by_image(
    parts: Path, measured: dict[str, Any], tmp_path: Path
) -> None:
    options = ("--transformations", "rotation=90,180", "grey", f"--record={tmp_path / 'b.json'}")
    other = run(parts, *options, source=f"{SOURCE}:seed=2")
    kept = read_record(tmp_path / "b.json").predictions
    assert isinstance(kept, SampleValues)
    assert 100 * kept.settings["mean/top1"].mean() == pytest.approx(other["metrics"]["invariance/mean/top1"])
    found = compare(measured["folder"] / "a.json", tmp_path / "b.json", setting="mean/top1")
    assert found.differences["mean"].value == pytest.approx(
        other["metrics"]["invariance/mean/top1"] - measured["metrics"]["invariance/mean/top1"]
    )


def test_images_are_drawn_by_the_seed_and_keep_their_place(parts: Path) -> None:
    model = open_frozen_model(SOURCE, configuration(parts), ALONE)
    drawn = draw_parts(model, 8, 12, 0)
    assert (len(drawn.queries), len(drawn.bank)) == (8, 12)
    assert sorted(set(drawn.places.tolist())) == drawn.places.tolist()
    assert drawn.places.tolist() != draw_parts(model, 8, 12, 1).places.tolist()
    everything = draw_parts(model, 0, 0, 0)
    for row, place in enumerate(drawn.places):
        np.testing.assert_array_equal(drawn.queries.image(row), everything.queries.image(int(place)))
    few, all_crops = read_crops(model, drawn), read_crops(model, everything)
    assert torch.equal(few, all_crops[drawn.places])


def test_a_set_without_a_test_split_gives_a_fifth_of_train(parts: Path) -> None:
    record = run(parts / "train", "--transformations", "grey=1")
    assert record["protocol"]["test"] == "20% of train"
    assert (record["protocol"]["test_images"], record["protocol"]["bank_images"]) == (8, 32)
    assert any("--k 20" in remark for remark in record["protocol"].get("remarks", [])) is False


def test_raw_pixels_are_a_source_without_baselines(parts: Path) -> None:
    metrics = run(parts, "--transformations", "horizontal_mirror", source="pixels")["metrics"]
    assert not any(name.startswith("baseline/") or "/minus_" in name for name in metrics)
    assert 0 < metrics["invariance/horizontal_mirror/mean/relative"] < 2


def test_raw_pixels_of_one_channel_are_followed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / ("dark" if number % 2 else "bright")
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 128, (20, 20), np.uint8) + np.uint8(number % 2 * 100)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    grey = ["--data.channels=1", "--images=0", "--k=3"]
    record = run(tmp_path, *grey, source="pixels")
    assert "hue" not in record["protocol"]["strengths"]
    assert any("have no colours" in remark for remark in record["protocol"]["remarks"])
    network = run(tmp_path, *grey, "--transformations", "blur=4", source=f"{SOURCE}:seed=1:channels=1")
    name = "invariance/blur/strength=4/cosine"
    assert record["metrics"][name] == pytest.approx(network["metrics"][f"baseline/pixels/{name}"])


def _metrics_on_a_rank(runtime: Runtime, config: InvarianceConfig) -> dict[str, float] | None:
    result = evaluate(config, runtime)
    return None if result is None else result.metrics


@pytest.mark.parametrize("ranks", [more(2), more(3)])
def test_ranks_change_no_number(parts: Path, ranks: int) -> None:
    config = configuration(parts, transformations=["crop=0.5", "noise=0.1"], images=11, resamples=100)
    alone = _metrics_on_a_rank(ALONE, config)
    first, *others = on_ranks(_metrics_on_a_rank, config, world_size=ranks)
    assert first == pytest.approx(alone, abs=1e-5)
    assert others == [None] * (ranks - 1)


REFUSED = {
    "--transformations has no rotate; did you mean rotation?": ["--transformations", "rotate"],
    "all stands alone": ["--transformations", "all", "blur"],
    "names blur twice": ["--transformations", "blur", "blur=1"],
    "crop has strengths above 0 and up to 0.99": ["--transformations", "crop=1"],
    "0 is always measured": ["--transformations", "rotation=0,90"],
    "strengths that do not rise": ["--transformations", "rotation=90,45"],
    "the one strength 1, and not 0.5": ["--transformations", "vertical_mirror=0.5"],
    "is not NAME=NUMBER,NUMBER": ["--transformations", "blur=much"],
    "--images must be at least 2": ["--images=1"],
    "--bank must be at least 2": ["--bank=-1"],
    "--resamples is 3": ["--resamples=3"],
    "must end in .png": ["--figure=curves.svg"],
    "name one file": ["--figure=a.png", "--examples=a.png"],
    "instead of feature files": ["--train-features=a.npz", "--test-features=b.npz"],
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_means_nothing_is_refused_before_any_work(sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        invariance([SOURCE, "--data.name=folder", "--data.root=nowhere", *REFUSED[sentence]])
    assert sentence in str(caught.value)


def test_one_class_and_too_many_crops_are_refused(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_frozen_model(SOURCE, configuration(parts), ALONE)
    images = draw_parts(model, 0, 0, 0)
    monkeypatch.setattr("siamtransfer.evaluation.invariance.follow.MOST_BYTES", 10 * 3 * 16 * 16)
    with pytest.raises(UserError, match="follow fewer with --images 10"):
        read_crops(model, images)
    read_crops(model, Parts(images.bank, draw_parts(model, 10, 0, 0).queries, images.places[:10], ""))
    with pytest.raises(UserError, match="are of one class"):
        run(parts, "--images=2", f"--seed={_seed_of_one_class(model)}")


def _seed_of_one_class(model: Any) -> int:
    """The first seed by which two images of one class are drawn."""
    for seed in itertools.count():
        labels = draw_parts(model, 2, 0, seed).queries.labels
        if labels is not None and len(set(labels.tolist())) == 1:
            return seed
    raise AssertionError
