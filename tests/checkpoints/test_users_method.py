"""A user's method from training to its evaluation: its heads have names of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import TINY
from torch import Tensor, nn

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.methods import METHODS, Method, Options, StepOutput
from siamtransfer.programs.knn import main as knn
from siamtransfer.programs.pretrain import main as pretrain
from siamtransfer.utils.errors import UserError


class Expanded(Method):
    Config = Options

    def __init__(self, backbone: Any, config: Options):
        super().__init__(backbone, config)
        self.expander = nn.Linear(backbone.dim, 16)
        self.register_buffer("running_mean_of_everything", torch.zeros(16))

    def forward(self, views: list[Tensor]) -> StepOutput:
        z1, z2 = (self.expander(self.backbone(x)) for x in views)
        return StepOutput((z1 - z2).square().mean() + 1, [z1.detach(), z2.detach()])


@pytest.fixture
def name() -> Iterator[str]:
    name = METHODS.register(Expanded)
    yield name
    METHODS.unregister(name)


def test_its_checkpoint_is_evaluated(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain([*TINY, f"--run.dir={run}", f"--method.name={name}", "--optim.epochs=1"])
    read = read_backbone(run / "checkpoint.pth")
    assert read.dropped == {"head (declared)": 3}
    options = ["--device=cpu", "--data.workers=0", "--cache=none", "--data.size=32", "--data.count=40"]
    record = knn([str(run / "checkpoint.pth"), *options, "--k=5"])
    assert record is not None
    assert record["provenance"]["weights_digest"] == read.digest


def test_a_state_that_could_not_be_read_ends_the_run_before_its_first_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Expanded, "parts", lambda self: {"backbone": "backbone", "expander": "head"})
    monkeypatch.setattr(Expanded, "forward", lambda *_: pytest.fail("no step is taken"))
    with pytest.raises(
        UserError, match=r"could not be read back: it .*declare its key 'running_mean_of_everything'"
    ):
        pretrain([*TINY, f"--run.dir={tmp_path / 'run'}", f"--method.name={name}", "--optim.epochs=1"])
    assert not (tmp_path / "run" / "checkpoint.pth").exists()
