"""The program end to end: what it measures, on what, how checkpoints are compared, and its sentences."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.diagnoses import RANDOM, refused, score
from support.small_runs import complete, newest

from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.data import open_images
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.diagnostics.projector import project, read_projector
from siamtransfer.evaluation.diagnostics.representation import GUIDE
from siamtransfer.features.augmented import repeat_view, view_features
from siamtransfer.features.extract import Transform, extract, extract_pixels
from siamtransfer.methods import METHODS
from siamtransfer.metrics import spread
from siamtransfer.programs.diagnose import main
from siamtransfer.utils.errors import UserError
from siamtransfer.views.recipes import recipe

ALONE = Runtime(torch.device("cpu"), torch.float32)
SCENES = ["--data.name", "fashion-scenes", "--data.size", "32", "--data.count", "40", "--crop", "16"]
HEADS = ["--simsiam.projector_layers=3", "--simsiam.batch_norm=all"]
FORMATS = ["siamtransfer", "siamtransfer", "random"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The checkpoints of two small runs with different heads."""
    folder = tmp_path_factory.mktemp("runs")
    complete(folder / "a")
    complete(folder / "b", "--run.seed=1", "--optim.epochs=1", *HEADS)
    return [folder / name / "checkpoint.pth" for name in "ab"]


def features_by_hand(checkpoint: Path) -> tuple[torch.Tensor, torch.Tensor]:
    backbone, read = load_backbone(checkpoint)
    images = open_images("fashion-scenes", size=32, count=40)
    assert images.labels is not None
    transform = Transform(16, 18, *read.normalisation)
    return extract(backbone, images, transform, ALONE), torch.from_numpy(images.labels)


def method_by_hand(checkpoint: Path, method_name: str = "simsiam", **settings: Any) -> Any:
    config = METHODS[method_name].Config(dim=32, **settings)
    method = METHODS[method_name](load_backbone(checkpoint)[0], config)
    method.load_state_dict(newest(checkpoint.parent)["model"])
    return method.eval()


