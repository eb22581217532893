"""Files of which one tensor is wrong are refused with the name of that tensor, and of the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from support.thorough import more
from torch import Tensor

from siamtransfer.backbones.nearest import find_nearest
from siamtransfer.checkpoints.normalisation import IMAGENET
from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.evaluation.transform import choose_transform
from siamtransfer.utils.errors import UserError

State = dict[str, Tensor]
KEY = "stages.2.blocks.3.mlp.fc1.weight"
ATTO = "timm:convnext_atto"


@pytest.fixture(scope="module")
def atto() -> State:
    torch.manual_seed(0)
    state: State = timm.create_model("convnext_atto", num_classes=10).state_dict()
    return state


def without(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if key != KEY}


def renamed(state: State) -> State:
    return {key.replace(KEY, "stages.2.blocks.3.mlp.fc9.weight"): tensor for key, tensor in state.items()}


def transposed(state: State) -> State:
    return {**state, KEY: state[KEY].transpose(0, 1).contiguous()}


def with_another(state: State) -> State:
    return {**state, "stray.weight": torch.ones(3, 3)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without, f"it lacks the tensor {KEY!r} of {ATTO}"),
        (renamed, f"it has a tensor 'stages.2.blocks.3.mlp.fc9.weight', which {ATTO} has not"),
        (transposed, f"its tensor {KEY!r} has shape (160, 640, 1, 1) where {ATTO} has (640, 160, 1, 1)"),
        more(with_another, f"it has a tensor 'stray.weight', which {ATTO} has not"),
    ],
)
def test_the_wrong_tensor_is_named(
    change: Callable[[State], State], sentence: str, atto: State, tmp_path: Path
) -> None:
    for content, what in (
        (change(atto), f"a state_dict ({ATTO})"),
        (
            {"state_dict": {f"module.encoder_q.{key}": tensor for key, tensor in change(atto).items()}},
            f"MoCo's official code, v1 or v2 ({ATTO})",
        ),
    ):
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(UserError) as error:
            read_backbone(tmp_path / "file.pth")
        assert sentence in str(error.value)
        assert f"looks like {what}" in str(error.value)


def test_a_network_of_no_library_has_no_nearest(atto: State) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in atto.items()}
    nearest = find_nearest({key: shape for key, shape in shapes.items() if key != KEY})
    assert nearest is not None and nearest.architecture.name == ATTO
    assert nearest.head == {"head.fc.weight", "head.fc.bias"}
    assert find_nearest({key.replace("blocks", "layers"): shape for key, shape in shapes.items()}) is None
    assert find_nearest({}) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1.0], f"has among its tensors an entry {KEY!r} that is no tensor but of type list: remove it"),
        (torch.empty(640, 160, 1, 1, device="meta"), f"has a tensor {KEY!r} of no values"),
    ],
)
def test_what_is_no_tensor_is_named(value: object, sentence: str, atto: State, tmp_path: Path) -> None:
    for content in ({**atto, KEY: value}, {"state_dict": {**atto, KEY: value}, "epoch": 3}):
        torch.save(content, tmp_path / "file.pth")
        with pytest.raises(UserError) as error:
            read_backbone(tmp_path / "file.pth")
        assert sentence in str(error.value)


def test_a_foreign_entry_called_config_is_no_configuration_of_ours(atto: State, tmp_path: Path) -> None:
    torch.save({"state_dict": atto, "config": "convnext.yaml"}, tmp_path / "file.pth")
    read = read_backbone(tmp_path / "file.pth")
    assert read.meta["config"] == "convnext.yaml"
    assert choose_transform(read, 64, crop=None, resize=None).mean == IMAGENET.mean
