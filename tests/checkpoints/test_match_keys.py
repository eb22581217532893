"""Every key is explained: no backbone that is incomplete, changed or ambiguous is read from any format."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.checkpoint_files import own_checkpoint, random_state, save, simsiam_checkpoint
from support.public_formats import PUBLIC_FORMATS
from torch import Tensor

from siamtransfer.checkpoints.read_backbone import read_backbone
from siamtransfer.utils.errors import UserError


def test_batch_counters_may_be_absent_altogether_only(tmp_path: Path) -> None:
    state = random_state("resnet18", 8)
    without = {key: value for key, value in state.items() if "num_batches" not in key}
    read = read_backbone(save(without, tmp_path))
    assert int(read.state["bn1.num_batches_tracked"]) == 0
    assert read.used == len(without)
    del state["bn1.num_batches_tracked"]
    with pytest.raises(UserError, match=r"lacks the tensor 'bn1\.num_batches_tracked'"):
        read_backbone(save(state, tmp_path))


def drop(key: str) -> Any:
    return lambda tensors: tensors.pop(key)


def put(key: str, value: Tensor) -> Any:
    return lambda tensors: tensors.__setitem__(key, value)


MANGLED = {
    "a missing tensor": (drop("layer3.1.bn2.bias"), r"lacks the tensor 'layer3\.1\.bn2\.bias' of resnet18"),
    "no stem": (drop("conv1.weight"), "lacks the first layers"),
    "an unexpected tensor": (
        put("layer3.1.gate.weight", torch.ones(2)),
        r"'layer3\.1\.gate\.weight', which resnet18 has not",
    ),
    "a wrong shape": (put("layer1.0.conv1.weight", torch.ones(8, 8, 1, 1)), r"shape \(8, 8, 1, 1\) where"),
    "a transposed shape": (put("bn1.bias", torch.ones(8, 1)), r"shape \(8, 1\) where resnet18 has \(8,\)"),
    "NaN": (put("bn1.bias", torch.full((8,), float("nan"))), "holds NaN or infinity"),
    "infinity": (put("bn1.running_var", torch.full((8,), float("inf"))), "holds NaN or infinity"),
    "integers": (put("bn1.bias", torch.ones(8, dtype=torch.int32)), "wrong type torch.int32"),
    "a float counter": (put("bn1.num_batches_tracked", torch.tensor(1.0)), "wrong type torch.float32"),
}


@pytest.mark.parametrize("what", MANGLED)
@pytest.mark.parametrize("form", ["torchvision", "simsiam", "siamtransfer", "declared"])
def test_mangled_backbones_are_refused(tmp_path: Path, form: str, what: str) -> None:
    mangle, message = MANGLED[what]
    state = random_state("resnet18", 8)
    mangle(state)
    content: Any = state
    if form == "simsiam":
        content = simsiam_checkpoint(state, "resnet18")
    elif form in ("siamtransfer", "declared"):
        content = own_checkpoint(state, "resnet18", 8, "imagenet", declared=form == "declared")
        message = message.replace("lacks the first layers", r"lacks the tensor 'conv1\.weight'")
    with pytest.raises(UserError, match=message) as caught:
        read_backbone(save(content, tmp_path, "mangled.pth"))
    assert "mangled.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def edit_simsiam(**changes: Any) -> dict[str, Any]:
    content = simsiam_checkpoint(random_state("resnet18", 8), "resnet18")
    for key, value in changes.items():
        content["state_dict"][key.replace("__", ".")] = value
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"module.encoder.fc.0.weight": torch.ones(2, 2)}}, "only heads .*projector: 1"),
        ({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, "only heads .*classifier: 2"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}, "optimiser only"),
        ({"state_dict": {"stem.0.weight": torch.ones(8, 3, 7, 7)}}, "no known format"),
        (
            edit_simsiam(module__queue=torch.ones(2, 2)),
            "looks like SimSiam.*no rule explains its key 'queue'",
        ),
        ({**edit_simsiam(), "ema": {"conv1.weight": torch.ones(1)}}, "no rule explains its key 'ema'"),
        (edit_simsiam(module__encoder__module__conv1__weight=torch.ones(8, 3, 7, 7)), "twice"),
        (torch.ones(3), "holds a Tensor"),
        (
            {
                **edit_simsiam(module__encoder__module__conv1__weight=torch.ones(8, 3, 7, 7)),
                "ema": edit_simsiam(),
            },
            "twice",
        ),
        (
            {
                "model": {
                    "backbone.stem.conv1.weight": torch.ones(8, 3, 7, 7),
                    "stem.conv1.weight": torch.ones(8),
                }
            },
            "twice under different names",
        ),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_backbone(save(content, tmp_path))


STATE = random_state("resnet18", 8)
# Of the other formats, those with a second backbone or many rules: a loss in the first must not go unnoticed.
SEVERAL_BACKBONES = [
    "vissl",
    "directpred",
    "patrickhua",
    "lightly dino",
    "old solo-learn",
    "a moving average",
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_random_subset_or_renaming_passes(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever is lost or renamed, an incomplete or ambiguous backbone is refused."""
    content = copy.copy(STATE)
    chosen = data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=30, unique=True))
    assume(set(chosen) != {key for key in content if key.endswith("num_batches_tracked")})
    if data.draw(st.booleans()):
        for key in chosen:
            del content[key]
    else:
        new = data.draw(st.sampled_from(["x.", "encoder.", "layer9.", "fc.", "layer1."]))
        for key in chosen:
            content[new + key] = content.pop(key)
    form = data.draw(
        st.sampled_from(["torchvision", "simsiam", "siamtransfer", "declared", *SEVERAL_BACKBONES])
    )
    wrapped: Any = content
    if form == "simsiam":
        wrapped = simsiam_checkpoint(content, "resnet18")
    elif form in ("siamtransfer", "declared"):
        wrapped = own_checkpoint(content, "resnet18", 8, "imagenet", declared=form == "declared")
    elif form in SEVERAL_BACKBONES:
        wrapped = PUBLIC_FORMATS[form][0](content, STATE)
    with pytest.raises(UserError):
        read_backbone(save(wrapped, tmp_path))
