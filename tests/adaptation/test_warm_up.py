"""The warm-up of heads: the trunk keeps every bit, and a run goes on within it and across its end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from support.small_runs import (
    assert_same_run,
    complete,
    launch,
    launch_ranks,
    newest,
    stop_at,
)
from support.thorough import more

from siamtransfer.checkpoints.read_backbone import read_backbone

BYOL = ("--method.name=byol", "--byol.hidden=32", "--byol.dim=16")
VIT = ("--backbone.name=timm:test_vit", "--backbone.width=64", "--backbone.drop_path=0.2", "--views.size=32")
WARM_UP = ("--adapt.warmup_epochs=1.4",)  # 7 of 15 steps
NETWORKS = ("backbone.", "target_backbone.")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained ResNet, whose batch norms have statistics of their own."""
    folder = tmp_path_factory.mktemp("start") / "run"
    complete(folder)
    return folder / "checkpoint.pth"


@pytest.fixture(scope="module")
def undisturbed(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "run"
    complete(folder, *BYOL, *WARM_UP, f"--backbone.weights={start}")
    return folder


def at_step(step: int, folder: Path) -> dict:
    (file,) = (folder / "checkpoints").glob(f"step-{step:07d}-*.pth")
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("options", [(), VIT], ids=["resnet", "vit"])
def test_the_trunk_and_its_momentum_encoder_keep_every_bit(
    options: tuple[str, ...], start: Path, tmp_path: Path
) -> None:
    weights = "random:timm:test_vit" if options else str(start)
    run = launch(
        tmp_path / "run", *BYOL, *WARM_UP, *options, f"--backbone.weights={weights}", fault=stop_at(7)
    )
    assert run.wait() == 128 + signal.SIGTERM, run.said
    state = newest(run.folder)
    assert state["progress"]["step"] == 8  # the signal lets the step that it meets end: 7 of warm-up and one
    kept = at_step(4, run.folder)["model"]
    before = read_backbone(weights).state
    for network in NETWORKS:
        assert {f"{network}{name}" for name in before} <= set(kept)
        assert all(torch.equal(kept[f"{network}{name}"], tensor) for name, tensor in before.items())
        moved = [
            name for name, tensor in before.items() if not torch.equal(state["model"][network + name], tensor)
        ]
        assert len(moved) > len(before) / 2, f"{network} does not learn after the warm-up"
    heads = [key for key in kept if key.startswith(("projector.", "target_projector.", "predictor."))]
    assert len(heads) > 10
    assert all(not torch.equal(kept[key], state["model"][key]) for key in heads if key.endswith("weight"))


# Within, around and after the warm-up, which ends after step 7.
@pytest.mark.parametrize("step", [more(2), 6, 7, more(11)])
def test_a_run_goes_on_to_the_bit(step: int, start: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder, options = tmp_path / "run", (*BYOL, *WARM_UP, f"--backbone.weights={start}")
    assert launch(folder, *options, fault=stop_at(step)).wait() == 128 + signal.SIGTERM
    complete(folder, *options, "--resume")
    assert_same_run(folder, undisturbed)


@pytest.fixture(scope="module")
def by_two_ranks(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks") / "run"
    runs = launch_ranks(folder, *BYOL, *WARM_UP, f"--backbone.weights={start}")
    assert [run.wait() for run in runs] == [0, 0], runs[0].said
    return folder


def test_two_ranks_do_what_one_does(undisturbed: Path, by_two_ranks: Path) -> None:
    """The gradients of a released trunk are averaged, and those of a frozen one are not waited for."""
    one, two = newest(undisturbed)["model"], newest(by_two_ranks)["model"]
    for key in one:
        torch.testing.assert_close(two[key].double(), one[key].double(), rtol=1e-3, atol=1e-4)


def test_a_kill_between_ranks_goes_on_to_the_bit(start: Path, by_two_ranks: Path, tmp_path: Path) -> None:
    options = (*BYOL, *WARM_UP, f"--backbone.weights={start}")
    halves = launch_ranks(tmp_path / "halves", *options, faults={0: stop_at(6)})
    assert [run.wait() for run in halves] == [143, 143], halves[0].said
    rest = launch_ranks(tmp_path / "halves", *options, "--resume")
    assert [run.wait() for run in rest] == [0, 0], rest[0].said
    assert_same_run(by_two_ranks, tmp_path / "halves")