def test_our_own_checkpoint_is_measured_at_both_places(runs: list[Path]) -> None:
    record = score(runs[0])
    found = record["metrics"]
    assert set(found) == {f"{name}/{where}" for name in GUIDE for where in ("backbone", "projection")}
    h, y = features_by_hand(runs[0])
    with torch.no_grad():
        z = method_by_hand(runs[0], projector_layers=2).projector(h)
    for where, x in (("backbone", h), ("projection", z)):
        eigenvalues, singular = measures.covariance_eigenvalues(x), measures.singular_values(x)
        expected = {
            "std": spread.output_std(x),
            "centre_norm": spread.centre_norm(x),
            "effective_rank_singular": spread.effective_rank(x),
            "effective_rank_covariance": measures.covariance_effective_rank(eigenvalues),
            "rankme": measures.rankme(singular),
            "alpha_req": measures.alpha_req(eigenvalues),
            "uniformity": measures.uniformity(x),
            "tolerance": measures.tolerance(x, y),
            "kmeans_nmi": measures.cluster_agreement(x, y, restarts=2)["nmi"],
        }
        assert {name: found[f"{name}/{where}"] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert found["rankme/projection"] != pytest.approx(found["rankme/backbone"], rel=1e-2)
    (protocol,) = record["protocol"]["checkpoints"]
    assert protocol["recipe"] == "cifar-simsiam"
    assert protocol["measured"]["backbone"] == {
        "rows": 40, "dim": 64, "sampled": 40, "images and views": [12, 3],
    }  # fmt: skip
    assert protocol["measured"]["projection"]["dim"] == 32
    (provenance,) = record["provenance"]["checkpoints"]
    assert provenance["weights_digest"] == load_backbone(runs[0])[1].digest


def test_alignment_and_lidar_are_of_the_recorded_recipes_views(runs: list[Path]) -> None:
    found = score(runs[0], "--seed", 3)["metrics"]
    backbone, read = load_backbone(runs[0])
    images = open_images("fashion-scenes", size=32, count=40)
    made_by = recipe("cifar-simsiam", size=16, mean=read.normalisation.mean, std=read.normalisation.std)
    chosen = measures.sample(40, 12, 3)
    views = view_features(backbone, images, repeat_view(made_by, 3), ALONE, seed=3, indices=chosen)
    assert found["alignment/backbone"] == pytest.approx(measures.alignment(views), rel=1e-4)
    assert found["lidar/backbone"] == pytest.approx(measures.lidar(views), rel=1e-3)
    with torch.no_grad():
        z = method_by_hand(runs[0], projector_layers=2).projector(views.flatten(0, 1)).view(12, 3, -1)
    assert found["alignment/projection"] == pytest.approx(measures.alignment(z), rel=1e-4)
    assert found["lidar/projection"] == pytest.approx(measures.lidar(z), rel=1e-3)
    other = score(runs[0], "--seed", 3, "--recipe", "grey")
    assert other["protocol"]["checkpoints"][0]["recipe"] == "grey"
    assert other["metrics"]["alignment/backbone"] != pytest.approx(found["alignment/backbone"], rel=1e-3)
    assert other["metrics"]["rankme/backbone"] == found["rankme/backbone"]


def test_views_have_the_normalisation_of_the_checkpoint(runs: list[Path], tmp_path: Path) -> None:
    """A network that wants pixels from 0 to 1 gets such views, whatever the recipe was published with."""
    state = torch.load(runs[0], weights_only=True)
    state["normalisation"] = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    torch.save(state, tmp_path / "other.pth")
    made_by = recipe("cifar-simsiam", size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    views = view_features(
        load_backbone(runs[0])[0], open_images("fashion-scenes", size=32, count=40), repeat_view(made_by, 3),
        ALONE, indices=measures.sample(40, 12, 0),
    )  # fmt: skip
    found = score(tmp_path / "other.pth")["metrics"]
    assert found["alignment/backbone"] == pytest.approx(measures.alignment(views), rel=1e-4)


def test_projectors_are_rebuilt_from_what_the_checkpoint_says(runs: list[Path], tmp_path: Path) -> None:
    read = load_backbone(runs[1])[1]
    projector = read_projector(read)
    assert projector is not None
    h = torch.randn(9000, 64)
    with torch.no_grad():
        method = method_by_hand(runs[1], "simsiam-variants", projector_layers=3, batch_norm="all")
        expected = method.projector(h)
    before = torch.random.get_rng_state()
    torch.testing.assert_close(project(projector, h, ALONE.device), expected)
    assert torch.equal(torch.random.get_rng_state(), before)
    state = torch.load(runs[1], weights_only=True)
    state["config"]["simsiam_variants"]["dim"] = 48
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth does not hold the projector .* size mismatch"):
        read_projector(load_backbone(tmp_path / "other.pth")[1])


def test_only_the_backbone_of_foreign_files_is_known(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights in another's format have the same numbers, and none under the projection's name."""
    torch.save({"state_dict": load_backbone(runs[0])[1].state}, tmp_path / "foreign.pth")
    found = score(tmp_path / "foreign.pth", *SCENES, "--recipe", "cifar-simsiam")["metrics"]
    assert "foreign.pth: there are no projections, so every number is of backbone" in capsys.readouterr().err
    own = score(runs[0])["metrics"]
    assert found == pytest.approx({n: value for n, value in own.items() if n.endswith("/backbone")}, rel=1e-3)


def test_another_layer_is_called_by_its_name(runs: list[Path]) -> None:
    record = score(runs[0], "--layers", "layer3")
    assert {name.rpartition("/")[2] for name in record["metrics"]} == {"layer3"}
    assert record["protocol"]["checkpoints"][0]["measured"]["layer3"]["dim"] == 32


def test_samples_are_taken_by_seed_and_the_covariance_is_of_all(runs: list[Path]) -> None:
    whole, part, again, other = (
        score(runs[0], "--sample", n, "--seed", seed, "--images", 0)["metrics"]
        for n, seed in ((0, 0), (15, 0), (15, 0), (15, 1))
    )
    assert part == again
    for name in ("rankme", "uniformity", "std", "kmeans_nmi"):
        assert len({found[f"{name}/backbone"] for found in (whole, part, other)}) == 3
    for name in ("alpha_req", "participation_ratio", "tolerance"):
        assert part[f"{name}/backbone"] == whole[f"{name}/backbone"]
        assert part[f"{name}/projection"] != whole[f"{name}/projection"]


def test_the_test_part_and_pixels(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    record = score("pixels", *SCENES, "--part", "test", "--sample", 50)
    assert "pixels: no alignment and LiDAR" in capsys.readouterr().err
    assert set(record["metrics"]) == {
        f"{name}/backbone" for name in GUIDE if name not in ("alignment", "lidar")
    }
    measured = record["protocol"]["checkpoints"][0]["measured"]["backbone"]
    assert measured == {"rows": 2000, "dim": 768, "sampled": 50, "images and views": None}
    images = open_images("fashion-scenes", size=32, count=40)
    raw = extract_pixels(images, Transform(16, 18, (0, 0, 0), (1, 1, 1)))
    train = score("pixels", *SCENES)["metrics"]
    assert train["uniformity/backbone"] == pytest.approx(measures.uniformity(raw), rel=1e-4)


# Several checkpoints.


@pytest.fixture(scope="module")
def several(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """The record of two runs and a baseline, the picture of their spectra and what was said."""
    folder = tmp_path_factory.mktemp("several")
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        record = score(*runs, RANDOM, *SCENES, "--spectrum", folder / "s.png", "--record", folder / "r.json")
    written = json.loads((folder / "r.json").read_text())
    assert {**written["metrics"]} == pytest.approx(record["metrics"], nan_ok=True)
    return record, folder / "s.png", said.getvalue()


def test_names_begin_with_the_checkpoints_place(
    several: tuple[dict[str, Any], Path, str], runs: list[Path]
) -> None:
    found = several[0]["metrics"]
    alone = score(runs[1], *SCENES)["metrics"]
    assert {n.removeprefix("2/"): v for n, v in found.items() if n.startswith("2/")} == pytest.approx(
        alone, rel=1e-4
    )
    assert "1/rankme/projection" in found
    assert "3/rankme/backbone" in found
    assert "3/rankme/projection" not in found
    assert [one["format"] for one in several[0]["provenance"]["checkpoints"]] == FORMATS


def test_each_pair_is_compared(several: tuple[dict[str, Any], Path, str], runs: list[Path]) -> None:
    found = several[0]["metrics"]
    a, b = (features_by_hand(run)[0] for run in runs)
    assert found["cka/backbone/1-2"] == pytest.approx(measures.linear_cka(a, b), rel=1e-4)
    unbiased = measures.linear_cka(a, b, unbiased=True)
    assert found["cka_unbiased/backbone/1-2"] == pytest.approx(unbiased, rel=1e-3)
    assert sum(name.startswith("cka/") for name in found) == 3
    assert 0 < found["neighbour_agreement/backbone/1-2"] < 1


def test_a_checkpoint_agrees_with_itself(runs: list[Path]) -> None:
    found = score(runs[0], runs[0], "--images", 0)["metrics"]
    for name in ("cka", "cka_unbiased", "neighbour_agreement"):
        assert found[f"{name}/backbone/1-2"] == pytest.approx(1)


def test_rules_choose_and_are_judged(
    several: tuple[dict[str, Any], Path, str], runs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = several[0]["metrics"]
    ranks = [found[f"{n}/rankme/backbone"] for n in (1, 2, 3)]
    guarded = [rank if found[f"{n}/std/backbone"] >= 0.2 else -1 for n, rank in enumerate(ranks, 1)]
    assert found["selection/rankme/backbone"] == np.argmax(guarded) + 1
    assert "selection/rankme/projection" not in found, "the baseline has no projections"
    judged = score(*runs, "--accuracy", 40, 50)
    found = judged["metrics"]
    regret = 10 if found["selection/lidar/projection"] == 1 else 0
    assert found["selection/lidar/projection/regret"] == regret
    assert found["selection/lidar/projection/kendall"] == 1 - regret / 5
    assert judged["protocol"]["accuracies"] == [40, 50]
    assert "selection/lidar/projection" in capsys.readouterr().err


def test_the_table_names_everything(several: tuple[dict[str, Any], Path, str], runs: list[Path]) -> None:
    said = several[2]
    assert f"[1] {runs[0]}" in said
    assert re.search(
        r"\[1\] backbone +\[1\] projection +\[2\] backbone +\[2\] projection +\[3\] backbone", said
    )
    for name in GUIDE:
        line = next(line for line in said.splitlines() if line.startswith(f"{name} "))
        value = several[0]["metrics"][f"3/{name}/backbone"]
        assert f"{math.nan if value is None else value:.4g}" in line
    assert "different recipes" in said
    assert "12 images with 3 views are few for LiDAR of width 64" in said


def test_spectra_are_drawn(several: tuple[dict[str, Any], Path, str]) -> None:
    picture = np.asarray(Image.open(several[1]).convert("RGB"))
    assert min(picture.shape[:2]) > 300
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    for line in ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd"):  # five curves in matplotlib's colours
        assert tuple(bytes.fromhex(line)) in colours
    assert [path.name for path in sorted(several[1].parent.iterdir())] == ["r.json", "s.png"]


# Mistakes.


def test_mistakes_are_one_sentence(runs: list[Path], tmp_path: Path, shapes_folder: Path) -> None:
    assert "give a checkpoint" in refused()
    assert "--images must be at least 2" in refused(runs[0], "--images", 1)
    assert "--sample must be at least 2, or 0 for all" in refused(runs[0], "--sample", -1)
    assert "--views must be at least 2" in refused(runs[0], "--views", 1)
    assert "--restarts" in refused(runs[0], "--restarts", -1)
    assert "did you mean 'simsiam'" in refused(runs[0], "--recipe", "simsam")
    assert "3 numbers for 2 checkpoints" in refused(*runs, "--accuracy", 1, 2, 3)
    assert "two checkpoints or more" in refused(runs[0], "--accuracy", 1)
    assert "must end in .png" in refused(runs[0], "--spectrum", tmp_path / "s.jpg")
    assert "no labels" in refused(runs[0], "--data.name", "flat", "--data.root", shapes_folder)
    assert "no test part" in refused(
        runs[0], "--data.name", "folder", "--data.root", shapes_folder, "--part", "test"
    )
    assert "--data.name" in refused(RANDOM)


def test_nothing_is_extracted_before_every_file_was_read(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], shapes_folder: Path
) -> None:
    assert "missing.pth" in refused(runs[0], tmp_path / "missing.pth", "--cache", "none")
    other = tmp_path / "other.pth"
    state = torch.load(runs[0], weights_only=True)
    state["config"]["data"]["count"] = 50
    torch.save(state, other)
    said = refused(runs[0], other, "--cache", "none")
    assert "40 images of fashion-scenes/train" in said
    assert "50 images of fashion-scenes/train, which are not the same" in said
    assert "extracting" not in capsys.readouterr().err
    assert score(runs[0], other, "--data.count", 40, "--images", 0)["metrics"]["cka/backbone/1-2"] == (
        pytest.approx(1)
    )


def test_a_checkpoint_is_not_overwritten_by_a_picture(runs: list[Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    shutil.copy(runs[0], mine)
    before = mine.read_bytes()
    assert "never overwritten" in refused(mine, "--spectrum", mine)
    assert mine.read_bytes() == before
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"an older one")
    score(mine, "--images", 0, "--spectrum", picture)
    assert Image.open(picture).size[0] > 300


def test_help_says_what_is_what(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for word in ("--views", "--spectrum", "NAME/projection", "--layers"):
        assert word in said
