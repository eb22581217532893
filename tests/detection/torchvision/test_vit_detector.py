"""Plain ViTs in torchvision's detectors: what is loaded, what the settings choose, and how it learns.

python -m pytest tests/detection/torchvision/test_vit_detector.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from siamtransfer.checkpoints.read_backbone import ReadBackbone, read_backbone
from siamtransfer.detection.torchvision.model import build_detector
from siamtransfer.detection.torchvision.recipe import DetectorRecipe, recipe_of
from siamtransfer.detection.torchvision.training import _build_optimizer
from siamtransfer.utils.errors import UserError

SETTINGS: dict[str, Any] = {
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.VIT.WINDOW": 2,
    "MODEL.VIT.GLOBAL_BLOCKS": 2,
    "MODEL.VIT.IMAGE_SIZE": 96,
    "MODEL.TIMM.DROP_PATH": 0.1,
    "INPUT.MIN_SIZE_TRAIN": (96,),
    "SOLVER.OPTIMIZER": "AdamW",
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.LAYER_DECAY": 0.5,
    "SOLVER.NO_DECAY": ["pos_embed"],
}


@pytest.fixture(scope="module")
def read() -> ReadBackbone:
    return read_backbone("random:timm:test_vit4")


def recipe(**changes: Any) -> DetectorRecipe:
    return recipe_of(SETTINGS | changes)


def test_the_settings_reach_the_trunk(read: ReadBackbone) -> None:
    trunk: Any = build_detector(read, 3, recipe().design).backbone.body
    assert trunk.bottom_up.windows == (2, 2, 2, None, 2, 2, 2, 2, None)
    assert trunk.bottom_up.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    assert set(trunk.channels.values()) == {8}
    for name, tensor in trunk.bottom_up.state_dict().items():
        assert torch.equal(tensor, read.state[name])
    assert trunk.bottom_up.state_dict().keys() == read.state.keys()


def test_a_detector_learns_and_detects(read: ReadBackbone) -> None:
    torch.manual_seed(0)
    network = build_detector(read, 3, recipe().design)
    optimizer = _build_optimizer(network, recipe())
    assert isinstance(optimizer, torch.optim.AdamW)
    target = {"boxes": torch.tensor([[10.0, 10, 60, 70]]), "labels": torch.tensor([2])}
    image = torch.rand(3, 90, 96, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = sum(network([image], [target]).values(), start=torch.zeros(()))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    idle = [n for n, p in network.backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    with torch.no_grad():
        assert network.eval()([image])[0].keys() == {"boxes", "labels", "scores"}


def test_rates_follow_the_depth_and_the_schedule(read: ReadBackbone) -> None:
    """The training sets a group's rate to the schedule's times its factor."""
    groups = _build_optimizer(build_detector(read, 3, recipe().design), recipe()).param_groups
    factors = sorted({group["lr_factor"] for group in groups})
    assert factors == pytest.approx([0.5**n for n in reversed(range(11))])
    assert {group["weight_decay"] for group in groups} == {1e-4, 0.0}


def test_older_states_of_other_trunks_stay_usable() -> None:
    """Their identity is the text of the recipe's fields."""
    assert "trunk" not in repr(recipe_of({}).design)
    assert "trunk" not in recipe_of({}).as_record()["design"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MODEL.VIT.ATTENTION": "local"}, "ATTENTION is 'local'"),
        ({"MODEL.VIT.WINDOW": "14"}, "has to be a int"),
        ({"MODEL.FPN.NORM": "IN"}, "FPN.NORM is 'IN'"),
        ({"INPUT.LARGE_JITTER.SIZE": 1024}, "LARGE_JITTER.SIZE is 1024"),
        ({"MODEL.TIMM.DROP_PATH": 1.5}, "DROP_PATH is 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        recipe(**changes)


def test_an_unknown_optimizer_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UserError, match=r"SOLVER\.OPTIMIZER is 'Adam'"):
        recipe(**{"SOLVER.OPTIMIZER": "Adam"}).check(1000, 1)


def test_patches_of_14_pixels_need_a_choice() -> None:
    read = read_backbone("random:timm:vit_small_patch14_dinov2")
    with pytest.raises(UserError, match="PATCH_SIZE 16"):
        build_detector(read, 3, recipe().design)
    trunk: Any = build_detector(read, 3, recipe(**{"MODEL.VIT.PATCH_SIZE": 16}).design).backbone.body
    assert trunk.bottom_up.patch == 16
