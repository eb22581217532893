"""The program of the gradient view: checkpoints on new views of their own images, their picture over training
and its sentences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import random_state
from support.golden_methods import ALONE
from support.small_runs import complete, newest

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.data import open_images
from siamtransfer.evaluation.gradient_view.decomposition import GUIDE, PREFIX, average, decompose, indicators
from siamtransfer.methods import SimSiam, SimSiamConfig
from siamtransfer.programs.gradients import main
from siamtransfer.utils.errors import UserError
from siamtransfer.views.dataset import ViewSet, augment_batch
from siamtransfer.views.recipes import recipe
from siamtransfer.views.sampler import epoch_order

NAMES = [PREFIX + name for name in GUIDE]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small runs of three methods, SimSiam's with all its checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    complete(folder / "simsiam", "--checkpoint.keep=9")
    heads = ["--optim.lr=0.1", "--optim.epochs=1"]
    complete(folder / "moco", "--method.name=moco", "--moco.dim=16", "--moco.queue=24", *heads)
    crops = ["--views.recipe=swav", "--views.size=32"]
    small = ["--swav.dim=16", "--swav.hidden=24", "--swav.prototypes=12"]
    complete(folder / "swav", "--method.name=swav", *small, *crops, *heads)
    return {name: folder / name for name in ("simsiam", "moco", "swav")}


def score(*argv: object) -> dict[str, Any]:
    found = main([str(word) for word in (*argv, "--device", "cpu")])
    assert found is not None
    return json.loads(json.dumps(found))


def refused(*argv: object) -> str:
    with pytest.raises(UserError) as caught:
        score(*argv)
    return str(caught.value)


def test_a_checkpoint_is_measured_on_new_views_of_its_own_images(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = runs["simsiam"] / "checkpoint.pth", tmp_path / "out.json"
    found = score(checkpoint, "--batches", 2, "--seed", 3, "--record", out)

    saved = newest(runs["simsiam"])
    method = SimSiam(
        build_backbone("resnet18", width=8, stem=saved["backbone"]["stem"]),
        SimSiamConfig(dim=32, projector_layers=2),
    )
    method.load_state_dict(saved["model"])
    images = open_images("fashion-scenes", size=32, count=40)
    views = recipe("cifar-simsiam", size=16)
    order, several = epoch_order(40, 3, 0), []
    for taken in (order[:8], order[8:16]):
        cut = ViewSet(lambda index: (images.image(index), []), views, 3, 40)
        painted = augment_batch(cut.__getitems__([(-1, int(index)) for index in taken]), views)
        several.append(indicators(decompose(method.train(), painted, ALONE)))
    expected = average(several)
    del expected[PREFIX + "disagreement"], expected[PREFIX + "balance"]
    assert {name: found["metrics"][name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found["metrics"][PREFIX + "disagreement"] < 1e-8
    assert json.loads(out.read_text())["metrics"][PREFIX + "balance"] is None

    (one,) = found["protocol"]["checkpoints"]
    assert (one["step"], one["batch"], one["recipe"], one["method"]["dim"]) == (15, 8, "cifar-simsiam", 32)
    assert found["provenance"]["checkpoints"][0]["data_fingerprint"] == images.fingerprint
    said = capsys.readouterr().err
    for name in GUIDE:
        assert any(line.startswith(f"{name} ") for line in said.splitlines())
    again = score(checkpoint, "--batches", 2, "--seed", 3, "--data.workers", 0)["metrics"]
    assert again == pytest.approx(found["metrics"], nan_ok=True)
    assert score(checkpoint, "--batches", 2, "--seed", 4)["metrics"] != again


def test_checkpoints_of_runs_are_drawn_over_training(runs: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    sources = [runs["simsiam"] / "checkpoints", runs["moco"] / "checkpoint.pth"]
    found = score(*sources, "--batches", 1, "--plot", picture)
    assert [one["step"] for one in found["protocol"]["checkpoints"]] == [4, 8, 12, 15, 5]
    assert {name.partition("/")[0] for name in found["metrics"]} == set("12345")
    assert {name.partition("/")[2] for name in found["metrics"]} == set(NAMES)
    assert found["metrics"]["5/gradient/balance"] == 1
    ratios = {found["metrics"][f"{n}/gradient/ratio"] for n in range(1, 5)}
    assert len(ratios) == 4
    drawn = np.asarray(Image.open(picture).convert("RGB"))
    colours = {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()}
    assert {tuple(bytes.fromhex(line)) for line in ("1f77b4", "ff7f0e")} <= colours  # two runs, two lines
    assert tuple(bytes.fromhex("2ca02c")) not in colours
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_mistakes_are_one_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = runs["simsiam"] / "checkpoint.pth"
    assert "gradient of swav has no such parts" in refused(checkpoint, runs["swav"] / "checkpoint.pth")
    assert "missing.pth" in refused(tmp_path / "missing.pth")
    assert "holds no .pth files" in refused(tmp_path)
    assert "must end in .png" in refused(checkpoint, "--plot", tmp_path / "p.jpg")
    assert "--batches is 0" in refused(checkpoint, "--batches", 0)
    assert "--batch-size is 1" in refused(checkpoint, "--batch-size", 1)
    assert "10 batches of 8 are more than the 40 images" in refused(checkpoint, "--batches", 10)
    assert "does not take it" in refused(checkpoint, "--data.root", tmp_path)
    assert "exists" in refused(checkpoint, "--record", written(tmp_path / "old.json"))
    assert "random, and the gradient is one of heads" in refused("random:resnet18:width=8:stem=small")
    torch.save(random_state("resnet18"), tmp_path / "foreign.pth")
    assert "only checkpoints of pretrain/main.py" in refused(tmp_path / "foreign.pth")
    changed(checkpoint, tmp_path / "lacking.pth", lambda state: state["model"].pop("projector.0.weight"))
    assert "does not hold the method" in refused(tmp_path / "lacking.pth")
    changed(checkpoint, tmp_path / "other.pth", lambda state: state["data"].update(fingerprint="0", images=9))
    assert "9 then and 40 now" in refused(tmp_path / "other.pth")


def test_a_checkpoint_is_not_overwritten_by_a_picture(runs: dict[str, Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine.png"
    mine.write_bytes((runs["simsiam"] / "checkpoint.pth").read_bytes())
    assert "never overwritten" in refused(mine, "--plot", mine)


def written(path: Path) -> Path:
    path.write_text("{}")
    return path


def changed(source: Path, target: Path, change: Callable[[Any], object]) -> None:
    state = torch.load(source, weights_only=True)
    change(state)
    torch.save(state, target)
