"""The projectors of our own checkpoints, by method and branch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from siamtransfer.backbones.architecture import build_backbone
from siamtransfer.checkpoints.declaration import FORMAT, VERSION
from siamtransfer.checkpoints.read_backbone import load_backbone
from siamtransfer.evaluation.diagnostics.projector import project, read_projector
from siamtransfer.methods import METHODS, section_of


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("byol", {"hidden": 24, "dim": 10}, {"backbone": "projector", "target": "target_projector"}),
        (
            "dino",
            {"hidden": 24, "dim": 30, "bottleneck": 10},
            {"backbone": "head.mlp", "target": "target_head.mlp"},
        ),
        ("barlow-twins", {"hidden": 24, "dim": 10}, {"backbone": "projector"}),
    ],
)
def test_every_method_and_branch_has_its_own_projector(
    name: str, options: dict[str, int], parts: dict[str, str], tmp_path: Path
) -> None:
    entry, backbone = METHODS[name], build_backbone("resnet18", width=8, stem="small")
    settings = entry.Config(**options)
    method = entry(backbone, settings)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that the two networks differ
    state = {
        "format": FORMAT, "version": VERSION, "method": name, "model": method.state_dict(),
        "config": {section_of(name): vars(settings)}, "data": {},
        "backbone": {"name": "resnet18", "width": 8, "stem": "small", "dim": 64},
        "normalisation": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
    }  # fmt: skip
    torch.save(state, tmp_path / "own.pth")
    h = torch.randn(20, 64)
    for branch, part in parts.items():
        projector = read_projector(load_backbone(tmp_path / "own.pth", branch=branch)[1])
        assert projector is not None
        with torch.no_grad():
            expected = method.eval().get_submodule(part)(h)
        assert expected.shape == (20, 10)
        torch.testing.assert_close(project(projector, h, torch.device("cpu")), expected)
