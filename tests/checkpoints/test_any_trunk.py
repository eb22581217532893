"""The files of a method's code around a network that its authors did not take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from support.checkpoint_files import save
from support.public_formats import HEAD, under
from support.thorough import in_turn
from torch import Tensor

from siamtransfer.checkpoints.classifier_place import split_at_classifier
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import load_backbone, read_backbone
from siamtransfer.utils.errors import UserError

State = dict[str, Tensor]


@functools.cache
def trunk(name: str) -> State:
    """A timm network's tensors without a classifier, with batch norms that do something."""
    torch.manual_seed(0)
    state: State = timm.create_model(name, num_classes=0).state_dict()
    return {
        key: tensor + 0.1 * torch.rand_like(tensor) if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }


def moco_v3(state: State, place: str) -> Any:
    base = {**state, **under(f"{place}.", HEAD)}
    return {
        "arch": "convnext",
        "state_dict": {
            **under("module.base_encoder.", base),
            **under("module.momentum_encoder.", base),
            **under("module.predictor.", HEAD),
        },
    }


def simsiam(state: State, place: str) -> Any:
    encoder = {**state, **under(f"{place}.", HEAD)}
    return {"state_dict": under("module.encoder.", encoder) | under("module.predictor.", HEAD)}


def moco(state: State, place: str) -> Any:
    encoder = {**state, **under(f"{place}.", HEAD)}
    return {
        "state_dict": {
            **under("module.encoder_q.", encoder),
            **under("module.encoder_k.", encoder),
            "module.queue": torch.ones(4, 8),
            "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
        }
    }


def dino(state: State, _: str) -> Any:
    whole = under("backbone.", state) | under("head.", HEAD)
    return {"student": under("module.", whole), "teacher": whole, "dino_loss": {"center": torch.ones(1, 4)}}


def barlow_twins(state: State, _: str) -> Any:
    heads = under("module.projector.", HEAD) | under("module.bn.", {"running_mean": torch.ones(4)})
    return {"epoch": 1, "model": under("module.backbone.", state) | heads}


def solo_learn(state: State, _: str) -> Any:
    return {"state_dict": under("backbone.", state) | under("projector.", HEAD) | under("classifier.", HEAD)}


def lightly(state: State, _: str) -> Any:
    return {
        "state_dict": {
            **under("backbone.", state),
            **under("teacher_backbone.", state),
            **under("projection_head.layers.", HEAD),
            **under("teacher_projection_head.layers.", HEAD),
        }
    }


TRUNKS = {
    "convnext_atto": "head.fc",
    "levit_128s": "head",
    "regnety_002": "head.fc",
    "xcit_nano_12_p16_224": "head",
}
METHODS = [moco_v3, simsiam, moco, dino, barlow_twins, solo_learn, lightly]


@pytest.mark.parametrize(("as_stored", "name"), in_turn(METHODS, TRUNKS))
def test_a_method_around_any_network(
    as_stored: Callable[[State, str], Any], name: str, tmp_path: Path
) -> None:
    state = trunk(name)
    read = read_backbone(save(as_stored(state, TRUNKS[name]), tmp_path))
    assert read.name == f"timm:{name}"
    assert read.format == as_stored.__name__.replace("_", "-")
    assert all(torch.equal(read.state[key], tensor) for key, tensor in state.items())
    assert read.used == len(state)


def test_the_features_are_those_of_the_network(tmp_path: Path) -> None:
    state = trunk("convnext_atto")
    backbone, read = load_backbone(save(moco_v3(state, "head.fc"), tmp_path))
    assert read.reading.normalisation.source == "the format moco-v3"
    model = timm.create_model("convnext_atto", num_classes=0).eval()
    model.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone(images), model(images))


def test_a_changed_network_is_refused_and_its_name_finds_the_tensor(tmp_path: Path) -> None:
    state = trunk("convnext_atto")
    lost = {name: tensor for name, tensor in state.items() if name != "stages.2.blocks.3.mlp.fc1.bias"}
    path = save(moco_v3(lost, "head.fc"), tmp_path)
    lacks = r"lacks the tensor 'stages\.2\.blocks\.3\.mlp\.fc1\.bias' of timm:convnext_atto"
    with pytest.raises(UserError, match=lacks):
        read_backbone(path)
    named = ReadingOptions(architecture="timm:convnext_atto")
    with pytest.raises(UserError, match=r"lacks the tensor 'stages\.2\.blocks\.3\.mlp\.fc1\.bias'"):
        read_backbone(path, options=named)
    added = {**state, "stages.0.gate.weight": torch.ones(2)}
    with pytest.raises(UserError, match=r"stages\.0\.gate\.weight"):
        read_backbone(save(moco_v3(added, "head.fc"), tmp_path), options=named)
    wrong = ReadingOptions(architecture="timm:convnext_pico")
    with pytest.raises(UserError, match=r"is not timm:convnext_pico"):
        read_backbone(save(moco_v3(state, "head.fc"), tmp_path), options=wrong)
    renamed = {name.replace("stages", "floors"): tensor for name, tensor in state.items()}
    unknown = r"looks like MoCo v3's official code.*\(stem\.0\.weight, .*--architecture"
    with pytest.raises(UserError, match=unknown):
        read_backbone(save(moco_v3(renamed, "head.fc"), tmp_path))


def test_the_place_of_a_classifier() -> None:
    """A ConvNeXt has a norm of its own beside its classifier; a LeViT's classifier has a norm inside."""
    for name, place in TRUNKS.items():
        state = trunk(name)
        network, head = split_at_classifier({**state, **under(f"{place}.", HEAD)})
        assert (network.keys(), set(head)) == (state.keys(), {f"{place}.{key}" for key in HEAD}), name
        assert split_at_classifier(state)[1] == {}
