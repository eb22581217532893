"""Every method through a whole run: it resumes to the bit and is read back; when its hooks are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import random_state, simsiam_checkpoint
from support.small_runs import (
    TINY,
    all_finite,
    assert_same_run,
    complete,
    launch,
    launch_ranks,
    newest,
    on_ranks,
    rows,
    stop_at,
)
from support.thorough import more
from torch import Tensor, nn

import siamtransfer.programs.pretrain as program
from siamtransfer.checkpoints.read_backbone import digest_of, read_backbone
from siamtransfer.checkpoints.training_state import Checkpoints
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import METHODS, Method, Options, StepInfo, StepOutput, section_of
from siamtransfer.optim.config import OptimConfig
from siamtransfer.optim.optimizers import build_optimizer
from siamtransfer.programs.knn import main as knn
from siamtransfer.programs.to_d2 import main as to_d2
from siamtransfer.training.guard import StepContext
from siamtransfer.training.step import Updater, train_step
from siamtransfer.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("few_test_scenes")

ALONE = Runtime(torch.device("cpu"), torch.float32)
MULTI_CROP = ["--views.recipe=swav", "--views.size=32"]
SMALL: dict[str, list[str]] = {
    "simsiam": [],
    "simclr": ["dim=16"],
    "moco": ["dim=16", "queue=24", "momentum=0.9"],
    "moco-v3": ["dim=16", "hidden=24"],
    "byol": ["dim=16", "hidden=24"],
    "swav": [
        "dim=16", "hidden=24", "prototypes=12", "freeze_prototypes_steps=2", "queue=16", "queue_from_epoch=0",
    ],
    "dino": ["dim=24", "hidden=24", "bottleneck=16", "teacher_warmup_epochs=0"],
    "barlow-twins": ["dim=24", "hidden=24"],
    "vicreg": ["dim=24", "hidden=24"],
    "directpred": ["dim=16", "hidden=24"],
    "unigrad": ["dim=16", "hidden=24"],
    "simsiam-variants": ["dim=32", "projector_layers=2"],
}  # fmt: skip
RULES = {
    "simclr": ["name=lars", "lr=5", "lr_scaling=root", "warmup_epochs=1", "schedule=cosine-step"],
    "moco": ["schedule=milestones", "milestones=[1]"],
    "moco-v3": ["name=adamw", "lr=0.01", "decay_vectors=false", "end_weight_decay=0.1"],
    "swav": ["name=larc", "lr=1", "lr_scaling=none", "end_fraction=0.001"],
    "barlow-twins": ["name=lars", "lr=5", "vector_lr=0.1", "schedule=cosine-step"],
    "unigrad": ["schedule=cosine-unigrad", "warmup_epochs=1", "warmup_start=0.001", "lr=0.1"],
}
"""Update rules and schedules, those of the method's authors where tiny.yaml's would not do."""


def options_of(name: str) -> list[str]:
    """A run of ten small steps by method `name`."""
    own = [f"--{section_of(name)}.{option}" for option in SMALL[name]]
    rule = [f"--optim.{option}" for option in RULES.get(name, ["lr=0.1"])]
    crops = MULTI_CROP if METHODS[name].multi_crop else []
    return [f"--method.name={name}", "--optim.epochs=2", *crops, *own, *rule]


FURTHER = ("simclr", "byol", "vicreg")
"""Methods whose runs keep no more than those of Barlow Twins and MoCo v3: nothing but weights."""


@pytest.mark.parametrize("name", [more(name) if name in FURTHER else name for name in METHODS])
def test_every_method_runs_and_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    options = options_of(name)
    complete(tmp_path / "whole", *options)
    assert launch(tmp_path / "parts", *options, fault=stop_at(5)).wait() == 143
    complete(tmp_path / "parts", *options, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    state = newest(tmp_path / "whole")
    assert all_finite(state)
    losses = [row["loss"] for row in rows(tmp_path / "whole") if "loss" in row]
    assert len(set(losses)) == len(losses) == 10
    assert state["method"] == state["config"]["method"]["name"] == name
    assert {section_of(method) for method in METHODS} & state["config"].keys() == {section_of(name)}

    file = tmp_path / "whole" / "checkpoint.pth"
    read = read_backbone(file)
    assert read.branch == ("target" if name == "dino" else "backbone")
    branches = {"backbone"} | {"target" for key in state["model"] if key.startswith("target_backbone.")}
    assert set(read.branches) == branches
    states = {branch: read_backbone(file, branch=branch).state for branch in branches}
    for branch, prefix in (("backbone", "backbone."), ("target", "target_backbone.")):
        for key, tensor in states.get(branch, {}).items():
            assert torch.equal(tensor, state["model"][prefix + key])
    if len(states) == 2:
        assert any(
            not torch.equal(tensor, states["target"][key]) for key, tensor in states["backbone"].items()
        )

    converted = to_d2([str(file), str(tmp_path / "backbone.pkl")])
    assert converted["protocol"]["proof"] == "passed"
    assert converted["provenance"]["weights_digest"] == digest_of(read.state)


def test_a_run_watches_the_network_that_its_authors_evaluate(tmp_path: Path) -> None:
    options = [*options_of("dino"), "--monitor.knn_every=2"]
    complete(tmp_path / "run", *options)
    *_, last = (row for row in rows(tmp_path / "run") if "knn/k=20/T=0.07/top1" in row)
    scored = knn([str(tmp_path / "run" / "checkpoint.pth"), "--k", "20", "--cache", "none"])
    assert scored["provenance"]["branch"] == "target"
    assert scored["metrics"]["knn/k=20/T=0.07/top1"] == last["knn/k=20/T=0.07/top1"]


@pytest.mark.parametrize("name", ["moco", more("byol")])
def test_two_ranks_run_without_synchronised_batch_norm_too(name: str, tmp_path: Path) -> None:
    ranks = launch_ranks(tmp_path / "run", *options_of(name), "--hardware.sync_batch_norm=false")
    assert [rank.wait() for rank in ranks] == [0, 0], [rank.said for rank in ranks]
    assert all_finite(newest(tmp_path / "run"))


def test_a_checkpoint_from_before_the_other_methods_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    complete(tmp_path / "whole")
    assert launch(folder, fault=stop_at(5)).wait() == 143
    state = newest(folder)
    known = ("epochs", "lr", "momentum", "weight_decay", "name", "schedule", "warmup_epochs")
    optim = state["config"]["optim"]
    old = {"batch": optim["batch_size"], "accumulate": optim["grad_accum_steps"]}
    state["config"]["optim"] = {key: optim[key] for key in known} | old
    for group in state["optimizer"]["param_groups"]:
        del group["vectors"]
    Checkpoints(folder).save(state, state["progress"]["step"])
    complete(folder, "--resume")
    assert_same_run(tmp_path / "whole", folder)


def test_another_method_is_another_run(tmp_path: Path) -> None:
    complete(tmp_path / "run", "--optim.epochs=1")
    again = launch(tmp_path / "run", "--optim.epochs=1", "--method.name=byol", "--resume")
    assert again.wait() == 2
    assert "another configuration (method.name 'simsiam' -> 'byol')" in again.said


def test_a_given_backbone_fills_the_target_network_too(tmp_path: Path) -> None:
    state = random_state("resnet18", 8, "small", seed=7)
    torch.save(simsiam_checkpoint(state, "resnet18"), tmp_path / "official.pth")
    given = f"--resume-from-backbone={tmp_path / 'official.pth'}"
    still = ["--optim.lr=0", "--optim.weight_decay=0", "--backbone.stem=small"]
    complete(tmp_path / "run", *options_of("byol"), *still, given)
    model = newest(tmp_path / "run")["model"]
    for key, tensor in state.items():  # at rate 0 only batch norm's statistics move
        if key.endswith(("weight", "bias")):
            assert torch.equal(model[f"backbone.{key}"], tensor), key
            torch.testing.assert_close(model[f"target_backbone.{key}"], tensor)


def test_more_views_than_a_method_takes_are_refused(tmp_path: Path) -> None:
    for name, cls in METHODS.items():
        argv = [
            *TINY,
            f"--run.dir={tmp_path / 'run'}",
            f"--method.name={name}",
            *MULTI_CROP,
            "--moco.queue=64",
        ]
        if not cls.multi_crop:
            with pytest.raises(
                UserError, match=rf"swav makes 8 views of an image and {name} takes two.*swav"
            ):
                program.main(argv)
    assert not (tmp_path / "run").exists()


# The three hooks.


class Notes(Method):
    """A linear method that notes when what is called, and what the weights are then."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 4, dtype=torch.float64), Options())
        self.notes: list[tuple[str, StepInfo | None, float, bool]] = []

    def note(self, what: str, info: StepInfo | None) -> None:
        weight = self.backbone.weight
        self.notes.append((what, info, weight.sum().item(), weight.grad is not None))

    def forward(self, views: list[Tensor]) -> StepOutput:
        self.note("forward", None)
        z1, z2 = (self.backbone(view) for view in views)
        return StepOutput((z1 * z2).sum(dim=1).tanh().mean(), [z1.detach(), z2.detach()])

    def before_forward(self, info: StepInfo) -> None:
        self.note("before_forward", info)

    def before_update(self, info: StepInfo) -> None:
        self.note("before_update", info)
        self.backbone.weight.grad = torch.ones_like(self.backbone.weight)

    def after_update(self, info: StepInfo) -> None:
        self.note("after_update", info)


def notes_of_two_steps(runtime: Runtime, parts: int) -> Any:
    torch.manual_seed(0)
    method = Notes()
    model = runtime.distribute(method)
    optimizer = build_optimizer(OptimConfig(lr=0.5, batch_size=256, weight_decay=0), method.groups())
    for step in range(2):
        views = [
            view.chunk(runtime.world_size)[runtime.rank]
            for view in torch.randn(2, 12, 6, dtype=torch.float64)
        ]
        updater = Updater(model, optimizer, runtime.scaler(), runtime)
        context, info = StepContext(step, 0.5, torch.arange(0)), StepInfo(step, 2, 1)
        train_step(updater, views, context, info, grad_accum_steps=parts)
    return method.notes


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("parts", [1, 3])
def test_hooks_are_called_once_a_step_around_the_update(parts: int, world_size: int) -> None:
    of_ranks = [notes_of_two_steps(ALONE, parts)] if world_size == 1 else on_ranks(notes_of_two_steps, parts)
    for notes in of_ranks:
        words = ["before_forward", *["forward"] * parts, "before_update", "after_update"]
        assert [what for what, *_ in notes] == words * 2
        for step, few in enumerate((notes[: len(words)], notes[len(words) :])):
            assert [info for _, info, *_ in few] == [
                None if what == "forward" else StepInfo(step, 2, 1) for what in words
            ]
            weights = [weight for _, _, weight, _ in few]
            assert len(set(weights[:-1])) == 1
            # A gradient of ones, as before_update left it, moves 24 weights by half; then by momentum too.
            assert weights[-1] == pytest.approx(weights[0] - 24 * 0.5 * (1, 1.9)[step])
            assert few[0][3] is False
            assert few[-2][3] is True


def test_a_loss_that_is_not_finite_stops_before_any_hook_of_the_update() -> None:
    method = Notes()
    optimizer = build_optimizer(OptimConfig(), method.groups())
    views = list(torch.full((2, 4, 6), float("nan"), dtype=torch.float64))
    with pytest.raises(UserError, match="not finite at step 3"):
        updater = Updater(method, optimizer, ALONE.scaler(), ALONE)
        train_step(updater, views, StepContext(3, 0.1, torch.arange(4)), StepInfo(3, 10, 5))
    assert [what for what, *_ in method.notes] == ["before_forward", "forward"]


def test_where_a_run_stands() -> None:
    info = StepInfo(step=25, steps=100, steps_per_epoch=10)
    assert (info.epoch, info.done) == (2, 0.25)
